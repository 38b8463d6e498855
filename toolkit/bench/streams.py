"""Throughput: several sessions of one file at once, one thread each."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from backends.session import Session
from backends.tensor import Array


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
