"""Throughput: several sessions of one file at once, one thread each."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from backends.session import Session
from backends.tensor import Array
from toolkit.bench.candidate import Candidate
from toolkit.bench.feeds import timing_feeds
from toolkit.bench.memory import fits
from toolkit.bench.result import Streams


def throughput(candidate: Candidate, threads: int, seconds: float) -> tuple[Streams, ...]:
    """At one stream, at each power of two, and at `threads`, as far as so many sessions fit memory."""
    found = []
    for count in stream_counts(threads):
        if count > 1 and not fits(count * candidate.artifact.bytes):
            break
        with ExitStack() as stack:
            sessions = [stack.enter_context(candidate.open(threads=1)) for _ in range(count)]
            found.append(Streams(count, runs_a_second(sessions, timing_feeds(candidate.artifact), seconds)))
    return tuple(found)


def stream_counts(threads: int) -> Iterator[int]:
    """1, 2, 4, ... and `threads` itself."""
    count = 1
    while count < threads:
        yield count
        count *= 2
    yield threads


def runs_a_second(sessions: Sequence[Session], feeds: dict[str, Array], seconds: float) -> float:
    """How many runs all sessions end in a second, each in a thread of its own. They start together, warmed up."""
    counts = [0] * len(sessions)
    together = threading.Barrier(len(sessions) + 1)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            sessions[index].run(feeds)
            together.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                sessions[index].run(feeds)
                counts[index] += 1
        except BaseException as error:  # noqa: BLE001  raised again below, where somebody sees it
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(sessions))]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.perf_counter() - start)
