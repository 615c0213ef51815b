"""A thousand kills at random moments: a run that goes on after each of them ends with the same bits.

As a script (``python test_kills.py vae 20 0 FOLDER``) it makes 20 of them, with seed 0, of a run in ``RUNS``. Each
victim is forked from the script, where all is compiled and loaded; that needs Numba's threading layer workqueue, which
survives a fork.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import RLock

import numpy as np
import pytest
from helpers import CONVOLUTIONAL, STOPPING, TINIES, outcome, use_tiny, without_figures
from tqdm import tqdm

from scratchgen import runs
from scratchgen.checkpoint import load_checkpoint, read_config

RUNS = TINIES | {f"convolutional {name}": config for name, config in CONVOLUTIONAL.items()}
RUNS |= {"patient": STOPPING}
QUICK = ("vae", "aae", "convolutional gan")  # the last has batch normalisation, which has a state, in both networks


def kill(name, kills, seed, folder):
    """Kill so many trainings at random moments, continue each, and compare all ends with that of an undisturbed run."""
    tqdm.set_lock(RLock())  # its own one is shared with forked processes: a victim that held it would block the others
    tqdm.monitor_interval = 0  # no thread that could hold it during a fork
    use_tiny(setattr)
    without_figures(setattr)
    rng = np.random.default_rng(seed)
    for which in ("first", "whole"):  # the first compiles
        started = time.perf_counter()
        runs.start(RUNS[name], folder / which)
        seconds = time.perf_counter() - started
    right = outcome(folder / "whole")
    killed = number = 0
    while killed < kills:
        run = folder / str(number)
        child = train(name, run)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        status = ended(child)
        assert status in (0, -signal.SIGKILL)
        if status:
            killed += 1
            if (run / "config.json").exists():
                read_config(run)
            if (run / "checkpoint.safetensors").exists():
                load_checkpoint(run / "checkpoint.safetensors")
        if not status or killed == kills:
            assert ended(train(name, run)) == 0  # it sweeps up, and ends what was killed
            assert outcome(run) == right
            assert not (run / ".scratchgen-lock").exists()
            number += 1
    print(f"{killed} kills, {number} runs", file=sys.stderr)


def train(name, folder):
    """Start or continue a run in a process forked from this one; returns its pid."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        runs.resume(folder) if (folder / "config.json").exists() else runs.start(RUNS[name], folder)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def ended(child):
    """The exit status of a child, or minus the signal that ended it, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_in_a_process(name, kills, folder, seconds):
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, __file__, name, str(kills), "0", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{kills} kills, ")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_killed_at_random_moments_ends_with_the_same_bits(tmp_path, name):
    kill_in_a_process(name, 7, tmp_path, seconds=300)


@pytest.mark.slow
@pytest.mark.parametrize("model", TINIES)
def test_a_thousand_kills_end_with_the_same_bits(tmp_path, model):
    kill_in_a_process(model, 334, tmp_path, seconds=3600)


if __name__ == "__main__":
    kill(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
