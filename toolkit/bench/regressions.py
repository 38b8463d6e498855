"""A result beside an earlier one: what changed by more than the noise of both."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.errors import InvalidInput

# Less than this is no finding, however still a run was: the next run on the same machine moves that far.
LEAST = 0.05


@dataclass(frozen=True)
class Change:
    """One figure of one file, then and now. outside_noise: by more than `noise`, a share. more_is_better: of a rate."""

    file: str
    figure: str
    before: float
    after: float
    noise: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        return self.after / self.before

    @property
    def outside_noise(self) -> bool:
        return abs(self.ratio - 1) > self.noise

    @property
    def worse(self) -> bool:
        return (self.ratio > 1) != self.more_is_better


def read_result(path: Path) -> dict[str, Any]:
    """A file that `toolkit bench --json` wrote. Raises InvalidInput for anything else."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        for file in result["files"]:
            file["timing"]["median_ms"], file["alone"]["peak_rss_bytes"], file["of_reference"], file["sha256"]
        result["machine"]["versions"], result["threads"], result["reference"]
        # Whatever else a comparison reads: held to itself, every figure must be the same.
        if differences(result, result) or any(change.ratio != 1 for change in changes(result, result)):
            raise ValueError("its figures are no numbers above 0")
    except OSError as error:
        raise InvalidInput(f"--against {path}: cannot read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError, StopIteration) as error:
        raise InvalidInput(f"--against {path}: not a result that `toolkit bench --json` wrote: {error!r}") from error
    return dict(result)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not the same about the two runs, each as a line: then figures may differ for that reason."""
    lines = [
        f"{key}: {before[key]} then, {after[key]} now" for key in ("model", "threads") if before[key] != after[key]
    ]
    for key in sorted((before["machine"].keys() | after["machine"].keys()) - {"date", "versions"}):
        then, now = before["machine"].get(key), after["machine"].get(key)
        if then != now:
            lines.append(f"machine, {key}: {then} then, {now} now")
    versions = before["machine"]["versions"], after["machine"]["versions"]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        then, now = (found.get(name) for found in versions)
        if then != now:
            lines.append(f"{name}: {then} then, {now} now")
    old = {(file["role"], file["file"]): file["sha256"] for file in before["files"]}
    new = {(file["role"], file["file"]): file["sha256"] for file in after["files"]}
    lines += [f"{key[1]}: another file" for key in sorted(old.keys() & new.keys()) if old[key] != new[key]]
    lines += [f"{key[1]}: was not there then" for key in sorted(new.keys() - old.keys())]
    lines += [f"{key[1]}: is not there now" for key in sorted(old.keys() - new.keys())]
    return lines


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Speed and memory of every file that both have, speed of every peer, and throughput at every batch.

    Speed is the ratio to the reference of the same run, which a machine's mood moves least; of the reference itself,
    and where the references differ, its milliseconds.
    """
    old = {(file["role"], file["file"]): file for file in before["files"]}
    found = []
    for file in after["files"]:
        earlier = old.get((file["role"], file["file"]))
        if earlier is None:
            continue
        reference = after["reference"][file["role"]]
        same = before["reference"].get(file["role"]) == reference
        noise = max(LEAST, file["timing"]["noise"] + earlier["timing"]["noise"])
        if same and file["file"] != reference:
            noise += _noise_of(before, reference) + _noise_of(after, reference)
            found.append(Change(file["file"], f"of {reference}", earlier["of_reference"], file["of_reference"], noise))
        else:
            pair = earlier["timing"]["median_ms"], file["timing"]["median_ms"]
            found.append(Change(file["file"], "ms", *pair, noise))
        rss = earlier["alone"]["peak_rss_bytes"] / 1e6, file["alone"]["peak_rss_bytes"] / 1e6
        found.append(Change(file["file"], "peak RSS, MB", *rss, LEAST))
        found += _batches(earlier, file)
    return found + _peers(before, after)


def _batches(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Images a second; at batch 1 they are the median's."""
    then = {one["batch"]: one for one in before.get("batches", ()) if one["images_a_second"]}
    return [
        Change(
            after["file"],
            f"images a second at batch {one['batch']}",
            then[one["batch"]]["images_a_second"],
            one["images_a_second"],
            max(LEAST, then[one["batch"]]["noise"] + one["noise"]),
            more_is_better=True,
        )
        for one in after.get("batches", ())
        if one["images_a_second"] and one["batch"] > 1 and one["batch"] in then
    ]


def _peers(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Ratios of what was timed beside the same reference in both."""
    old = {(peer["role"], peer["name"]): peer for peer in before.get("peers", ()) if peer["timing"]}
    timed = [file["timing"] for file in after["files"]]  # a peer that is one of the files is no figure of its own
    found = []
    for peer in after.get("peers", ()):
        earlier, reference = old.get((peer["role"], peer["name"])), after["reference"][peer["role"]]
        same = before["reference"].get(peer["role"]) == reference
        if earlier is None or not same or not peer["timing"] or peer["timing"] in timed:
            continue
        noise = max(LEAST, peer["timing"]["noise"] + earlier["timing"]["noise"])
        noise += _noise_of(before, reference) + _noise_of(after, reference)
        found.append(Change(peer["name"], f"of {reference}", earlier["of_reference"], peer["of_reference"], noise))
    return found


def _noise_of(result: dict[str, Any], file: str) -> float:
    return float(next(entry["timing"]["noise"] for entry in result["files"] if entry["file"] == file))
