"""What a user gets: pinned environments that name no address, a wheel with nothing missing and nothing extra."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = [ROOT / "requirements" / "run.lock", ROOT / "requirements" / "convert.lock"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_names_and_exact_versions_and_nothing_else(lock: Path) -> None:
    pins = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert len(pins) > 20
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin), pin
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins]
    assert len(set(names)) == len(names)
    assert not re.search(r"https?:|index-url|find-links|@", lock.read_text())


def test_the_converter_lock_is_one_file_that_ships_in_the_package() -> None:
    assert LOCKS[1].resolve() == ROOT / "toolkit" / "convert.lock"
    assert "onnx2tf==2.6.9\n" in LOCKS[1].read_text()
    assert "ai-edge-quantizer==0.5.1\n" in LOCKS[1].read_text()


def test_the_running_environment_is_the_locked_one() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    # "+cpu" names the build of a version, not another version.
    installed = {line.partition("+")[0].lower() for line in listed.stdout.splitlines()}
    pins = [line.lower() for line in LOCKS[0].read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if pin not in installed] == []


def test_each_role_has_its_extra() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        "ort",
        "tflite",
        "openvino",
        "video",
        "text",
        "audio",
        "export",
        "convert",
        "train",
        "dev",
    }
    for pin in PROJECT["optional-dependencies"]["convert"]:
        assert re.fullmatch(r".+==[0-9.]+; python_version >= '3.12'", pin)


@pytest.mark.parametrize("extra", ["ort", "tflite", "openvino"])
def test_running_a_bundle_asks_for_no_export_tool(extra: str) -> None:
    wanted = " ".join([*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]])
    assert not re.search(r"torch|onnx\b|onnxsim|tensorflow|onnx2tf", wanted)


def test_the_wheel_holds_the_packages_their_data_and_no_junk(tmp_path: Path) -> None:
    # From a copy of what git would check out: a build writes into its source folder.
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        target = tmp_path / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "./source"]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *build], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("seal_toolkit-*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    packages = ("backends/", "graphs/", "toolkit/")
    assert held == {name for name in filter(None, tracked.split("\0")) if name.startswith(packages)}
    assert {"toolkit/convert.lock", "toolkit/py.typed", "backends/py.typed", "graphs/py.typed"} <= held
    assert "toolkit/bundles/pocketseal/bundle.json" in held


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert len(contracts) > 2
    assert f"{len(contracts)} kept, 0 broken" in done.stdout
