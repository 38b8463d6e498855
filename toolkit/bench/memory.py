"""Which candidates may be open at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.errors import NotAvailable
from toolkit.bench.candidate import Candidate

# Open files may take this share of the memory that is free; a runtime keeps a packed copy of weights beside the file.
_SHARE = 0.4
# One file beside its reference may take this one: without the pair there is no ratio.
_PAIR_SHARE = 0.8


def free_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    return 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])


def fits(nbytes: int) -> bool:
    """Whether files of this size together may be open."""
    free = free_bytes()
    return free is None or nbytes <= _SHARE * free


def check_pair(candidate: Candidate, reference: Candidate) -> None:
    """Raise NotAvailable where a candidate does not fit beside the reference, even with nothing else open."""
    free, need = free_bytes(), _together([candidate], reference)
    if free is not None and need > _PAIR_SHARE * free:
        raise NotAvailable(
            f"{candidate.name}: it and {reference.name} have {need / 1e9:.1f} GB; expected at most "
            f"{_PAIR_SHARE:.0%} of the {free / 1e9:.1f} GB of memory that is free"
        )


def groups(candidates: Sequence[Candidate], reference: Candidate) -> Iterator[list[Candidate]]:
    """The candidates in groups that fit memory with the reference, which is first in each; at least one beside it."""
    others = [candidate for candidate in candidates if candidate.name != reference.name]
    group: list[Candidate] = []
    for candidate in others:
        if group and not fits(_together([*group, candidate], reference)):
            yield [reference, *group]
            group = []
        group.append(candidate)
    yield [reference, *group]


def _together(candidates: Sequence[Candidate], reference: Candidate) -> int:
    return sum({candidate.name: candidate.artifact.bytes for candidate in (reference, *candidates)}.values())
