"""Images that a user gives as inputs: layout, size, colours and scale of the tensor that a model reads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.images.preprocess import preprocess
from toolkit.inputs.images import Preprocess
from toolkit.inputs.read import read_inputs

NCHW = TensorSpec("image", (1, 3, 8, 12), "float32", "NCHW")
NHWC = TensorSpec("image", (1, 8, 12, 3), "float32", "NCHW")
GREY = TensorSpec("image", (1, 1, 8, 12), "float32", "NCHW")
# Red, green and blue of every pixel of the flat image in the fixture below.
FLAT = (51, 102, 204)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    Image.new("RGB", (20, 10), FLAT).save(folder / "flat.png")
    return folder


def _tensor(folder: Path, spec: TensorSpec, text: str = "") -> Array:
    (sample,) = read_inputs(folder, (spec,), Preprocess.parse(text))
    assert sample.name == "flat.png"
    values = sample.feeds["image"]
    assert (values.shape, values.dtype.name) == (spec.shape, spec.dtype)
    return values


def test_without_options_a_square_image_is_what_our_own_models_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    (sample,) = read_inputs(tmp_path, (TensorSpec("x", (1, 3, 16, 16), "float32", "NCHW"),))
    np.testing.assert_array_equal(sample.feeds["x"], preprocess(tmp_path / "noise.png", 16))


def test_the_layout_follows_from_the_axis_of_three(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    (first,), (last,) = (read_inputs(tmp_path, (spec,)) for spec in (NCHW, NHWC))
    np.testing.assert_array_equal(last.feeds["image"], first.feeds["image"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(last.feeds["image"][0], pixels / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0.2, 0.4, 0.8)),
        ("order=BGR", (0.8, 0.4, 0.2)),
        ("scale=255", FLAT),
        ("mean=0.5,std=0.5", (-0.6, -0.2, 0.6)),
        ("mean=0.1 0.2 0.3,std=0.1 0.2 0.5", (1, 1, 1)),
        ("scale=255, order=BGR, mean=104 117 123", (100, -15, -72)),
        ("grey", (0.3858,) * 3),
    ],
)
@pytest.mark.parametrize("spec", [NCHW, NHWC])
def test_colours_are_scaled_and_ordered(flat: Path, spec: TensorSpec, text: str, expected: tuple[float, ...]) -> None:
    values = _tensor(flat, spec, text)
    values = values if spec is NHWC else values.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(values, np.broadcast_to(np.float32(expected), values.shape), atol=2e-5)


def test_an_input_of_one_channel_gets_the_grey_that_a_viewer_shows(flat: Path) -> None:
    viewer = np.asarray(Image.open(flat / "flat.png").convert("L")) / 255
    np.testing.assert_allclose(_tensor(flat, GREY), viewer[0, 0], atol=1 / 255)
    np.testing.assert_array_equal(_tensor(flat, GREY, "grey"), _tensor(flat, GREY))


def test_a_grey_image_fills_three_channels(flat: Path) -> None:
    Image.new("L", (5, 5), 51).save(flat / "flat.png")
    np.testing.assert_allclose(_tensor(flat, NCHW), 0.2, atol=1e-6)


def test_an_input_of_bytes_gets_bytes(flat: Path) -> None:
    values = _tensor(flat, TensorSpec("image", (1, 8, 12, 3), "uint8", "NCHW"))
    np.testing.assert_array_equal(values, np.broadcast_to(np.uint8(FLAT), values.shape))


def test_an_input_without_a_batch_is_one_image(flat: Path) -> None:
    np.testing.assert_allclose(_tensor(flat, TensorSpec("image", (3, 8, 12), "float32", None))[2], 0.8, atol=1e-6)


def test_one_image_file_is_an_input_too(flat: Path) -> None:
    (sample,) = read_inputs(flat / "flat.png", (NCHW,))
    assert sample.name == "flat.png"


def test_images_are_grouped_into_batches(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (4, 4), 51 * i).save(tmp_path / f"{i}.png")
    batches = list(read_inputs(tmp_path, (TensorSpec("image", (2, 1, 4, 4), "float32", "NCHW"),)))
    assert [sample.name for sample in batches] == ["0.png to 1.png", "2.png to 3.png"]
    np.testing.assert_allclose(batches[1].feeds["image"][:, 0, 0, 0], [0.4, 0.6], atol=1e-6)
    with pytest.raises(InvalidInput, match="expected at least 8 images, the model's batch, got 5"):
        read_inputs(tmp_path, (TensorSpec("image", (8, 1, 4, 4), "float32", "NCHW"),))


def test_two_possible_layouts_are_told_apart_by_the_option(flat: Path) -> None:
    spec = TensorSpec("image", (1, 3, 5, 3), "float32", "NCHW")
    assert _tensor(flat, spec)[0, 0, 0, 0] == pytest.approx(0.2)
    np.testing.assert_allclose(_tensor(flat, spec)[0, 2], 0.8, atol=1e-6)
    np.testing.assert_allclose(_tensor(flat, spec, "layout=NHWC")[0, 0, 0], (0.2, 0.4, 0.8), atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        (NCHW, "size=224", r"input 'image' is \[1, 3, 8, 12\]: expected size=8x12, got size=224x224"),
        (NCHW, "layout=NHWC", "its axis of 1 or 3 channels is that of NCHW, got layout=NHWC"),
        (GREY, "mean=1 2 3", "expected 1 number for mean, got 3"),
    ],
)
def test_preprocessing_that_does_not_fit_the_input_is_refused(
    flat: Path, spec: TensorSpec, text: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"flat: --preprocess: .*{message}"):
        read_inputs(flat, (spec,), Preprocess.parse(text))


def test_a_model_with_other_inputs_is_told_to_take_arrays(flat: Path) -> None:
    for specs in ((NCHW, GREY), (TensorSpec("ids", (1, 4), "int64", None),), (TensorSpec("x", (), "float32", None),)):
        with pytest.raises(InvalidInput, match=r"flat: expected one input for images, .*\.npz files"):
            read_inputs(flat, specs)


def test_a_broken_image_is_named(flat: Path) -> None:
    (flat / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"broken\.png: not an image"):
        read_inputs(flat, (NCHW,))


def test_every_part_of_a_text_is_read() -> None:
    text = "size=224x320, scale=255, mean=1 2 3, std=4, layout=nhwc, order=bgr, grey, rate=16000"
    assert Preprocess.parse(text) == Preprocess(
        (224, 320), 255.0, (1.0, 2.0, 3.0), (4.0,), "NHWC", "BGR", grey=True, rate=16000
    )
    assert Preprocess.parse("size=224").size == (224, 224)
    assert Preprocess.parse("") == Preprocess()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gray", "expected size, scale, mean, std, layout, order, grey, rate, interpolation, crop, got 'gray'"),
        ("mean", "mean: expected numbers with spaces between them, got ''"),
        ("mean=0.5;0.5", "mean: expected numbers"),
        ("mean=1 2", "mean: expected 1 or 3 numbers, got 2"),
        ("std=0", "std and scale: expected numbers other than 0"),
        ("mean=nan", "expected finite numbers"),
        ("size=1x2x3", "size: expected pixels, as in 224, or height x width, as in 224x320, got '1x2x3'"),
        ("size=0", "size and rate: expected numbers of at least 1"),
        ("layout=CHW", "layout: expected NCHW or NHWC, got 'CHW'"),
        ("order=RBG", "order: expected RGB or BGR, got 'RBG'"),
        ("grey=maybe", "grey: expected no value, got 'maybe'"),
        ("mean=1,mean=2", "'mean' is given twice"),
    ],
)
def test_a_text_that_cannot_be_read_says_which_part(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"--preprocess: .*{message}|--preprocess: {message}"):
        Preprocess.parse(text)


def test_images_of_class_folders_have_the_names_of_their_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("dog/1.png", "cat/1.png", "cat/2.png", "1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / name)
    samples = list(read_inputs(tmp_path, (NCHW,)))
    assert [sample.name for sample in samples] == ["1.png", "cat/1.png", "cat/2.png", "dog/1.png"]
    reds = [round(255 * float(sample.feeds["image"][0, 0, 0, 0])) for sample in samples]
    assert reds == [3, 1, 2, 0]


@pytest.mark.parametrize(
    "text", ["", "size=8x12,grey", "mean=0.485 0.456 0.406,order=BGR,crop=0.965517241379", "rate=16000"]
)
def test_a_preprocessing_is_written_as_it_is_read(text: str) -> None:
    assert str(Preprocess.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"), [("crop=0", "above 0"), ("crop=1.5", "up to 1"), ("interpolation=cubic", "bicubic")]
)
def test_a_crop_and_an_interpolation_that_there_are_none_of_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Preprocess.parse(text)


@pytest.mark.parametrize("size", [(640, 427), (300, 400), (90, 91)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_a_crop_is_the_middle_of_a_resized_image_as_pillow_and_torchvision_make_it(
    tmp_path: Path, size: tuple[int, int], interpolation: str
) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    short = 72  # 64 / (64 / 72) is below 72 in floating point
    scale = short / min(size)
    width, height = (short if side == min(size) else int(side * scale + 1e-9) for side in size)
    whole = image.resize((width, height), Image.Resampling[interpolation.upper()])
    left, top = round((width - 64) / 2), round((height - 64) / 2)
    expected = np.asarray(whole.crop((left, top, left + 64, top + 64)), np.float32).transpose(2, 0, 1) / 255
    text = f"crop={64 / 72},interpolation={interpolation}"
    spec = TensorSpec("image", (1, 3, 64, 64), "float32", "NCHW")
    (sample,) = read_inputs(tmp_path, (spec,), Preprocess.parse(text))
    np.testing.assert_allclose(sample.feeds["image"][0], expected, atol=1.5 / 255)  # Pillow rounds twice
