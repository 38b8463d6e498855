from pathlib import Path

from training.photographs import name_of


def test_wallpapers_in_several_sizes_are_named_after_their_folder() -> None:
    paths = [Path(f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg") for name in ("Autumn", "Canopee")]
    assert [name_of(path) for path in paths] == ["Autumn", "Canopee"]
    assert name_of(Path("usr/share/backgrounds/mate/nature/Aqua.jpg")) == "Aqua"
