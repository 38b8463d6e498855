"""One contract for every backend, precision and route, on the shipped model and on each golden one.

The reference is torch at float32. Bits are judged, and raw error beside them: a bit is the sign of its logit.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from backends.bundle import Bundle
from backends.errors import InvalidInput
from backends.registry import open_session
from backends.session import Session
from tests.contract.models import (
    GOLDEN_MODELS,
    PHOTOGRAPHS,
    POCKETSEAL,
    SHIPPED,
    VARIANTS,
    Variant,
    bundle_of,
    find,
    holds,
    marks,
)
from toolkit.images.preprocess import preprocess
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message, compare

MODELS = (POCKETSEAL, *GOLDEN_MODELS)
# Of the range of the reference's logits: float32 sums in another order, over a few dozen layers.
FP32_TOLERANCE = 1e-4
# Nearer to zero than this, rounding alone may decide a bit.
CERTAIN_LOGIT = 1e-3
FP16_FLIPS = 0.001
INT8_FLIPS = 0.01
# Random weights put logits near zero, so flips say little there; the direction of the whole vector must stand.
INT8_COSINE = 0.99
MARKED_COPIES = 8

# One of each backend; the others run ten times.
RUN_A_HUNDRED_TIMES = {
    ("videoseal-1.0-tiny", variant)
    for variant in (("torch", "fp32", None), ("ort", "int8", None), ("tflite", "int8", "direct"))
}

PRECISIONS = tuple(dict.fromkeys(variant[1] for variant in VARIANTS))


def files(*precisions: str, models: tuple[str, ...] = MODELS) -> pytest.MarkDecorator:
    """Every model with each of its files of these precisions."""
    pairs = [
        pytest.param(model, variant, marks=marks(model, variant), id="-".join(filter(None, (model, *variant))))
        for model in models
        for variant in VARIANTS
        if variant[1] in precisions and holds(model, variant[1])
    ]
    return pytest.mark.parametrize(("model", "variant"), pairs)


@dataclass(frozen=True)
class Marked:
    """A marked photograph after an attack, as the detector sees it, and the message that is in it."""

    tensor: np.ndarray
    message: Message


def _attacked(image: Image.Image, index: int) -> Image.Image:
    if index % 3 == 1:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=75)
        return Image.open(buffer)
    if index % 3 == 2:
        return image.resize((image.width // 2, image.height // 2))
    return image


@pytest.fixture(scope="session")
def marked() -> list[Marked]:
    """Every test photograph with several messages, as it is, as a JPEG, and at half its size."""
    random = np.random.default_rng(3)
    out = []
    with Embedder.open(Bundle.open(SHIPPED / POCKETSEAL)) as embedder:
        for photograph in PHOTOGRAPHS:
            for index in range(MARKED_COPIES):
                message = Message(tuple(int(bit) for bit in random.integers(0, 2, embedder.model.bits)))
                image = _attacked(embedder.embed(photograph, message).image, index)
                out.append(Marked(preprocess(image, embedder.model.image_size_px), message))
    return out


def tensors(bundle: Bundle, marked: list[Marked]) -> Iterator[np.ndarray]:
    """Photographs, marked where the model reads marks, and seeded noise, black and white."""
    side = bundle.model["image_size_px"]
    if bundle.model["name"] == POCKETSEAL:
        yield from (item.tensor for item in marked)
    else:
        for photograph in PHOTOGRAPHS:
            image = Image.open(photograph)
            for left in range(0, image.width - side, max(1, image.width // MARKED_COPIES)):
                yield preprocess(image.crop((left, 0, left + side, side)), side)
    random = np.random.default_rng(5)
    yield from (random.random((1, 3, side, side), dtype=np.float32) for _ in range(16))
    yield np.zeros((1, 3, side, side), np.float32)
    yield np.ones((1, 3, side, side), np.float32)


def opened(bundle: Bundle, variant: tuple[str, str, str | None], threads: int = 1) -> Session:
    backend, precision, route = variant
    return open_session(bundle, find(bundle, backend, precision, route), backend, threads)


def logits_of(bundle: Bundle, variant: tuple[str, str, str | None], images: list[np.ndarray]) -> np.ndarray:
    with opened(bundle, variant) as session:
        return np.concatenate([session.run({"image": image})["logits"] for image in images])


REFERENCE: Variant = ("torch", "fp32", None)
# Model -> the images that it is tried on, and the reference's logits of them.
Reference = Callable[[str], tuple[list[np.ndarray], np.ndarray]]


@pytest.fixture(scope="session")
def reference_of(marked: list[Marked]) -> Reference:
    @cache
    def run(model: str) -> tuple[list[np.ndarray], np.ndarray]:
        bundle = bundle_of(model, REFERENCE)
        images = list(tensors(bundle, marked))
        return images, logits_of(bundle, REFERENCE, images)

    return run


@files(*PRECISIONS)
def test_names_shapes_dtypes_and_layouts_are_the_model_s_own(model: str, variant: Variant) -> None:
    bundle = bundle_of(model, variant)
    side, bits = bundle.model["image_size_px"], bundle.model["bits"]
    with opened(bundle, variant) as session:
        (given,), (made,) = session.artifact.inputs, session.artifact.outputs
        outputs = session.run({"image": np.zeros((1, 3, side, side), np.float32)})
    assert (given.spec.name, given.spec.shape, given.spec.dtype) == ("image", (1, 3, side, side), "float32")
    assert given.spec.layout == "NCHW"
    assert made.spec.name == "logits"
    assert outputs["logits"].shape == (1, 1 + bits)
    assert outputs["logits"].dtype == np.float32
    assert outputs["logits"].flags.c_contiguous


@files("fp32")
def test_float32_agrees_and_flips_no_certain_bit(reference_of: Reference, model: str, variant: Variant) -> None:
    images, expected = reference_of(model)
    got = logits_of(bundle_of(model, variant), variant, images)
    assert np.abs(got - expected).max() <= FP32_TOLERANCE * np.ptp(expected)
    certain = np.abs(expected) > CERTAIN_LOGIT
    assert certain.mean() > 0.9
    np.testing.assert_array_equal(got[certain] > 0, expected[certain] > 0)


@files("fp16")
def test_float16_flips_at_most_one_bit_in_a_thousand(reference_of: Reference, model: str, variant: Variant) -> None:
    images, expected = reference_of(model)
    expected, got = expected[:, 1:], logits_of(bundle_of(model, variant), variant, images)[:, 1:]
    flips = (got > 0) != (expected > 0)
    assert flips.size >= 500
    assert flips.sum() <= np.ceil(FP16_FLIPS * flips.size)


@files("int8", "int8-static", "int8-w", "int16x8", "mixed", models=(POCKETSEAL,))
def test_int8_keeps_the_bits_and_verdicts_of_marked_photographs(
    reference_of: Reference, marked: list[Marked], model: str, variant: Variant
) -> None:
    bundle = bundle_of(model, variant)
    images, expected = reference_of(model)  # the marked photographs come first
    expected, got = expected[: len(marked)], logits_of(bundle, variant, images[: len(marked)])
    flips = (got[:, 1:] > 0) != (expected[:, 1:] > 0)
    assert flips.mean() <= INT8_FLIPS
    threshold = bundle.model["detection_threshold"]
    np.testing.assert_array_equal(got[:, 0] > threshold, expected[:, 0] > threshold)
    for item, row, reference in zip(marked, got, expected, strict=True):
        verdicts = [
            compare(Message(tuple(int(bit) for bit in values[1:] > 0)), item.message).detected
            for values in (row, reference)
        ]
        assert verdicts == [True, True]


@files("int8", "int8-static", models=GOLDEN_MODELS)
def test_int8_keeps_the_direction_of_random_networks(reference_of: Reference, model: str, variant: Variant) -> None:
    images, expected = reference_of(model)
    got = logits_of(bundle_of(model, variant), variant, images)
    cosine = (got * expected).sum() / (np.linalg.norm(got) * np.linalg.norm(expected))
    assert cosine >= INT8_COSINE


@files(*PRECISIONS)
def test_the_same_image_gives_the_same_bytes_each_time(marked: list[Marked], model: str, variant: Variant) -> None:
    bundle = bundle_of(model, variant)
    runs = 100 if (model, variant) in RUN_A_HUNDRED_TIMES else 10
    first, second, *_ = tensors(bundle, marked)
    with opened(bundle, variant, threads=2) as session:
        expected = session.run({"image": first})["logits"].tobytes()
        other = session.run({"image": second})["logits"].tobytes()
        again = {session.run({"image": first})["logits"].tobytes() for _ in range(runs)}
    assert again == {expected}
    assert other != expected


@files(*PRECISIONS)
def test_two_sessions_in_two_threads_do_not_disturb_each_other(
    marked: list[Marked], model: str, variant: Variant
) -> None:
    bundle = bundle_of(model, variant)
    images = list(tensors(bundle, marked))[:2]
    with opened(bundle, variant) as one, opened(bundle, variant) as two:
        expected = [one.run({"image": image})["logits"] for image in images]

        def read(session: Session, image: np.ndarray) -> list[np.ndarray]:
            return [session.run({"image": image})["logits"] for _ in range(10)]

        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(read, session, image) for session, image in zip((one, two), images, strict=True)]
            results = [job.result() for job in jobs]
    for rows, row in zip(results, expected, strict=True):
        for got in rows:
            np.testing.assert_array_equal(got, row)


@files(*PRECISIONS)
def test_a_wrong_feed_is_refused_and_so_is_a_closed_session(model: str, variant: Variant) -> None:
    bundle = bundle_of(model, variant)
    side = bundle.model["image_size_px"]
    image = np.zeros((1, 3, side, side), np.float32)
    wrong: list[tuple[dict[str, np.ndarray], str]] = [
        ({"picture": image}, "expected inputs"),
        ({"image": image[:, :1]}, "expected shape"),
        ({"image": image.astype(np.float64)}, "expected dtype"),
        ({"image": np.full_like(image, np.nan)}, "NaN"),
    ]
    with opened(bundle, variant) as session:
        for feed, says in wrong:
            with pytest.raises(InvalidInput, match=says):
                session.run(feed)
    with pytest.raises(InvalidInput, match="closed"):
        session.run({"image": image})
