"""How many threads a repeated piece of work runs on: as many as are fastest just now.

Parallel loops end where all threads meet, and those that wait spin. On an idle machine nothing is faster; beside other
work the thread that is waited for may not be running, and a step takes ten times as long as on one thread. So
``repeated`` times its work, and now and then tries it on another number of threads. The kernels compute the same bits
on any number. Where the environment sets NUMBA_NUM_THREADS, that number is kept.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numba

RUNS = 8  # of either number, which are compared
SHARE = 0.01  # of the time goes into trials that turn out slower
GAIN = 0.9  # a trial wins if it takes less than this share of the usual time: times differ by chance too


def repeated(work: Callable[..., Any]) -> Callable[..., Any]:
    """``work``, which will be called many times, on as many threads as are fastest."""
    most = numba.config.NUMBA_NUM_THREADS
    return work if most == 1 or "NUMBA_NUM_THREADS" in os.environ else Repeated(work, most)


class Repeated:
    """``work`` on ``threads`` threads, at most ``most``, beginning with those in use; see ``repeated``.

    It sets the number for the calling thread, whatever ``numba.set_num_threads`` said since it was made.
    """

    def __init__(self, work: Callable[..., Any], most: int) -> None:
        self.work, self.most, self.threads = work, most, numba.get_num_threads()
        self.times = deque[float](maxlen=RUNS)  # of the last runs
        self.trial, self.trial_times = 0, list[float]()  # another number of threads, which is being tried, if any
        self.budget = 0.0  # seconds that a trial may lose
        self.fewer = False  # whether the next trial is of fewer threads

    def __call__(self, *arguments: Any) -> Any:
        numba.set_num_threads(self.trial or self.threads)
        start = time.perf_counter()
        try:
            return self.work(*arguments)
        finally:
            self._note(time.perf_counter() - start)

    def _note(self, seconds: float) -> None:
        """Count a run; begin or end a trial, after which the calling thread has the better number of threads."""
        if not self.trial:
            self.times.append(seconds)
            self.budget += SHARE * seconds
            if len(self.times) == RUNS and self.budget > 0:
                self.fewer = (not self.fewer and self.threads > 1) or self.threads == self.most
                self.trial = self.threads // 2 if self.fewer else min(2 * self.threads, self.most)
            return
        self.trial_times.append(seconds)
        runs, took = len(self.trial_times), sum(self.trial_times)
        expected = runs * fmean(self.times)
        if runs == RUNS or took > (expected if runs > 1 else 2 * expected):  # at the end, or once it is behind
            if runs == RUNS and took < GAIN * expected:
                self.threads = self.trial
                self.times.extend(self.trial_times)
            self.budget = min(0.0, expected - took)
            self.trial, self.trial_times = 0, []
            numba.set_num_threads(self.threads)
