"""Changes between an earlier benchmark result and a new one, with the noise that they must exceed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.errors import InvalidInput
from toolkit.bench.result import Batch, BenchResult, FileResult

# The least noise to assume: even steady figures change by this share from run to run on the same machine.
LEAST = 0.05


@dataclass(frozen=True)
class Change:
    """One figure of one file or peer, before and after. noise: the share of change that is not significant.

    more_is_better: whether a larger figure is better, as for a rate.
    """

    file: str
    figure: str
    before: float
    after: float
    noise: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """The figure after over the figure before."""
        return self.after / self.before

    @property
    def outside_noise(self) -> bool:
        """Whether the ratio differs from 1 by more than the noise."""
        return abs(self.ratio - 1) > self.noise

    @property
    def worse(self) -> bool:
        """Whether the change is for the worse, however small it is."""
        return (self.ratio > 1) != self.more_is_better


def read_result(path: Path) -> BenchResult:
    """Read a file that `toolkit bench --json` wrote. Raises InvalidInput for any other file."""
    try:
        result = BenchResult.read(path)
        # Every figure must be a number other than 0: compared with itself, its ratio is then 1.
        if any(change.ratio != 1 for change in changes(result, result)):
            raise ValueError("its figures are no numbers above 0")
    except OSError as error:
        raise InvalidInput(f"--against {path}: cannot read: {error.strerror}") from error
    except (ValueError, LookupError, ZeroDivisionError, StopIteration) as error:
        raise InvalidInput(f"--against {path}: not a result that `toolkit bench --json` wrote: {error!r}") from error
    return result


def differences(before: BenchResult, after: BenchResult) -> list[str]:
    """Return a line for each difference between two runs that may explain a change of figures."""
    lines = []
    if before.model != after.model:
        lines.append(f"model: {before.model} then, {after.model} now")
    if before.threads != after.threads:
        lines.append(f"threads: {before.threads} then, {after.threads} now")
    then, now = asdict(before.machine), asdict(after.machine)
    lines += [
        f"machine, {key}: {then[key]} then, {now[key]} now"
        for key in sorted(then.keys() - {"date", "versions", "load"})
        if then[key] != now[key]
    ]
    old_versions, new_versions = before.machine.versions, after.machine.versions
    lines += [
        f"{name}: {old_versions.get(name)} then, {new_versions.get(name)} now"
        for name in sorted(old_versions.keys() | new_versions.keys())
        if old_versions.get(name) != new_versions.get(name)
    ]
    old = {(file.role, file.name): file.sha256 for file in before.files}
    new = {(file.role, file.name): file.sha256 for file in after.files}
    lines += [f"{key[1]}: another file" for key in sorted(old.keys() & new.keys()) if old[key] != new[key]]
    lines += [f"{key[1]}: was not there then" for key in sorted(new.keys() - old.keys())]
    lines += [f"{key[1]}: is not there now" for key in sorted(old.keys() - new.keys())]
    return lines


def changes(before: BenchResult, after: BenchResult) -> list[Change]:
    """Return the changes in speed, memory and throughput of every file that both results have, and in peers' speed.

    Speed is the ratio to the reference of the same run, which depends least on the load of the machine. For the
    reference itself, and if the references differ, it is milliseconds.
    """
    old = {(file.role, file.name): file for file in before.files}
    found = []
    for file in after.files:
        earlier = old.get((file.role, file.name))
        if earlier is None:
            continue
        reference = after.reference[file.role]
        same = before.reference.get(file.role) == reference
        noise = max(LEAST, file.timing.noise + earlier.timing.noise)
        if same and file.name != reference:
            noise += _noise_of(before, reference) + _noise_of(after, reference)
            found.append(Change(file.name, f"of {reference}", earlier.of_reference, file.of_reference, noise))
        else:
            found.append(Change(file.name, "ms", earlier.timing.median_ms, file.timing.median_ms, noise))
        rss_mb = earlier.alone.peak_rss_bytes / 1e6, file.alone.peak_rss_bytes / 1e6
        found.append(Change(file.name, "peak RSS, MB", *rss_mb, LEAST))
        found += _batch_changes(earlier, file)
    return [*found, *_peer_changes(before, after)]


def _batch_changes(before: FileResult, after: FileResult) -> Iterator[Change]:
    """Yield the changes in images a second for batches above 1: at batch 1 the rate follows from the median."""
    then = {one.batch: one for one in before.batches if one.images_a_second}
    for one in after.batches:
        earlier = then.get(one.batch)
        if one.batch > 1 and one.images_a_second and earlier is not None and earlier.images_a_second:
            rates = earlier.images_a_second, one.images_a_second
            noise = max(LEAST, _batch_noise(earlier) + _batch_noise(one))
            yield Change(after.name, f"images a second at batch {one.batch}", *rates, noise, more_is_better=True)


def _batch_noise(batch: Batch) -> float:
    return 0.0 if batch.noise is None else batch.noise


def _peer_changes(before: BenchResult, after: BenchResult) -> Iterator[Change]:
    """Yield the changes in the ratios of peers that were timed beside the same reference in both results."""
    old = {(peer.role, peer.name): peer for peer in before.peers}
    timed = [file.timing for file in after.files]  # a peer that is one of the files is reported as that file
    for peer in after.peers:
        earlier, reference = old.get((peer.role, peer.name)), after.reference[peer.role]
        if earlier is None or before.reference.get(peer.role) != reference or peer.timing in timed:
            continue
        if peer.timing is None or peer.of_reference is None or earlier.timing is None or earlier.of_reference is None:
            continue
        noise = max(LEAST, peer.timing.noise + earlier.timing.noise)
        noise += _noise_of(before, reference) + _noise_of(after, reference)
        yield Change(peer.name, f"of {reference}", earlier.of_reference, peer.of_reference, noise)


def _noise_of(result: BenchResult, file: str) -> float:
    return next(entry.timing.noise for entry in result.files if entry.name == file)
