"""The table of reading figures is whole on 80 columns."""

import io

from rich.console import Console

from benchmarks.reading_figures import table_of


def test_no_figure_of_the_table_is_cut_on_80_columns() -> None:
    file = "marked photographs percentile detector.int8-static.tflite"
    row = {
        "file": file,
        "bytes": 123_456_789,
        "bit_accuracy": 0.98765,
        "loss_pp": -12.345,
        "bits_flipped": 0.12345,
        "verdicts_changed": 12345,
        "cosine": 0.98765,
        "signal_to_noise_db": 123.4,
    }
    out = io.StringIO()
    Console(file=out, width=80).print(table_of([row]))
    text = out.getvalue()
    assert "…" not in text
    first = next(line for line in text.splitlines() if "123.46" in line).split()
    assert first[-7:] == ["123.46", "98.765%", "-12.345", "12.345%", "12345", "0.98765", "123.4"]
    end = next(line.index("MB") for line in text.splitlines() if "MB" in line) - len("123.4")
    names = "".join(line[:end] for line in text[text.index("marked") :].splitlines())
    assert names.replace(" ", "") == file.replace(" ", "")
