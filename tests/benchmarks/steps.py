"""Time a training step of the same model in this engine, in PyTorch and in JAX.

Run by ``python -m tests.benchmarks.steps``, it first has every contestant compute the losses and gradients of one batch
at the same parameters, and refuses to time one that differs from the engine in float64. Then all take turns within
every round, each in a process of its own while the others are blocked, so a change of the clock or a busy neighbour
falls on all of them. A floor stands beside them: the step's matrix products alone, in NumPy's BLAS.

It prints a table and writes ``steps.json`` and ``steps.png``.
"""

from tests.benchmarks.machine import let_libraries_choose, machine

if __name__ == "__main__":
    let_libraries_choose()  # here and in the contestants' processes

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.worker import CONTESTANTS
from tests.benchmarks.workloads import WORKLOADS, Disagreement, Shared, engine_quantities, require_agreement

ROUNDS, SLICE_S = 15, 0.25
PAUSE_S = 0.1  # so that the threads of the one before stop spinning
IMAGES = 10_000
FLOOR, OURS = "products alone", "scratchgen"
RIVALS = [name for name in CONTESTANTS if name not in (FLOOR, OURS)]


class Worker:
    """A contestant's process, on ``cores`` cores, and as many threads unless it chooses their number itself."""

    def __init__(self, name: str, workload: str, folder: Path, cores: int, chooses: bool = False) -> None:
        self.name, self.workload = name, workload
        others = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
        self.log = (folder / "log.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", name, workload, str(folder)],
            env=others | ({} if chooses else environment(cores)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=partial(take_cores, cores),
        )

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command. RuntimeError, with the last that the process said, if there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.log.seek(0)
            said = "".join(self.log.readlines()[-15:])
            raise RuntimeError(f"{self.name} broke down on {self.workload}:\n{said}") from None

    def check(self, expected: dict[str, np.ndarray], folder: Path) -> None:
        """Raise Disagreement if it computes something else than ``expected``."""
        self.ask({"check": str(folder / "check.npz")})
        with np.load(folder / "check.npz") as found:
            try:
                require_agreement(dict(found), expected)
            except Disagreement as error:
                raise Disagreement(f"{self.name} is not timed on {self.workload}: {error}") from None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            stream.close()  # type: ignore[union-attr]


def environment(threads: int) -> dict[str, str]:
    """What holds every library to so many threads. XLA counts the cores that it may use, and has no other number."""
    pools = ("OPENBLAS", "OMP", "MKL", "NUMBA")
    one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {f"{pool}_NUM_THREADS": str(threads) for pool in pools} | {"XLA_FLAGS": one if threads == 1 else ""}


def take_cores(count: int) -> None:
    """Keep this process to so many cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


def measure(workload: str, threads: int, names: list[str], images: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Check and time the contestants; an entry each, with the milliseconds of a step in every round."""
    with workers(workload, images, [(name, threads, False) for name in names]) as contestants:
        times = take_turns(contestants, rounds)
    return [entry(workload, threads, name, taken) for name, taken in zip(names, times, strict=True)]


@contextmanager
def workers(
    workload: str, images: np.ndarray, kinds: list[tuple[str, int, bool]], checked: bool = True
) -> Iterator[list[Worker]]:
    """Processes, warmed up, of these contestants: name, cores, and whether it chooses its threads."""
    shared = Shared.draw(WORKLOADS[workload], images)
    expected = engine_quantities(WORKLOADS[workload], shared) if checked else {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        np.save(folder / "images.npy", images)
        shared.save(folder / f"{workload}.npz")
        found = list[Worker]()
        for name, cores, chooses in kinds:
            (own := folder / str(len(found))).mkdir()
            for file in ("images.npy", f"{workload}.npz"):
                (own / file).hardlink_to(folder / file)
            found.append(Worker(name, workload, own, cores, chooses))
            stack.callback(found[-1].close)
            if checked:
                found[-1].check({} if name == FLOOR else expected, own)
            found[-1].ask({"time": SLICE_S})  # the first steps compile
        yield found


def take_turns(contestants: list[Worker], rounds: int, seconds: float = SLICE_S) -> list[list[float]]:
    """Milliseconds of a step in every round, of each."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for worker, taken in zip(contestants, times, strict=True):
            time.sleep(PAUSE_S)
            taken.append(worker.ask({"time": seconds})["milliseconds"])
    return times


def entry(workload: str, threads: int, name: str, milliseconds: list[float]) -> dict[str, Any]:
    """A line of the results: median and quartiles over the rounds."""
    low, median, high = np.percentile(milliseconds, (25, 50, 75)).tolist()
    about = {"workload": workload, "threads": threads, "contestant": name}
    return about | {"median": median, "low": low, "high": high, "rounds": milliseconds}


def table(entries: list[dict[str, Any]]) -> str:
    """Milliseconds a step of each contestant, and how many times those of the fastest rival and of the products."""
    lines = []
    for place in dict.fromkeys((e["workload"], e["threads"]) for e in entries):
        here = {e["contestant"]: e for e in entries if (e["workload"], e["threads"]) == place}
        rival = min((here[name]["median"] for name in RIVALS if name in here), default=None)
        threads = f"{place[1]} thread{'s' * (place[1] > 1)}"
        header = f"{'ms a step':>9}  {'quartiles':>17}  {'/ fastest rival':>15}  {'/ products':>10}"
        lines += [f"{place[0] + ', ' + threads:<26}{header}"]
        for name, e in here.items():
            by = [f"{e['median'] / other:.2f}" if other else "-" for other in (rival, here[FLOOR]["median"])]
            quartiles = f"{e['low']:.3f} - {e['high']:.3f}"
            lines.append(f"  {name:<25}{e['median']:>8.3f}  {quartiles:>17}  {by[0]:>15}  {by[1]:>10}")
        lines.append("")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of the libraries that take part."""
    found = {}
    for package in ("numpy", "numba", "torch", "jax", "jaxlib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.steps", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    options = parser.parse_args()

    # Here, for they are slow to import.
    from scratchgen.data import load_dataset
    from tests.benchmarks.figure import save_figure

    missing = [name for name, (_, package) in CONTESTANTS.items() if find_spec(package) is None]
    if missing:
        print("left out, for they are not installed:", "; ".join(missing))
    names = [name for name in CONTESTANTS if name not in missing]
    data = load_dataset("mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes")
    images = np.ascontiguousarray(data.train.images[:IMAGES])
    print(f"{machine()}; {', '.join(f'{name} {number}' for name, number in versions().items())}")
    print(f"a training step on {data.name}, float32, medians of {options.rounds} rounds\n")
    entries: list[dict[str, Any]] = []
    for workload in options.workload:
        for threads in options.threads:
            try:
                found = measure(workload, threads, names, images, options.rounds)
            except (Disagreement, RuntimeError) as error:
                sys.exit(str(error))
            entries += found
            print(table(found), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": str(date.today()), "data": data.name, "versions": versions()}
    (options.out / "steps.json").write_text(json.dumps(about | {"entries": entries}, indent=1) + "\n")
    print("wrote", options.out / "steps.json", "and", save_figure(options.out / "steps.png", entries))


if __name__ == "__main__":
    main()
