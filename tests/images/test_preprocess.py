"""One preprocessing, the reference's own numbers for any kind of image."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from safetensors.numpy import load_file

from backends.errors import InvalidInput
from toolkit.images.open import ImageSource, open_photo
from toolkit.images.preprocess import preprocess

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "resize-antialias.safetensors")
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (23, 37, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


@pytest.mark.parametrize("name", ["big", "small"])
def test_the_golden_resize_down_and_up(name: str) -> None:
    tensor = preprocess(GOLDEN[f"inputs/{name}"], 64)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, GOLDEN[f"outputs/{name}_to_64"], atol=1e-5)


def expected(rgb: np.ndarray) -> np.ndarray:
    """The same preprocessing of plain (H, W, 3) floats."""
    return preprocess(rgb.astype(np.float64), 16)


@pytest.mark.parametrize(
    "same",
    [
        RGB,
        RGB.transpose(2, 0, 1),
        RGB[None],
        RGB.transpose(2, 0, 1)[None],
        RGB / 255,
        (RGB / 255).astype(np.float32).transpose(2, 0, 1),
        RGB.astype(np.uint16) * 257,
        np.dstack([RGB, GREY]),
        Image.fromarray(RGB),
        Image.fromarray(np.dstack([RGB, GREY])),
        RGB[::-1][::-1],
    ],
)
def test_every_form_of_one_image_gives_one_tensor(same: ImageSource) -> None:
    np.testing.assert_allclose(preprocess(same, 16), expected(RGB / 255), atol=1e-6)


@pytest.mark.parametrize(
    "same",
    [
        GREY,
        GREY[:, :, None],
        GREY / 255,
        GREY.astype(np.uint16) * 257,
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("LA"),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32) * 257),
        Image.fromarray((GREY / 255).astype(np.float32)),
        Image.fromarray(GREY).convert("P"),
    ],
)
def test_every_form_of_a_grey_image_gives_one_tensor(same: ImageSource) -> None:
    np.testing.assert_allclose(preprocess(same, 16), expected(np.dstack([GREY] * 3) / 255), atol=1e-5)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_are_seen_as_rgb(mode: str) -> None:
    other = Image.fromarray(RGB)
    if mode == "LAB":
        other = ImageCms.profileToProfile(
            other, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        other = other.convert(mode)
    # Their own rounding to 8 bits costs a few steps.
    np.testing.assert_allclose(preprocess(other, 16), expected(RGB / 255), atol=0.05)


def test_one_bit_images_are_black_and_white() -> None:
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    np.testing.assert_allclose(preprocess(bits, 16), expected(np.dstack([GREY > 127] * 3)), atol=1e-6)


def test_16_bit_files_keep_their_16_bits(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 65_536, (20, 30), dtype=np.uint16)
    for name in ("grey.png", "grey.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_allclose(
            preprocess(tmp_path / name, 16), expected(np.dstack([values] * 3) / 65_535), atol=1e-6
        )


def test_a_palette_file_has_its_colours(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    for name in ("p.png", "p.gif"):
        palette.save(tmp_path / name)
        np.testing.assert_allclose(
            preprocess(tmp_path / name, 16), expected(np.asarray(palette.convert("RGB")) / 255), atol=1e-6
        )


def test_cmyk_with_and_without_a_profile_is_seen_as_rgb(tmp_path: Path) -> None:
    flat = np.full((20, 30, 3), (200, 60, 30), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "plain.jpg", quality=100)
    np.testing.assert_allclose(preprocess(tmp_path / "plain.jpg", 16), expected(flat / 255), atol=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int) -> None:
    # What each value means, from the EXIF standard: how the stored rows must be turned to stand upright.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "x.png", exif=exif)
    photo = open_photo(tmp_path / "x.png")
    np.testing.assert_array_equal(np.asarray(photo.pixels), undo(RGB))


def test_rows_are_the_pixels() -> None:
    for source in (RGB, Image.fromarray(RGB), Image.fromarray(RGB).convert("RGBA")):
        np.testing.assert_allclose(open_photo(source).rows(3, 9), RGB[3:9] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (np.zeros((3, 20, 3), np.uint8), "channels first or last"),
        (np.zeros((4, 20, 1), np.uint8), "channels first or last"),
        (np.zeros((20, 30, 2), np.uint8), "neither first nor last"),
        (np.zeros((2, 3, 20, 30), np.uint8), "expected one image, got a batch of 2"),
        (np.zeros((20,), np.uint8), "got shape"),
        (np.zeros((0, 20, 3), np.uint8), "empty array"),
        (np.zeros((20, 30, 3), np.int64), "got int64"),
        (np.zeros((20, 30, 3), bool), "got bool"),
        (np.full((20, 30, 3), np.nan), "NaN or infinity"),
        (np.full((20, 30, 3), np.inf), "NaN or infinity"),
        (RGB.astype(np.float32), "for 0 to 255 give uint8"),
        (RGB / 255 - 0.5, "from 0 to 1"),
        (np.zeros((70_000, 1), np.uint8), "sides of 65535"),
        (Image.fromarray(np.full((4, 4), 1e6, np.float32)), "from 0 to 1"),
        (Image.fromarray(np.full((4, 4), 70_000, np.int32)), "from 0 to 65535"),
        (None, "got NoneType"),
        ([[0]], "got list"),
        (b"\xff\xd8", "got bytes"),
    ],
)
def test_what_is_no_clear_image_is_refused(source: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        preprocess(source, 16)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind)
    path = tmp_path / "cut"
    refused = 0
    lines = set()
    for length in range(0, len(whole) - 1, 29):
        path.write_bytes(whole[:length])
        try:
            open_photo(path)
        except InvalidInput as error:
            refused += 1
            lines.add(str(error))
    assert all(str(path) in line and "\n" not in line for line in lines)
    # Only a file that lost no pixel may pass: the last bytes of some formats are a trailer.
    assert refused >= len(range(0, len(whole) - 1, 29)) - 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_flipped_bits_never_escape_as_another_error(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind)
    path = tmp_path / "flipped"
    outcomes = set()
    random = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        try:
            outcomes.add(open_photo(path).width > 0)
        except InvalidInput:
            outcomes.add(False)
    assert outcomes == {True, False}


def test_a_pil_image_whose_file_is_cut_is_refused(tmp_path: Path) -> None:
    whole = encoded("PNG")
    with Image.open(io.BytesIO(whole[: len(whole) // 2])) as image, pytest.raises(InvalidInput, match="image: not an"):
        open_photo(image)


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(InvalidInput, match=r"notes\.txt: not an image"):
        open_photo(tmp_path / "notes.txt")
    with pytest.raises(InvalidInput, match="no such image file"):
        open_photo(tmp_path / "gone.png")
    with pytest.raises(InvalidInput, match="no such image file"):
        open_photo(tmp_path)


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_small_file_that_claims_a_huge_image_is_refused(tmp_path: Path, side: int) -> None:
    content = bytearray(encoded("PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"bomb\.png: expected at most 89478485 pixels"):
        open_photo(tmp_path / "bomb.png")


def test_a_profile_that_is_no_profile_is_refused_for_cmyk_alone(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    image.save(tmp_path / "x.jpg", icc_profile=b"nonsense" * 40)
    with pytest.raises(InvalidInput, match=r"x\.jpg"):
        open_photo(tmp_path / "x.jpg")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "y.png", icc_profile=profile)
    assert open_photo(tmp_path / "y.png").icc_profile == profile
