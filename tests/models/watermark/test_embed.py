"""A marked file is its source in everything but the mark."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from tests.tiny import FOLDER
from toolkit.images import save
from toolkit.images.open import open_photo
from toolkit.models.watermark.embed import Embedder
from toolkit.models.watermark.message import Message

RANDOM = np.random.default_rng(5)
# Smooth, as photographs are: JPEG keeps it nearly as it is.
RGB = np.asarray(Image.fromarray(RANDOM.integers(60, 200, (6, 9, 3), dtype=np.uint8)).resize((90, 60)))
ALPHA = RANDOM.integers(0, 256, (60, 90), dtype=np.uint8)
MESSAGE = Message.from_hex("a5", 8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def embedder() -> Any:
    with Embedder.open(FOLDER, threads=1) as opened:
        yield opened


def exif(**tags: int | str) -> Image.Exif:
    block = Image.Exif()
    for name, value in tags.items():
        block[ExifTags.Base[name]] = value
    return block


def pixels(image: Image.Image | Path) -> np.ndarray:
    if isinstance(image, Path):
        with Image.open(image) as opened:
            return np.asarray(opened).astype(int)
    return np.asarray(image).astype(int)


def test_the_mark_is_there_and_small_and_depends_on_the_message(embedder: Embedder) -> None:
    one = embedder.embed(RGB, MESSAGE)
    other = embedder.embed(RGB, "5a")
    again = embedder.embed(Image.fromarray(RGB), "a5")
    difference = pixels(one.image) - RGB
    assert 0 < np.abs(difference).max() < 20
    assert np.any(pixels(one.image) != pixels(other.image))
    np.testing.assert_array_equal(pixels(one.image), pixels(again.image))
    expected = -10 * np.log10(np.mean((difference / 255) ** 2))
    assert one.psnr_db == pytest.approx(expected, abs=1e-3)
    assert one.message == MESSAGE
    assert set(one.timing_ms) == {"preprocess", "run", "blend"}


@pytest.mark.parametrize(
    ("source", "mode"),
    [
        (Image.fromarray(RGB), "RGB"),
        (Image.fromarray(np.dstack([RGB, ALPHA])), "RGBA"),
        (Image.fromarray(RGB[:, :, 0]), "L"),
        (Image.fromarray(np.dstack([RGB[:, :, 0], ALPHA])), "LA"),
        (Image.fromarray(RGB).quantize(64), "RGB"),
        (Image.fromarray(RGB).convert("CMYK"), "RGB"),
        (Image.fromarray(RGB[:, :, 0].astype(np.uint16) * 257), "I;16"),
        (RGB / 255, "RGB"),
        (np.dstack([RGB, ALPHA]) / 255, "RGBA"),
        (RGB[:, :, 0].astype(np.uint16) * 257, "I;16"),
    ],
)
def test_modes_are_kept_and_alpha_is_not_touched(embedder: Embedder, source: Any, mode: str) -> None:
    result = embedder.embed(source, MESSAGE)
    assert result.image.mode == mode
    assert result.image.size == (90, 60)
    before, after = open_photo(source).rows(0, 60), open_photo(result.image).rows(0, 60)
    assert 0 < np.abs(after - before).max() < 0.1
    if mode in ("LA", "RGBA"):
        np.testing.assert_array_equal(pixels(result.image)[:, :, -1], ALPHA)


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "jpg", "jpeg", "webp"])
def test_a_file_keeps_format_profile_and_exif(embedder: Embedder, tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    block = exif(Make="Maker", Copyright="Someone")
    Image.fromarray(RGB).save(source, icc_profile=PROFILE, exif=block, quality=95)
    result = embedder.embed_file(source, MESSAGE, out)
    with Image.open(source) as before, Image.open(out) as after:
        assert after.format == before.format
        assert after.mode == "RGB"
        assert after.info.get("icc_profile") == before.info.get("icc_profile")
        assert after.getexif().get(ExifTags.Base.Copyright) == before.getexif().get(ExifTags.Base.Copyright)
        if suffix != "bmp":
            assert after.info["icc_profile"] == PROFILE
            assert after.getexif()[ExifTags.Base.Make] == "Maker"
    error = np.abs(pixels(out) - pixels(result.image))
    assert error.max() == 0 if suffix in ("png", "tiff", "bmp") else error.mean() < 2


def test_exif_folders_of_a_tiff_are_kept(embedder: Embedder, tmp_path: Path) -> None:
    block = exif(Make="Maker")
    block[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.5}
    block[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    for name in ("in.tiff", "in.jpg"):
        Image.fromarray(RGB).save(tmp_path / name, exif=block.tobytes())
        for target in ("out.tiff", "out.png", "out.jpg"):
            embedder.embed_file(tmp_path / name, MESSAGE, tmp_path / target, force=True)
            with Image.open(tmp_path / target) as after:
                tags = after.getexif()
                assert tags[ExifTags.Base.Make] == "Maker"
                assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
                assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_a_jpeg_is_written_at_quality_95_with_full_colour(embedder: Embedder, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "in.jpg", quality=40)
    Image.fromarray(RGB).save(tmp_path / "95.jpg", quality=95, subsampling=0)
    embedder.embed_file(tmp_path / "in.jpg", MESSAGE, tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as out, Image.open(tmp_path / "95.jpg") as expected:
        assert out.quantization == expected.quantization
        assert out.layer == expected.layer


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photo_is_saved_upright_and_its_tag_is_gone(
    embedder: Embedder, tmp_path: Path, orientation: int
) -> None:
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(RGB).save(source, exif=exif(Orientation=orientation, Make="Maker"))
    embedder.embed_file(source, MESSAGE, out)
    upright = np.asarray(open_photo(source).pixels).astype(int)
    assert np.abs(pixels(out) - upright).max() < 20
    with Image.open(out) as after:
        assert after.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert after.getexif()[ExifTags.Base.Make] == "Maker"


def test_a_palette_file_becomes_rgb_of_its_format_where_that_can_be(embedder: Embedder, tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(32)
    palette.save(tmp_path / "in.png")
    palette.save(tmp_path / "in.gif")
    embedder.embed_file(tmp_path / "in.png", MESSAGE, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as out:
        assert (out.format, out.mode) == ("PNG", "RGB")
    for target in ("out.gif", "out"):
        with pytest.raises(InvalidInput, match=r"cannot write .*use a name that ends in one of \.jpg"):
            embedder.embed_file(tmp_path / "in.gif", MESSAGE, tmp_path / target)
    embedder.embed_file(tmp_path / "in.gif", MESSAGE, tmp_path / "from_gif.png")


def test_without_a_suffix_the_source_s_format_is_kept(embedder: Embedder, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "in.tiff")
    embedder.embed_file(tmp_path / "in.tiff", MESSAGE, tmp_path / "out")
    embedder.embed(RGB, MESSAGE).save(tmp_path / "array")
    for name, kind in (("out", "TIFF"), ("array", "PNG")):
        with Image.open(tmp_path / name) as out:
            assert out.format == kind


def test_what_a_format_cannot_hold_is_refused_before_the_work(embedder: Embedder, tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / "alpha.png")
    Image.fromarray(ALPHA.astype(np.uint16)).save(tmp_path / "deep.png")
    for name, target, says in (
        ("alpha.png", "x.jpg", "JPEG cannot hold transparency"),
        ("deep.png", "x.webp", "WEBP cannot hold 16-bit grey"),
        ("alpha.png", "x.txt", r"cannot write \.txt"),
        ("alpha.png", "gone/x.png", "there is no folder"),
    ):
        with pytest.raises(InvalidInput, match=says):
            embedder.embed_file(tmp_path / name, MESSAGE, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha.png", "deep.png"]


def test_an_existing_file_needs_force(embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(RGB).save(path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=r"exists already; .*--force"):
        embedder.embed_file(path, MESSAGE, path)
    with pytest.raises(InvalidInput, match="exists already"):
        embedder.embed(RGB, MESSAGE).save(path)
    assert path.read_bytes() == before
    embedder.embed_file(path, MESSAGE, path, force=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_nothing_behind(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = embedder.embed(RGB, MESSAGE)

    def fail(self: Image.Image, path: Path, *args: Any, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InvalidInput, match=r"out\.png: cannot be written: .*No space left"):
        result.save(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_animations_are_refused(embedder: Embedder, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(RGB, shift, axis=1)) for shift in (0, 10)]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInput, match="expected a still image, got 2 frames"):
        embedder.embed_file(tmp_path / "two.webp", MESSAGE, tmp_path / "out.webp")


def test_a_message_of_another_length_is_refused(embedder: Embedder) -> None:
    for message in ("a", "abc", Message((1,) * 9)):
        with pytest.raises(InvalidInput, match="message: "):
            embedder.embed(RGB, message)


def test_a_bundle_without_a_right_embedder_is_refused(tiny: Bundle) -> None:
    with pytest.raises(NotAvailable, match="has no embedder"):
        Embedder.open(replace(tiny, model={**tiny.model, "embedder": None}))
    with pytest.raises(NotAvailable, match="no embedder onnx fp32"):
        Embedder.open(replace(tiny, artifacts=tiny.artifacts[:1]))
    with pytest.raises(InvalidArtifact, match="an embedder of this model has"):
        Embedder.open(replace(tiny, model={**tiny.model, "bits": 9}))


def test_tiny_and_wide_images_work(embedder: Embedder) -> None:
    for shape in ((1, 1, 3), (2, 700, 3), (700, 2, 3)):
        if shape[0] == 1:
            image: Any = Image.fromarray(np.full(shape, 128, np.uint8))
        else:
            image = Image.fromarray(RANDOM.integers(0, 256, shape, dtype=np.uint8))
        assert embedder.embed(image, MESSAGE).image.size == image.size


def test_the_table_of_formats_has_options_and_modes_for_each() -> None:
    kinds = set(save.FORMATS.values())
    assert kinds == set(save._OPTIONS) == set(save._MODES)
    assert set(itertools.chain(*save._MODES.values())) == {"L", "LA", "I;16", "RGB", "RGBA"}


_PEAK = """
import resource, sys
from toolkit import load_embedder
with load_embedder(sys.argv[1], threads=1) as embedder:
    embedder.embed_file(sys.argv[2], "a5", sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_50_megapixels_stay_in_bounded_memory(tmp_path: Path) -> None:
    Image.fromarray(RGB).resize((8660, 5774), Image.Resampling.NEAREST).save(tmp_path / "large.jpg")
    run = subprocess.run(
        [sys.executable, "-c", _PEAK, FOLDER, tmp_path / "large.jpg", tmp_path / "marked.jpg"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(run.stdout) < 1500
    with Image.open(tmp_path / "marked.jpg") as marked:
        assert marked.size == (8660, 5774)
