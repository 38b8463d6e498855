"""Samples that every file is tried on: the same every time, and extremes among them."""

import numpy as np
import pytest

from backends.tensor import Array, IntegerValues, TensorSpec
from toolkit.metrics.samples import Sample, moved, signed_samples, unit_samples

IMAGE = TensorSpec("image", (1, 3, 4, 4), "float32", "NCHW")
BITS = TensorSpec("bits", (1, 8), "int32", None)
HALF = TensorSpec("half", (2, 5), "float16", None)
FLAG = TensorSpec("flag", (), "bool", None)
SPECS = (IMAGE, BITS, HALF, FLAG)


def _by_name(samples: list[Sample]) -> dict[str, dict[str, Array]]:
    return {sample.name: dict(sample.feeds) for sample in samples}


UNIT = ["all 0", "all 1", "all 0.5", "stripes of one pixel", "one bright value", "noise up to 1e-6"]
SIGNED = ["normal noise x10", "all 0", "all 1", "all -1", "one bright value", "noise up to 1e-6"]


def test_every_sample_has_a_name_and_inputs_of_the_specs() -> None:
    unit, signed = list(unit_samples(SPECS, 3)), list(signed_samples(SPECS, 3))
    noise = [f"uniform noise {seed}" for seed in range(3)]
    assert [sample.name for sample in unit] == [*noise, *UNIT]
    assert [sample.name for sample in signed] == [*noise, *(f"normal noise {seed}" for seed in range(3)), *SIGNED]
    for sample in (*unit, *signed):
        assert (sample.family, sample.truth) == ("synthetic", None)
        assert list(sample.feeds) == [spec.name for spec in SPECS]
        for spec in SPECS:
            spec.validate(sample.feeds[spec.name])
    assert len(list(unit_samples(SPECS))) == 16 + len(UNIT)
    assert len(list(signed_samples(SPECS))) == 2 * 16 + len(SIGNED)


def test_noise_is_seeded_and_differs_from_sample_to_sample() -> None:
    first, again = _by_name(list(unit_samples((IMAGE,), 2))), _by_name(list(unit_samples((IMAGE,), 2)))
    for name, feeds in first.items():
        np.testing.assert_array_equal(feeds["image"], again[name]["image"])
    assert (first["uniform noise 0"]["image"] != first["uniform noise 1"]["image"]).all()
    np.testing.assert_array_equal(
        first["uniform noise 1"]["image"], np.random.default_rng(1).random((1, 3, 4, 4), dtype=np.float32)
    )


def test_the_values_are_those_that_the_names_say() -> None:
    unit, signed = (_by_name(list(samples((IMAGE,), 1))) for samples in (unit_samples, signed_samples))
    for value, name in ((0, "all 0"), (1, "all 1"), (0.5, "all 0.5")):
        assert (unit[name]["image"] == value).all()
    assert (signed["all -1"]["image"] == -1).all()
    assert unit["stripes of one pixel"]["image"][0, 0].tolist() == [[0, 1, 0, 1]] * 4
    bright = unit["one bright value"]["image"]
    assert (bright.sum(), bright.flat[24]) == (1, 1)
    for samples in (unit, signed):
        assert 5e-7 < samples["noise up to 1e-6"]["image"].max() < 1e-6
        assert samples["uniform noise 0"]["image"].min() >= 0
        assert 0.8 < samples["uniform noise 0"]["image"].max() < 1
    normal = signed["normal noise 0"]["image"]
    assert normal.min() < -1
    np.testing.assert_allclose(signed["normal noise x10"]["image"], 10 * normal)


def test_integers_and_booleans_are_0_and_1() -> None:
    samples = _by_name(list(signed_samples(SPECS, 1)))
    noise = samples["uniform noise 0"]["bits"]
    assert set(noise.ravel().tolist()) == {0, 1}
    assert [int(samples[name]["bits"][0, 0]) for name in ("all 0", "all 1", "all -1")] == [0, 1, 0]
    assert _by_name(list(unit_samples(SPECS, 1)))["all 0.5"]["bits"].max() == 0  # half rounds to even
    assert samples["all 1"]["flag"]
    assert not samples["all 0"]["flag"]


