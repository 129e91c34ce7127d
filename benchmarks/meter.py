"""What a piece of work takes: wall time, CPU time and memory, of this process and of those it has work done by."""

import ctypes
import gc
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType

import psutil

SAMPLE_S = 0.05
FORKS_SAMPLE_S = 0.5
MEGABYTE = 1024 * 1024
MOST_GROWTH_MB = 8
"""That the larger of two sizes may take above the smaller, where what is in memory at a time is to be the same."""


class Meter:
    """Measure a block: `wall_s`, `cpu_s`, `peak_mb` and `own_peak_mb` stand when it is left.

    CPU is that of this process and of `others` with all their children, also those that ended meanwhile. Memory
    is what each of these processes holds for itself, plus once the memory PostgreSQL's processes share; it is
    looked at every 50 ms; `own_peak_mb` is the resident memory of this process alone. Where processes are
    `forked` from one another they share all they have not changed: then each one's fair share is summed up, which
    takes longer to find and is looked at twice a second.
    """

    def __init__(self, others: Iterable[psutil.Process] = (), forked: bool = False) -> None:
        self.roots = [psutil.Process(), *others]
        self.forked = forked
        self.wall_s = self.cpu_s = self.peak_mb = self.own_peak_mb = 0.0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Meter":
        self._sampler.start()
        self._cpu_before = self._cpu()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s = time.perf_counter() - self._started
        self.cpu_s = self._cpu() - self._cpu_before
        self._look()
        self._done.set()
        self._sampler.join()

    def _processes(self) -> list[psutil.Process]:
        found = {}
        for root in self.roots:
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
        return list(found.values())

    def _cpu(self) -> float:
        seconds = 0.0
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            # Of children that ended, the parent keeps the sum.
            seconds += times.user + times.system + times.children_user + times.children_system
        return seconds

    def _look(self) -> None:
        self.own_peak_mb = max(self.own_peak_mb, self.roots[0].memory_info().rss / MEGABYTE)
        own, shared = 0, 0
        for process in self._processes():
            try:
                if self.forked:
                    own += process.memory_full_info().pss
                    continue
                memory = process.memory_info()
            except psutil.NoSuchProcess:
                continue
            own += memory.rss - memory.shared
            shared = max(shared, memory.shared)
        self.peak_mb = max(self.peak_mb, (own + shared) / MEGABYTE)

    def _sample(self) -> None:
        while not self._done.wait(FORKS_SAMPLE_S if self.forked else SAMPLE_S):
            self._look()


def held_mb() -> float:
    """Return the resident memory of this process in MB, without what earlier work left behind."""
    gc.collect()
    with suppress(AttributeError):  # a C library that keeps nothing of what was freed has no such function
        ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss / MEGABYTE)


def flat(what: str, peaks: dict[int, float]) -> str:
    """Return rows → MB of this process alone in words, the smaller first. Raises RuntimeError where they grow."""
    small, large = peaks.values()
    figures = ", ".join(f"{rows:,} rows {peak:.1f} MB" for rows, peak in peaks.items())
    told = f"own memory of {what} at its peak: {figures} (allowed: {MOST_GROWTH_MB} MB more)"
    if large > small + MOST_GROWTH_MB:
        raise RuntimeError(told)
    return told


class Stopwatch:
    """Measure the wall time of a block: `s` stands when it is left."""

    def __enter__(self) -> "Stopwatch":
        self._started = time.perf_counter()
        self.s = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._started
