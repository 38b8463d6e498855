"""Pictures of attention are bright where a pass looked, and show the same all at once as one after the other."""

import numpy as np
from PIL import Image

from toolkit.models.foveated.command import attention_animation, attention_picture, attention_views

SIDE = 192  # of a frame as it is shown
GRID = 4


def test_a_frame_is_bright_where_it_was_looked_at_and_dark_elsewhere() -> None:
    frames = [Image.new("RGB", (50, 40), (200, 100, 40)), Image.new("RGB", (50, 40), (10, 240, 80))]
    first, second = (np.full((2, GRID, GRID), 1e-3, np.float32) for _ in range(2))
    first[0, 1, 2], first[1, 3, 0] = 0.9, 0.9
    second[0, 0, 0], second[1, 2, 2] = 0.5, 0.5
    views = attention_views(iter(frames), [first, second])
    cell = SIDE // GRID

    def middle(view: Image.Image, row: int, column: int) -> object:
        return view.getpixel((column * cell + cell // 2, row * cell + cell // 2))

    for number, frame in enumerate(frames):
        colour = frame.getpixel((0, 0))
        whole, *passes = views[number]
        assert whole.getpixel((0, 0)) == colour
        for lit, maps in zip(passes, (first, second), strict=True):
            looked = tuple(int(i) for i in np.unravel_index(maps[number].argmax(), (GRID, GRID)))
            assert middle(lit, *looked) == colour
            dark = middle(lit, (looked[0] + 2) % GRID, looked[1])
            assert all(value <= bright // 4 + 1 for value, bright in zip(dark, colour, strict=True))  # type: ignore[call-overload]

    sheet, pictures = attention_picture(views), attention_animation(views)
    assert sheet.size == (2 * SIDE, 3 * SIDE)
    assert [picture.size for picture in pictures] == [(3 * SIDE, SIDE)] * 2
    for column, picture in enumerate(pictures):
        for row in range(3):
            left, top = column * SIDE, row * SIDE
            shown = picture.crop((row * SIDE, 0, (row + 1) * SIDE, SIDE))
            assert sheet.crop((left, top, left + SIDE, top + SIDE)).tobytes() == shown.tobytes()
