"""Recordings that a user gives as inputs: stretches of the input's length, channels and rate."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from backends.errors import InvalidInput, NotAvailable
from backends.tensor import TensorSpec
from toolkit.inputs.images import Preprocess
from toolkit.inputs.read import read_inputs

MONO = TensorSpec("wave", (1, 100), "float32", None)


def _wav(path: Path, values: object, rate: int = 16000) -> Path:
    soundfile.write(path, np.asarray(values, np.float32), rate, "FLOAT")
    return path


def test_a_long_recording_is_cut_into_stretches(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 250, dtype=np.float32)
    _wav(tmp_path / "a.wav", values)
    first, second = read_inputs(tmp_path, (MONO,))
    assert [first.name, second.name] == ["a.wav", "a.wav from 100"]
    np.testing.assert_array_equal(first.feeds["wave"][0], values[:100])
    np.testing.assert_array_equal(second.feeds["wave"][0], values[100:200])


def test_a_short_recording_has_silence_after_it(tmp_path: Path) -> None:
    (sample,) = read_inputs(_wav(tmp_path / "a.wav", np.full(30, 0.5)), (MONO,))
    assert sample.feeds["wave"][0].tolist() == [0.5] * 30 + [0.0] * 70


@pytest.mark.parametrize("shape", [(100,), (1, 100), (1, 1, 100), (1, 100, 1), (1, 2, 100), (1, 100, 2), (2, 100)])
def test_channels_and_batches_are_found_by_the_shape_of_the_input(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stereo = np.stack([np.full(200, 0.25), np.full(200, 0.75)], axis=1)
    inputs = read_inputs(_wav(tmp_path / "a.wav", stereo), (TensorSpec("wave", shape, "float32", None),))
    assert len(inputs) == (1 if shape == (2, 100) else 2)
    wave = inputs.sample(0).feeds["wave"]
    assert wave.shape == shape
    both = wave.reshape(2, 100) if shape == (1, 2, 100) else wave.reshape(100, 2).T if shape == (1, 100, 2) else None
    if both is None:
        assert (wave == 0.5).all()
    else:
        assert [set(channel.tolist()) for channel in both] == [{0.25}, {0.75}]


def test_files_of_another_rate_are_refused(tmp_path: Path) -> None:
    _wav(tmp_path / "a.wav", np.zeros(100), 16000)
    with pytest.raises(InvalidInput, match=r"a\.wav: expected 8000 samples a second, got 16000: resample it"):
        read_inputs(tmp_path, (MONO,), Preprocess.parse("rate=8000"))
    assert len(read_inputs(tmp_path, (MONO,), Preprocess.parse("rate=16000"))) == 1
    _wav(tmp_path / "b.wav", np.zeros(100), 44100)
    with pytest.raises(InvalidInput, match=r"b\.wav: expected 16000 samples a second, got 44100"):
        read_inputs(tmp_path, (MONO,))


def test_files_that_are_no_recordings_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"a\.wav: not a recording that can be read"):
        read_inputs(tmp_path, (MONO,))
    with pytest.raises(InvalidInput, match=r"a\.wav: a recording without a single sample"):
        read_inputs(_wav(tmp_path / "a.wav", []), (MONO,))
    with pytest.raises(InvalidInput, match=r"a\.wav: expected 1 or 2 channels, got 4"):
        read_inputs(_wav(tmp_path / "a.wav", np.zeros((100, 4))), (MONO,))


def test_without_soundfile_the_command_to_install_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _wav(tmp_path / "a.wav", np.zeros(100))
    monkeypatch.setattr("toolkit.environments.find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match="not installed: soundfile; run `pip install soundfile`"):
        read_inputs(tmp_path, (MONO,))


def test_a_model_with_other_inputs_is_told_to_take_arrays(tmp_path: Path) -> None:
    _wav(tmp_path / "a.wav", np.zeros(100))
    for specs in (
        (MONO, TensorSpec("state", (1, 100), "float32", None)),
        (TensorSpec("mel", (1, 80, 100), "float32", None),),
    ):
        with pytest.raises(InvalidInput, match=r"expected one input for recordings, .*\.npz files"):
            read_inputs(tmp_path, specs)


def test_recordings_of_folders_below_are_read_too(tmp_path: Path) -> None:
    for name, value in (("yes/b.wav", 0.5), ("no/a.wav", 0.25), ("no/c.wav", 0.75)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _wav(tmp_path / name, np.full(100, value))
    samples = list(read_inputs(tmp_path, (MONO,)))
    assert [sample.name for sample in samples] == ["no/a.wav", "no/c.wav", "yes/b.wav"]
    assert [float(sample.feeds["wave"][0, 0]) for sample in samples] == [0.25, 0.75, 0.5]


def test_folders_without_a_recording_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty" / "empty").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InvalidInput, match=r"no inputs: expected .* in the folder or its subfolders"):
        read_inputs(tmp_path, (MONO,))
