"""Arrays that a user gives as inputs: which are samples, and what is said about those that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from backends.errors import InvalidInput
from backends.tensor import IntegerValues, TensorSpec
from toolkit.inputs.read import read_inputs

IDS = TensorSpec("ids", (1, 4), "int64", None)
MASK = TensorSpec("mask", (1, 4), "bool", None)
PAIR = TensorSpec("pair", (2, 3), "float32", None)
LENGTH = TensorSpec("length", (), "int32", None)
ROW = TensorSpec("row", (5,), "float32", None)


def _npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub wants a bool for every keyword
    return path


def test_the_first_axis_counts_the_samples_of_every_input(tmp_path: Path) -> None:
    ids, mask, length = np.arange(12).reshape(3, 4), np.ones((3, 4), int), np.array([4, 3, 2])
    path = _npz(tmp_path / "text.npz", ids=ids, mask=mask, length=length, unused=np.zeros(2))
    inputs = read_inputs(path, (IDS, MASK, LENGTH))
    assert len(inputs) == 3
    samples = list(inputs)
    assert [sample.name for sample in samples] == ["text.npz [0]", "text.npz [1]", "text.npz [2]"]
    assert {sample.family for sample in samples} == {"real"}
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.feeds["ids"], ids[i : i + 1])
        assert [value.dtype.name for value in sample.feeds.values()] == ["int64", "bool", "int32"]
        assert sample.feeds["length"] == length[i]
        assert list(sample.feeds) == ["ids", "mask", "length"]


def test_an_array_of_the_inputs_own_shape_is_one_sample(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    (sample,) = read_inputs(_npz(tmp_path / "a.npz", pair=values), (PAIR,))
    assert sample.name == "a.npz"
    assert sample.feeds["pair"].dtype == np.float32
    np.testing.assert_array_equal(sample.feeds["pair"], values)


def test_rows_are_grouped_into_batches_and_an_incomplete_one_is_left_out(tmp_path: Path) -> None:
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    first, second = read_inputs(_npz(tmp_path / "a.npz", pair=rows), (PAIR,))
    np.testing.assert_array_equal(first.feeds["pair"], rows[:2])
    np.testing.assert_array_equal(second.feeds["pair"], rows[2:4])


def test_an_input_without_an_axis_for_samples_gets_one_in_front(tmp_path: Path) -> None:
    rows = np.arange(15, dtype=np.float16).reshape(3, 5)
    samples = list(read_inputs(_npz(tmp_path / "a.npz", row=rows), (ROW,)))
    assert [float(sample.feeds["row"][0]) for sample in samples] == [0, 5, 10]


def test_each_file_of_a_folder_is_a_sample_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        np.save(tmp_path / f"{number}.npy", np.full((1, 4), number))
    (tmp_path / "README.txt").write_text("nothing to read")
    (tmp_path / ".hidden.npz").write_text("nothing to read")
    samples = list(read_inputs(tmp_path, (IDS,)))
    assert [sample.name for sample in samples] == ["0.npy", "1.npy", "2.npy"]
    assert [int(sample.feeds["ids"][0, 0]) for sample in samples] == [0, 1, 2]


def test_a_few_samples_are_spread_from_the_first_to_the_last(tmp_path: Path) -> None:
    inputs = read_inputs(_npz(tmp_path / "a.npz", ids=np.repeat(np.arange(10)[:, None], 4, 1)), (IDS,))
    assert [int(sample.feeds["ids"][0, 0]) for sample in inputs.spread(4)] == [0, 3, 6, 9]
    assert len(list(inputs.spread(100))) == 10


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"tokens": np.zeros((1, 4), int)}, "expected an array 'ids' for the input of that name, it has tokens"),
        ({"ids": np.zeros((3, 5), int)}, r"input 'ids': expected int64 \[samples, 4\] or \[1, 4\], got int64 \[3, 5\]"),
        ({"ids": np.zeros((3, 4))}, r"input 'ids': expected int64 .*, got float64 \[3, 4\]"),
        ({"ids": np.zeros((0, 4), int)}, r"input 'ids': expected .*, got int64 \[0, 4\]"),
        ({"ids": np.array(["a"])}, r"input 'ids': expected .*, got <U1 \[1\]"),
    ],
)
def test_an_array_that_does_not_fit_names_the_file_and_the_input(
    tmp_path: Path, arrays: dict[str, object], message: str
) -> None:
    path = _npz(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(InvalidInput, match=rf"wrong\.npz: {message}"):
        read_inputs(path, (IDS,))


def test_inputs_with_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    path = _npz(tmp_path / "two.npz", ids=np.zeros((3, 4), int), mask=np.ones((2, 4), bool))
    with pytest.raises(InvalidInput, match=r"two\.npz: .*got 3 of 'ids' and 2 of 'mask'"):
        read_inputs(path, (IDS, MASK))


def test_integers_are_not_taken_for_floats_since_images_need_a_scale(tmp_path: Path) -> None:
    path = _npz(tmp_path / "pixels.npz", row=np.full((2, 5), 200, np.uint8))
    with pytest.raises(InvalidInput, match=r"pixels\.npz: input 'row': expected float32 .*got uint8 \[2, 5\]"):
        read_inputs(path, (ROW,))


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (TensorSpec("small", (2,), "int8", None), [1, 300], "expected values of int8, -128 to 127, got 1 to 300"),
        (TensorSpec("small", (2,), "bool", None), [0, 2], "expected values of bool, 0 to 1, got 0 to 2"),
        (TensorSpec("small", (2,), "float32", None), [0.0, np.nan], "expected finite values"),
        (TensorSpec("small", (2,), "float32", None), [0.0, 1e300], "expected finite values"),
    ],
)
def test_values_that_an_input_cannot_take_are_named(
    tmp_path: Path, spec: TensorSpec, values: list[float], message: str
) -> None:
    inputs = read_inputs(_npz(tmp_path / "values.npz", small=np.array(values)), (spec,))
    with pytest.raises(InvalidInput, match=rf"values\.npz: .*'small': {message}"):
        list(inputs)


def test_an_index_beyond_its_table_is_named(tmp_path: Path) -> None:
    path = _npz(tmp_path / "a.npz", ids=np.array([[0, 1, 2, 30], [-30, 1, 2, 29]]))
    inputs = read_inputs(path, (IDS,), integers={"ids": IntegerValues(30)})
    message = r"a\.npz: input 'ids': expected indices of the table that reads them, -30 to 29, got 0 to 30"
    with pytest.raises(InvalidInput, match=message):
        inputs.sample(0)
    assert inputs.sample(1).feeds["ids"].tolist() == [[-30, 1, 2, 29]]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = _npz(tmp_path / "whole.npz", ids=np.zeros((1, 4), int)).read_bytes()
    for name, content in (("text.npz", b"not an archive"), ("cut.npz", whole[:100]), ("empty.npy", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=rf"{name}: not a file of arrays that can be read"):
            read_inputs(tmp_path / name, (IDS,))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"object\.npy: input 'ids': expected .*got object \[1\]"):
        read_inputs(tmp_path / "object.npy", (IDS,))


def test_an_npy_cannot_say_which_of_two_inputs_it_is_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 4), int))
    with pytest.raises(InvalidInput, match=r"a\.npy: expected an \.npz with an array for each of the inputs ids, mask"):
        read_inputs(tmp_path, (IDS, MASK))


def test_a_place_without_inputs_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: no such file or folder of inputs"):
        read_inputs(tmp_path / "nowhere", (IDS,))
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInput, match=r"no inputs: expected \.npz or \.npy files, images, or recordings"):
        read_inputs(tmp_path, (IDS,))
    np.save(tmp_path / "a.npy", np.zeros((1, 4), int))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InvalidInput, match="expected inputs of one sort, got 1 files of arrays and 1 files of images"):
        read_inputs(tmp_path, (IDS,))


@pytest.mark.parametrize(
    ("specs", "arrays", "truths"),
    [
        ((IDS,), {"ids": np.zeros((3, 4), int), "labels": np.array([2, 0, 1])}, [(2,), (0,), (1,)]),
        ((IDS,), {"ids": np.zeros((3, 4), int), "label": np.array([[2], [0], [1]])}, [(2,), (0,), (1,)]),
        ((IDS,), {"ids": np.zeros((2, 4), int), "labels": np.arange(8).reshape(2, 4)}, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((PAIR,), {"pair": np.zeros((5, 3), np.float32), "labels": np.arange(5)}, [(0, 1), (2, 3)]),
        ((PAIR,), {"pair": np.zeros((2, 3), np.float32), "labels": np.arange(2)}, [(0, 1)]),
        ((ROW,), {"row": np.zeros((2, 5), np.float32), "labels": np.arange(2)}, [(0,), (1,)]),
        ((ROW,), {"row": np.zeros(5, np.float32), "label": np.array(7)}, [(7,)]),
        ((IDS,), {"ids": np.zeros((2, 4), int)}, [None, None]),
    ],
)
def test_labels_beside_the_inputs_are_the_truth_of_the_samples(
    tmp_path: Path, specs: tuple[TensorSpec, ...], arrays: dict[str, object], truths: list[object]
) -> None:
    assert [sample.truth for sample in read_inputs(_npz(tmp_path / "a.npz", **arrays), specs)] == truths


def test_an_input_called_labels_is_an_input(tmp_path: Path) -> None:
    labels = TensorSpec("labels", (1, 4), "int64", None)
    path = _npz(tmp_path / "a.npz", labels=np.zeros((2, 4), int), label=np.array([1, 0]))
    assert [sample.truth for sample in read_inputs(path, (labels,))] == [(1,), (0,)]


@pytest.mark.parametrize(
    ("labels", "got"), [(np.zeros(2, int), r"int64 \[2\]"), (np.zeros((3, 5), np.float32), r"float32 \[3, 5\]")]
)
def test_labels_that_do_not_belong_to_the_rows_are_refused(tmp_path: Path, labels: object, got: str) -> None:
    path = _npz(tmp_path / "a.npz", ids=np.zeros((3, 4), int), labels=labels)
    with pytest.raises(InvalidInput, match=f"labels: expected integers for each of 3 rows of the inputs, got {got}"):
        read_inputs(path, (IDS,))
