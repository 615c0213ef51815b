"""Kernels compute the same bits on any number of threads, and repeated work finds the number that is fastest."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kernels.cpu import threads
from kernels.cpu.threads import Repeated, repeated


def on_threads(program: str, most: int = 3) -> list[str]:
    """What a program prints in a process that may use so many threads, line by line."""
    environment = os.environ | {"NUMBA_NUM_THREADS": str(most), "OMP_WAIT_POLICY": "passive", "PYTHONHASHSEED": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


EVERY_KERNEL = """
import numba
import numpy as np
from kernels import cpu
from tests.kernels.test_sets import CASES, Array, kernel

for name, *specs in CASES:
    for dtype in np.float32, np.float64:
        found = set()
        for threads in 1, 2, 3:
            numba.set_num_threads(threads)
            rng = np.random.default_rng(0)
            sizes = dict(zip("bdikmnorN", rng.integers(100, 200, 9)))
            arguments = [s.draw(rng, sizes, dtype, False) if isinstance(s, Array) else s for s in specs]
            kernel(cpu, name)(*arguments)
            found.add(tuple(bytes(a) for a, s in zip(arguments, specs) if isinstance(s, Array) and s.role != "input"))
        print(name, dtype.__name__, len(found))
"""


LONG_NORM = """
import numba
import numpy as np
from kernels import cpu

x, norm = np.random.default_rng(0).standard_normal(1_000_003, np.float32), np.empty(1)
for threads in 1, 2, 3:
    numba.set_num_threads(threads)
    cpu.reductions.sum_squares(norm, x)
    print(norm[0].hex())
"""


def test_a_long_sum_of_squares_has_the_same_bits_on_any_number_of_threads():
    assert len(set(on_threads(LONG_NORM))) == 1


def test_every_kernel_computes_the_same_bits_on_any_number_of_threads():
    lines = on_threads(EVERY_KERNEL)
    assert len(lines) > 100
    assert [line for line in lines if not line.endswith(" 1")] == []


TRAINING = """
from dataclasses import replace

import numba
import numpy as np
from scratchgen import draw_strokes
from scratchgen.capture import Capture
from scratchgen.random import RandomStream, stream
from scratchgen.recipes import RECIPES
from scratchgen.tensor import Tensor
from scratchgen.tasks.aae import AAETask
from scratchgen.tasks.gan import GANTask
from scratchgen.tasks.vae import VAETask

data = draw_strokes(128, rng=0)
for name, task, more in (
    ("vae", VAETask, ()),
    ("gan", GANTask, (lambda *_: {},)),
    ("aae", AAETask, (replace(data, images=data.images[:0], labels=data.labels[:0]), lambda *_: {})),
):
    found = set()
    for threads in 1, 2, 3:
        numba.set_num_threads(threads)
        config = next(iter(RECIPES[name].configs.values()))
        model = RECIPES[name].build(config)
        steps = task(model, config.training, RandomStream(stream(0, "noise")), 10, 1, *more)
        take = Capture(steps.train_step, *steps.modules())
        for _ in range(5):
            take(Tensor(data.images), data.labels, **steps.step_options())
        found.add(b"".join(array.tobytes() for array in steps.state_dict().values()))
    print(name, len(found))
"""


def test_training_gives_the_same_bits_on_any_number_of_threads():
    assert on_threads(TRAINING) == ["vae 1", "gan 1", "aae 1"]


class Machine:
    """A clock that work moves on, by what a run on so many threads takes."""

    def __init__(self, monkeypatch, **seconds: float) -> None:
        self.seconds = {int(name[1:]): value for name, value in seconds.items()}  # t2=1.0: on 2 threads a second
        self.now, self.threads, self.used = 0.0, max(self.seconds), list[int]()
        self.rng = np.random.default_rng(0)
        monkeypatch.setattr(threads.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(threads.numba, "set_num_threads", lambda n: setattr(self, "threads", n))

    def work(self, word: str) -> str:
        self.used.append(self.threads)
        self.now += self.seconds[self.threads] * self.rng.uniform(0.95, 1.05)
        return word

    def run(self, repeat: Repeated, count: int) -> float:
        """Seconds for so many runs."""
        before = self.now
        for _ in range(count):
            assert repeat("back") == "back"
        return self.now - before


def test_repeated_loses_little_where_all_threads_are_fastest(monkeypatch):
    machine = Machine(monkeypatch, t1=1.6, t2=1.0)
    assert machine.run(Repeated(machine.work, 2), 2000) <= 1.03 * 2000
    assert machine.threads == 2
    assert {1, 2} == set(machine.used)


def test_repeated_leaves_the_threads_that_wait_for_one_another(monkeypatch):
    machine = Machine(monkeypatch, t1=1.6, t2=16.0)
    repeat = Repeated(machine.work, 2)
    assert machine.run(repeat, 20) <= 9 * 16.0 + 12 * 1.7  # it measures eight, and tries
    assert machine.run(repeat, 2000) <= 1.05 * 1.6 * 2000
    assert machine.threads == 1


def test_repeated_returns_to_more_threads_when_the_other_work_is_done(monkeypatch):
    machine = Machine(monkeypatch, t1=1.6, t2=16.0)
    repeat = Repeated(machine.work, 2)
    machine.run(repeat, 2000)
    machine.seconds[2] = 1.0
    machine.run(repeat, 1000)
    assert machine.threads == 2
    assert machine.run(repeat, 1000) <= 1.03 * 1000


def test_repeated_finds_a_number_in_between(monkeypatch):
    machine = Machine(monkeypatch, t1=4.0, t2=2.2, t4=1.5, t8=9.0)
    repeat = Repeated(machine.work, 8)
    machine.run(repeat, 500)
    assert machine.run(repeat, 2000) <= 1.05 * 1.5 * 2000
    assert machine.threads == 4


def test_repeated_ends_a_trial_that_cannot_win_at_once(monkeypatch):
    machine = Machine(monkeypatch, t1=100.0, t2=1.0)
    machine.run(Repeated(machine.work, 2), 12)
    assert machine.used.count(1) == 1


def test_repeated_ends_a_trial_of_work_that_fails(monkeypatch):
    machine = Machine(monkeypatch, t1=2.0, t2=1.0)
    repeat = Repeated(machine.work, 2)
    machine.run(repeat, 8)
    repeat.work = lambda word: machine.work(word) and 1 / 0
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            repeat("back")
    assert machine.threads == 2


def test_repeated_leaves_the_number_to_an_environment_that_sets_one(monkeypatch):
    monkeypatch.setattr(threads.numba.config, "NUMBA_NUM_THREADS", 2)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert isinstance(repeated(print), Repeated)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert repeated(print) is print


def test_repeated_is_the_work_itself_on_a_single_core(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.numba.config, "NUMBA_NUM_THREADS", 1)
    assert repeated(print) is print