def test_stripes_of_a_scalar_are_its_one_value() -> None:
    number = TensorSpec("number", (), "float32", None)
    samples = _by_name(list(unit_samples((number,), 1)))
    assert samples["stripes of one pixel"]["number"] == 0
    assert samples["one bright value"]["number"] == 1


def test_each_input_is_moved_by_its_name() -> None:
    samples = list(unit_samples((IMAGE, BITS), 1))
    there = list(moved(samples, lambda name, values: values * 2 if name == "image" else values))
    assert [sample.name for sample in there] == [sample.name for sample in samples]
    for old, new in zip(samples, there, strict=True):
        np.testing.assert_array_equal(new.feeds["image"], 2 * old.feeds["image"])
        np.testing.assert_array_equal(new.feeds["bits"], old.feeds["bits"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_as_much_noise_is_made_as_is_asked_for(count: int) -> None:
    assert len(list(unit_samples((IMAGE,), count))) == count + len(UNIT)


_IDS = TensorSpec("ids", (2, 6), "int64", None)


def test_indices_are_of_the_whole_range_that_a_table_allows() -> None:
    samples = _by_name(list(signed_samples((_IDS, IMAGE), integers={"ids": IntegerValues(50)})))
    drawn = np.concatenate([feeds["ids"].ravel() for name, feeds in samples.items() if "noise" in name])
    assert (drawn.min(), drawn.max()) == (0, 49)
    assert len(np.unique(drawn)) == 50
    assert [set(samples[name]["ids"].ravel()) for name in ("all 0", "all 1", "all -1")] == [{0}, {1}, {49}]
    plain = _by_name(list(signed_samples((_IDS, IMAGE))))
    for name, feeds in samples.items():
        assert (feeds["ids"].shape, feeds["ids"].dtype) == ((2, 6), np.int64)
        np.testing.assert_array_equal(feeds["image"], plain[name]["image"])
    assert {int(feeds["ids"].max()) for feeds in plain.values()} <= {0, 1}


def test_a_table_of_one_row_has_one_index() -> None:
    samples = _by_name(list(signed_samples((_IDS,), integers={"ids": IntegerValues(1)})))
    assert not any(feeds["ids"].any() for feeds in samples.values())


@pytest.mark.parametrize("dtype", ["bool", "int64", "int8"])
def test_a_mask_keeps_the_first_elements_of_each_row_or_all(dtype: str) -> None:
    spec = TensorSpec("mask", (2, 6), dtype, None)
    samples = _by_name(list(signed_samples((spec,), integers={"mask": IntegerValues(mask=True)})))
    kept = {name: feeds["mask"].sum(axis=1) for name, feeds in samples.items()}
    assert all((rows >= 1).all() for rows in kept.values())
    for name, feeds in samples.items():
        assert (np.diff(feeds["mask"].astype(int), axis=1) <= 0).all()
        assert name.startswith("uniform") or (kept[name] == 6).all()
    lengths = {int(row) for name, rows in kept.items() if name.startswith("uniform") for row in rows}
    assert lengths == set(range(1, 7))


def test_a_mask_of_one_value_keeps_it() -> None:
    flag = TensorSpec("mask", (), "bool", None)
    samples = list(signed_samples((flag,), integers={"mask": IntegerValues(mask=True)}))
    assert all(sample.feeds["mask"].shape == () and sample.feeds["mask"] for sample in samples)


@pytest.mark.parametrize(("below", "shape", "width"), [(12, (2, 6), 1), (6, (2, 6), 1), (4, (3, 2), 2)])
def test_indices_of_a_scatter_are_distinct(below: int, shape: tuple[int, ...], width: int) -> None:
    spec = TensorSpec("at", shape, "int32", None)
    for sample in signed_samples((spec,), integers={"at": IntegerValues(below, distinct=width)}):
        at = sample.feeds["at"]
        assert (at >= 0).all()
        assert (at < below).all()
        rows = [at] if at.size <= below or width > 1 else at
        for row in rows:
            indices = np.asarray(row).reshape(-1, width)
            assert len(np.unique(indices, axis=0)) == len(indices)
