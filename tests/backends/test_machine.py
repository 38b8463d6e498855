"""What is said of the machine, and when a disk has too little room."""

import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from backends import machine
from backends.errors import NotAvailable
from backends.machine import Machine, check_disk_space, free_bytes, peak_rss_bytes

Usage = namedtuple("Usage", "free")


def test_a_result_can_say_what_it_was_measured_on() -> None:
    said = Machine.here().to_json()
    assert set(said) == {"date", "system", "python", "cores", "versions", "processor", "flags", "memory_gb", "load"}
    assert said["load"] == pytest.approx(psutil.getloadavg()[0], abs=2)
    assert said["memory_gb"] == pytest.approx(psutil.virtual_memory().total / 1e9, abs=0.06)
    assert {"numpy", "seal-toolkit"} <= said["versions"].keys() <= set(machine.PACKAGES)
    assert said["processor"]
    assert set(said["flags"]) <= set(machine.FLAGS)


def test_only_the_flags_that_choose_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine._processor.cache_clear()
    import cpuinfo

    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: {"brand_raw": "A processor", "flags": ["sse", "avx2"]})
    assert machine._processor() == ("A processor", ("avx2",))
    machine._processor.cache_clear()


@pytest.mark.parametrize(
    ("flags", "sets"),
    [
        (["avx2"], "AVX2 only"),
        (["avx2", "avx512f"], "AVX-512 only"),
        (["avx2", "avx_vnni"], "AVX2, VNNI"),
        (["avx2", "avx512f", "avx512_vnni", "avx512_bf16"], "AVX-512, VNNI, BF16"),
        (["avx512f", "avx512_vnni", "avx512_fp16", "amx_int8", "amx_bf16"], "AVX-512, VNNI, BF16, FP16, AMX"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_instruction_sets_that_decide_the_speed_are_told(flags: list[str] | None, sets: str) -> None:
    assert Machine("", "Linux", "3", 2, {}, "P", flags).instruction_sets == sets


def test_a_machine_is_told_in_a_line_and_is_the_same_under_any_load() -> None:
    one = Machine("2026-01-02", "Linux", "3", 8, {}, "A processor", ["avx2"], 16.0, 0.26)
    assert str(one) == "A processor (AVX2 only), 8 cores, load 0.3 at the start"
    assert str(replace(one, processor=None, flags=None, cores=1, load=None)) == "Linux, 1 core"
    assert one == replace(one, load=7.0)
    assert one != replace(one, cores=4)
    assert [replace(one, load=load).is_busy for load in (None, 8.0, 8.1)] == [False, False, True]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "no-such-package", "onnx"))
    assert list(machine._versions()) == ["numpy", "onnx"]


def test_the_peak_is_at_least_what_the_process_has_now() -> None:
    resident = psutil.Process().memory_info().rss
    assert 0.5 * resident < peak_rss_bytes() < 100 * resident
    assert 0 < free_bytes() <= psutil.virtual_memory().total


def test_the_peak_of_another_process_is_read_until_it_has_ended() -> None:
    # A child with 64 MB, which frees them before it answers.
    program = "held = bytearray(b'1') * (64 << 20); del held; print('freed', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        folder = Path("/proc") / str(child.pid)
        assert 64 << 20 < peak_rss_bytes(folder) < 128 << 20
        child.communicate(b"\n")
    with pytest.raises(OSError, match=str(child.pid)):
        peak_rss_bytes(folder)


@pytest.mark.parametrize(
    ("need", "freed", "fits"), [(100, 0, True), (101, 0, False), (150, 50, True), (151, 50, False)]
)
def test_a_disk_has_room_for_exactly_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: int, freed: int, fits: bool
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(100 * 10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "yet"
    if fits:
        check_disk_space(folder, need * 10**9, freed * 10**9)
    else:
        with pytest.raises(NotAvailable, match=f"not/yet: {100 + freed}.0 GB of disk are free, .* about {need}.0 GB"):
            check_disk_space(folder, need * 10**9, freed * 10**9)
    assert asked == [tmp_path]
