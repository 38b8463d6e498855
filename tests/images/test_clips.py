"""Videos, animated images and folders give their frames one at a time, spread over the clip."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.errors import InvalidInput, NotAvailable
from tests.clips import HEIGHT, STEP, WIDTH, write_video
from toolkit import environments as extras
from toolkit.images import clips as video
from toolkit.images.clips import Clip

COUNT = 20


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", COUNT)
    return tmp_path / "clip.mp4"


def _greys(clip: Clip, most: int) -> list[int]:
    """Of the frames' middles, in steps."""
    return [round(frame.getpixel((WIDTH // 2, HEIGHT // 2))[0] / STEP) for frame in clip.frames(most)]


def test_frames_of_a_video_are_spread_from_the_first_to_the_last(mp4: Path) -> None:
    clip = Clip.open(mp4)
    assert clip.count == COUNT
    assert _greys(clip, 1) == [0]
    assert _greys(clip, 2) == [0, 19]
    assert _greys(clip, 5) == [0, 5, 10, 14, 19]
    assert _greys(clip, 1000) == list(range(COUNT))
    assert all(frame.size == (WIDTH, HEIGHT) for frame in clip.frames(3))


def test_animated_images_and_folders_are_spread_the_same_way(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), (STEP * i,) * 3) for i in range(COUNT)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(frames):
        frame.save(tmp_path / "frames" / f"{i:02}.png")
    for path in (tmp_path / "clip.gif", tmp_path / "frames"):
        clip = Clip.open(path)
        assert clip.count == COUNT
        assert _greys(clip, 5) == [0, 5, 10, 14, 19]
        assert _greys(clip, 1000) == list(range(COUNT))


def test_a_video_is_decoded_as_it_is_read_and_no_further_than_needed(
    mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = 0, 0

    class Counted:
        def __init__(self, frame: object) -> None:
            nonlocal alive, most
            self.frame, alive = frame, alive + 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

        rotation = 0

        def to_image(self) -> Image.Image:
            return self.frame.to_image()  # type: ignore[attr-defined]  # a VideoFrame

    opened = video._opened

    class Container:
        def __init__(self, container: object) -> None:
            self._container = container

        def decode(self, stream: object) -> object:
            return map(Counted, self._container.decode(stream))  # type: ignore[attr-defined]

    @contextmanager
    def counting(path: Path) -> object:
        with opened(path) as (container, stream):
            yield Container(container), stream

    monkeypatch.setattr(video, "_opened", counting)
    assert len(list(video.video_frames(mp4, range(COUNT)))) == COUNT
    assert most <= 2
    most = 0
    frames = video.video_frames(mp4, [0, 19])
    next(frames)
    assert most == 1  # the rest is not even decoded


def test_a_video_that_is_stored_turned_is_turned_back(mp4: Path) -> None:
    data = bytearray(mp4.read_bytes())
    # The track header's matrix: a quarter turn clockwise.
    start = data.find(b"tkhd") + 4 + 4 + 36
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30], ">i4").tobytes()
    data[start : start + len(matrix)] = matrix
    mp4.write_bytes(data)
    (frame,) = Clip.open(mp4).frames(1)
    assert frame.size == (HEIGHT, WIDTH)
    assert frame.getpixel((HEIGHT - 3, 3))[0] > 200  # the white corner, top left before
    assert frame.getpixel((3, 3))[0] < 50


def test_what_is_damaged_is_one_error_that_names_the_file(mp4: Path, tmp_path: Path) -> None:
    data = mp4.read_bytes()
    frames = data.find(b"mdat")
    middle = frames + (len(data) - frames) // 2
    zeroed = data[:middle] + bytes(len(data) - middle)
    for content, said in (
        (b"", "an empty file"),
        (data[:10], "not a clip that can be read"),
        (data[: frames // 2], "not a clip that can be read"),
        (data[:middle], "cut short"),
        (data[:-3], "cut short"),
        (zeroed, "broken.mp4: "),
    ):
        path = tmp_path / "broken.mp4"
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match=said) as caught:
            list(Clip.open(path).frames(COUNT))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_pyav_the_package_is_named(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match="not installed: av; run `pip install av`"):
        Clip.open(mp4)
