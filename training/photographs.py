"""Photographs for training and measuring, from Debian's packages; they are fetched, never committed.

The 40 photographs of `HELD_OUT` are for measuring, and are never trained on. Training sees photographs of activities of
gcompris-qt-data, and drawn and rendered desktop backgrounds; the activities of `VALIDATION` choose thresholds.
"""

import io
import re
import struct
import subprocess
from pathlib import Path

from PIL import Image, UnidentifiedImageError

DESKTOP_PACKAGES = (
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "gnome-backgrounds",
    "plasma-workspace-wallpapers",
    "ukui-wallpapers",
)
ACTIVITY_PACKAGE = "gcompris-qt-data"
# Activities whose pictures are photographs or paintings; the others hold drawings on transparent ground.
ACTIVITIES = ("clickgame", "details", "erase", "explore_farm_animals", "explore_monuments")
VALIDATION = ("explore_world_animals", "explore_world_music")

_LOMIRI = (
    "Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Infinite-Sea_by_Aury88 Kleiber_by_Lukas_Baubkus "
    "Picture_0B_by_freespace Picture_1A_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi "
    "analogpattern_by_Peter_Nerlich free_by_Peter_Nerlich friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich "
    "life_by_Aitzol_Berasategi picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt "
    "sunset_by_Aitzol_Berasategi"
)
_MATE = "Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood YellowFlower"
_PLASMA = (
    "Autumn BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path "
    "summer_1am"
)
HELD_OUT = frozenset(f"{_LOMIRI} {_MATE} {_PLASMA}".split())

MINIMUM_SIDE_PX = 400
_WEBP_IN_RESOURCE = re.compile(rb"RIFF(....)WEBPVP8[ X]", re.DOTALL)


def fetch(folder: Path) -> None:
    """Download and unpack the packages into `folder`, once. Needs Debian's apt-get and dpkg."""
    done = folder / "fetched"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", *DESKTOP_PACKAGES, ACTIVITY_PACKAGE], cwd=folder, check=True)
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package.name, "unpacked"], cwd=folder, check=True)
        package.unlink()
    for resource in sorted(folder.glob("unpacked/usr/share/gcompris-qt/rcc/*.rcc")):
        if resource.stem in ACTIVITIES + VALIDATION:
            _extract_webp(resource, folder / "activities" / resource.stem)
    done.touch()


def _extract_webp(resource: Path, into: Path) -> None:
    """Write out the WebP pictures in a Qt resource file whose sides have at least MINIMUM_SIDE_PX pixels."""
    into.mkdir(parents=True, exist_ok=True)
    data = resource.read_bytes()
    for index, match in enumerate(_WEBP_IN_RESOURCE.finditer(data)):
        length = struct.unpack("<I", match.group(1))[0] + 8
        picture = data[match.start() : match.start() + length]
        try:
            size = Image.open(io.BytesIO(picture)).size
        except UnidentifiedImageError:
            continue  # bytes inside another file that only look like a header
        if min(size) >= MINIMUM_SIDE_PX:
            (into / f"{index:03d}.webp").write_bytes(picture)


def name_of(path: Path) -> str:
    """Return the name of a wallpaper: plasma keeps it in the name of a folder, other packages in the file's."""
    return path.parts[-4] if "contents" in path.parts else path.stem


def _desktop(folder: Path) -> list[Path]:
    files = sorted((folder / "unpacked/usr/share").glob("**/*"))
    return [
        path
        for path in files
        if path.suffix in {".jpg", ".png", ".webp"}
        and not path.is_symlink()
        and not path.is_relative_to(folder / "unpacked/usr/share/gcompris-qt")
        and "screenshot" not in path.name
        and min(Image.open(path).size) >= MINIMUM_SIDE_PX
    ]


def held_out(folder: Path) -> list[Path]:
    """Return the photographs for measuring: 40 of at least one megapixel, by name.

    Raises FileNotFoundError naming those that are missing.
    """
    found = {name_of(path): path for path in _desktop(folder) if name_of(path) in HELD_OUT}
    missing = sorted(HELD_OUT - found.keys())
    if missing:
        raise FileNotFoundError(f"{folder}: {len(missing)} held-out photographs are missing: {', '.join(missing)}")
    return [found[name] for name in sorted(found)]


def training_photographs(folder: Path) -> list[Path]:
    """Return the photographs of ACTIVITIES, for training."""
    return [path for name in ACTIVITIES for path in sorted((folder / "activities" / name).glob("*.webp"))]


def training_drawings(folder: Path) -> list[Path]:
    """Return the largest file of each background that is not held out: drawings, renderings and flat images.

    They are a minority of training, so that such images can be marked too.
    """
    largest = {name_of(path): path for path in sorted(_desktop(folder), key=lambda path: Image.open(path).size)}
    return [path for name, path in sorted(largest.items()) if name not in HELD_OUT]


def validation_photographs(folder: Path) -> list[Path]:
    """Return the photographs of VALIDATION, for choosing thresholds and for calibration."""
    return [path for name in VALIDATION for path in sorted((folder / "activities" / name).glob("*.webp"))]


def at_pixels(path: Path, pixels: int) -> Image.Image:
    """Return a photograph in RGB, resized to about `pixels` pixels, in its own proportions. Its sides are even."""
    image = Image.open(path).convert("RGB")
    scale = (pixels / (image.width * image.height)) ** 0.5
    size = (2 * round(image.width * scale / 2), 2 * round(image.height * scale / 2))
    return image.resize(size, Image.Resampling.LANCZOS)
