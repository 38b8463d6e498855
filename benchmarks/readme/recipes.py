"""The README's block on precisions: the right bits that each recipe loses, on both runtimes."""

from typing import Any

from benchmarks.readme import read, table

# The names that `-p` accepts, in the order in which they are explained.
_RECIPES = {
    "fp32": "as exported",
    "fp16": "weights in float16, made float32 as the file loads",
    "int8-w": "weights in INT8, made float32 as the file loads",
    "int8": "weights in INT8, activations quantized as they come",
    "mixed": "as `int8`, but layers in float16: here, those without which bits flip on 128 images of other photographs",
    "int8-static": "weights in INT8, activations over calibrated ranges",
    "int16x8": "as `int8-static`, activations in 16 bits",
}


def recipes() -> str:
    """Return the block: the loss of each recipe, and the bits that static INT8 flips for each calibration."""
    result, seen = read("recipes-pocketseal"), read("calibration-pocketseal")
    return (
        f"{result['readings']} readings of {result['photographs']} marked photographs, distorted in "
        f"{len(result['distortions'])} ways; the loss of right bits is against torch in float32, with its 95% interval "
        f"over photographs:\n\n{_losses(result)}\n\n"
        f"Bits that `int8-static` flips in {seen['readings']} readings, on ONNX Runtime / TFLite, by what it was "
        f"calibrated on and how:\n\n{_calibrations(seen)}\n"
    )


def _losses(result: dict[str, Any]) -> str:
    """Return a table with a row for each recipe: size, loss with its interval, and flipped bits on both runtimes."""
    files = {(row["precision"], row["file"].rsplit(".", 1)[1]): row for row in result["files"] if row["route"] != "tf"}
    rows = []
    for name, meaning in _RECIPES.items():
        cells = [cell for kind in ("onnx", "tflite") for cell in _cells(files.get((name, kind)))]
        rows.append([f"`{name}`", meaning, *cells])
    figures = ["loss, points", "flipped"]
    return table(["`-p`", "", "ONNX Runtime: MB", *figures, "TFLite: MB", *figures], rows, left=2)


def _calibrations(result: dict[str, Any]) -> str:
    """Return a table of flipped bits with a row for each set of calibration images and a column for each method."""
    flipped = {
        (row["calibration"], row["method"], row["file"].rsplit(".", 1)[1]): row["bits_flipped"]
        for row in result["files"]
    }
    sources, methods = ([*dict.fromkeys(key[i] for key in flipped)] for i in (0, 1))
    rows = [
        [source, *(" / ".join(f"{flipped[source, m, kind]:.2%}" for kind in ("onnx", "tflite")) for m in methods)]
        for source in sources
    ]
    return table(["calibrated on", *methods], rows)


def _cells(row: dict[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return "-", "-", "-"
    low, high = row["loss_pp_interval_95"]
    loss = f"{row['loss_pp']:.3f} ({low:.3f} to {high:.3f})"
    return f"{row['bytes'] / 1e6:.2f}", loss, f"{row['bits_flipped']:.3%}"
