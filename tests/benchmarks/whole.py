"""Time what surrounds a training step: the start of the command, epochs, evaluation, data, and the engine itself.

Run by ``python -m tests.benchmarks.whole``, it measures everything in processes of its own, so that no memory, thread
or compiled kernel of one part is there for the next. It prints a table and writes ``whole.json``.
"""

from tests.benchmarks.machine import let_libraries_choose, machine

if __name__ == "__main__":
    let_libraries_choose()  # here and in the processes that are measured

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.steps import OURS, environment, take_cores, take_turns, versions, workers
from tests.benchmarks.workloads import WORKLOADS

WARM_STARTS, EPOCH_ROUNDS = 5, 3
BUSY_ROUNDS, BUSY_S = 7, 1.0
LOSS = 106.5  # nats an image of MNIST, in the eighth or ninth epoch
SMALL = 1 << 14  # bytes: what is left of a step's allocations when all arrays above that serve again


@dataclass(frozen=True)
class Finding:
    """A number, and the most it should be, if anybody has said so."""

    what: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def line(self) -> str:
        """The finding in a table's row."""
        target = f"{'':>18}" if self.at_most is None else f"{f'at most {self.at_most:,g}':>18}"
        verdict = "" if self.at_most is None else "   met" if self.value <= self.at_most else "   MISSED"
        return f"{self.what:<66}{self.value:>12,.6g} {self.unit:<8}{target}{verdict}".rstrip()


Findings = Iterator[Finding]


def ask(program: str, *arguments: str, **more_environment: str) -> dict[str, Any]:
    """Run a program of this folder; the line of JSON that it ends with. RuntimeError if it fails or says none."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{program}", *arguments],
        env=os.environ | more_environment,
        capture_output=True,
        text=True,
    )
    try:
        if done.returncode:
            raise ValueError("it failed")
        return last_line(done.stdout)
    except ValueError as error:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {error}\n{done.stdout}{done.stderr}") from None


def last_line(output: str) -> dict[str, Any]:
    """The JSON object in the last line of what a program said. ValueError if it is none."""
    answer = json.loads(output.rstrip().rpartition("\n")[2])
    if not isinstance(answer, dict):
        raise ValueError(f"{answer!r} is no answer")
    return answer


def part(folder: Path, threads: int, name: str, *arguments: Any, **more_environment: str) -> dict[str, Any]:
    """What a function of ``parts.py`` answers, on so many threads."""
    values = [json.dumps(argument) for argument in arguments]
    return ask("parts", name, str(folder), *values, **environment(threads), **more_environment)


def threads_of(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


# ---- what is found ----


def cold_start(folder: Path, threads: list[int]) -> Findings:
    """From the start of the process to the end of the first training step, on as many threads as the machine has."""
    cache = folder / "kernels"  # empty for the first start, and filled by it for the others
    first, *others = (start(folder / f"run{i}", cache) for i in range(1 + WARM_STARTS))
    imports, step = (statistics.median(times) for times in zip(*others, strict=True))
    yield Finding(f"start to first step, median of {WARM_STARTS}", step, "s", 2.5)
    yield Finding("  of it until all is imported", imports, "s", 1)
    yield Finding("start to first step, no kernel compiled yet", first[1], "s", 30)


def start(run: Path, cache: Path | None = None) -> tuple[float, float]:
    """Seconds from a start of ``scratchgen train vae`` until all is imported, and until its first step is done.

    ``cache`` is the folder of compiled kernels, if not the usual one.
    """
    data = ["--data", "mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes"]
    began = time.time()  # of the system's clock, which the other process reads too
    kernels = {"NUMBA_CACHE_DIR": str(cache)} if cache else {}
    times = ask("first_step", "train", "vae", *data, "--out", str(run), **kernels)
    return times["imported"] - began, times["done"] - began


def epochs(folder: Path, threads: list[int]) -> Findings:
    """The VAE 784-400-20 as the command trains it, test images and checkpoint included."""
    one, half = ([part(folder, max(threads), "epochs", 1, share) for _ in range(EPOCH_ROUNDS)] for share in (1.0, 0.5))
    ten = part(folder, max(threads), "epochs", 10, 1.0)
    seconds, seconds_of_half = (statistics.median(found["seconds"] for found in kind) for kind in (one, half))
    memory = statistics.median(found["peak_mib"] for found in one)
    yield Finding(f"one epoch, {threads_of(max(threads))}, median of {EPOCH_ROUNDS}", seconds, "s")
    yield Finding("an epoch of ten / one epoch", ten["seconds"] / seconds, "", 1.1)
    yield Finding("one epoch / two of half the images", seconds / (2 * seconds_of_half), "", 1.1)
    yield Finding("peak memory, images included, one epoch", memory, "MiB")
    yield Finding("  what ten epochs add to it", ten["peak_mib"] - memory, "MiB", 2)


def to_a_loss(folder: Path, threads: list[int]) -> Findings:
    """From the start of the command until the VAE 784-400-20 has a neg_elbo of the test images of 106.5 or less.

    Beside it PyTorch, eager and compiled, with the images in memory; imports and compilation count for all.
    """
    data = "mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes"
    python = [sys.executable, "-m"]
    commands = {"scratchgen": [*python, "scratchgen", "train", "vae", "--data", data, "--out", str(folder / "run")]}
    if find_spec("torch"):
        rival = [*python, "tests.benchmarks.train_in_pytorch", str(folder)]
        commands |= {"PyTorch": rival, "PyTorch, compiled": [*rival, "compiled"]}
    for count in threads:
        found = {}
        for name, command in commands.items():
            shutil.rmtree(folder / "run", ignore_errors=True)
            found[name], epochs = seconds_to(command, LOSS, count)
            yield Finding(f"to a neg_elbo of {LOSS}, {threads_of(count)}, {name}, {epochs} epochs", found[name], "s")
        if len(found) > 1:
            ours, *rivals = found.values()
            yield Finding("  scratchgen / the fastest of PyTorch", ours / min(rivals), "", 1)


def seconds_to(command: list[str], loss: float, threads: int) -> tuple[float, int]:
    """How long a command takes until it prints a ``test neg_elbo`` that is no larger, and how many it prints.

    RuntimeError if it ends before.
    """
    began, printed, said = time.perf_counter(), 0, list[str]()
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    with subprocess.Popen(
        command,
        env=env | environment(threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(take_cores, threads),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if match := re.search(r"test neg_elbo (-?[\d.]+)", line):
                printed += 1
                if float(match[1]) <= loss:
                    seconds = time.perf_counter() - began
                    process.kill()
                    return seconds, printed
    raise RuntimeError(f"{' '.join(command)} ends without a test neg_elbo of {loss}:\n{''.join(said[-15:])}")


def evaluation(folder: Path, threads: list[int]) -> Findings:
    """L_5000 over 1,000 images by the VAE 784-200-200-50, beside PyTorch's once both give the same numbers."""
    names = ["scratchgen", *(["PyTorch"] if find_spec("torch") else [])]
    bounds = [part(folder, 1, "bound_values", name)["bound"] for name in names]
    np.testing.assert_allclose(bounds, bounds[:1] * len(names), rtol=1e-5)
    for count in threads:
        seconds = [part(folder, count, "bound_seconds", name)["seconds"] for name in names]
        for name, value in zip(names, seconds, strict=True):
            yield Finding(f"L_5000 of 1,000 images, {threads_of(count)}, {name}", value, "s")
        if len(names) > 1:
            yield Finding("  scratchgen / PyTorch", seconds[0] / seconds[1], "")


def strokes(folder: Path, threads: list[int]) -> Findings:
    """The digits that a program draws; it has one thread."""
    yield Finding("strokes drawn", part(folder, 1, "strokes")["images_a_second"], "images/s")


def overhead(folder: Path, threads: list[int]) -> Findings:
    """A step through autodiff against the same kernels by hand, VAE 784-400-20, batch 100."""
    for count in threads:
        found = part(folder, count, "overhead")
        yield Finding(f"a step by the engine, {threads_of(count)}", found["engine_ms"], "ms")
        yield Finding("  the same kernels by hand", found["by_hand_ms"], "ms")
        yield Finding("  what the engine adds", 100 * (found["engine_ms"] / found["by_hand_ms"] - 1), "%", 5)


def allocation(folder: Path, threads: list[int]) -> Findings:
    """Memory that a training step, taken often enough, has the system map anew."""
    for name, workload in WORKLOADS.items():
        found = part(folder, max(threads), "newly_mapped", name, NUMPY_MADVISE_HUGEPAGE="0")
        yield Finding(f"newly mapped a step, {workload.title}", found["bytes"], "bytes", SMALL)


def memory(folder: Path, threads: list[int]) -> Findings:
    """The most that a process holds which trains, its libraries included: ours, and PyTorch's on the same batches."""
    images, rival = np.load(folder / "train.npy")[:10_000], "PyTorch eager, fused Adam"
    for name, workload in WORKLOADS.items():
        found = []
        for contestant in (OURS, *([rival] if find_spec("torch") else [])):
            with workers(name, images, [(contestant, max(threads), False)], checked=False) as (worker,):
                found.append(worker.ask({"peak": True})["mib"])
            yield Finding(f"peak memory, {workload.title}, {contestant}", found[-1], "MiB")
        if len(found) > 1:
            yield Finding("  scratchgen / PyTorch", found[0] / found[1], "", 1)


def busy(folder: Path, threads: list[int]) -> Findings:
    """A step on threads whose number the engine chooses: on an idle machine, and beside a process that computes too."""
    cores, images = max(threads), np.load(folder / "train.npy")[:10_000]
    kinds = [("scratchgen", 1, False), ("scratchgen", cores, False), ("scratchgen", cores, True)]
    for name, workload in WORKLOADS.items():
        with workers(name, images, kinds) as processes:
            one, fixed, chosen = map(statistics.median, take_turns(processes, BUSY_ROUNDS, BUSY_S))
            yield Finding(f"{workload.title}, {threads_of(cores)}", fixed, "ms")
            yield Finding("  on one thread / that", one / fixed, "")
            yield Finding("  on threads of its choice / that", chosen / fixed, "", 1.05)
            with a_core_kept_busy(cores):
                one, fixed, chosen = map(statistics.median, take_turns(processes, BUSY_ROUNDS, BUSY_S))
            yield Finding("  beside a busy process, on one thread", one, "ms")
            yield Finding(f"  on {threads_of(cores)} / that", fixed / one, "")
            yield Finding("  on threads of its choice / that", chosen / one, "", 1.3)


@contextmanager
def a_core_kept_busy(cores: int) -> Iterator[None]:
    """Inside the ``with`` block another process computes all the time, on one of so many cores."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=partial(take_cores, cores))
    try:
        yield
    finally:
        other.kill()
        other.wait()


SECTIONS: dict[str, Callable[[Path, list[int]], Findings]] = {
    section.__name__: section
    for section in (cold_start, epochs, to_a_loss, evaluation, strokes, overhead, allocation, memory, busy)
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.whole", description=__doc__.partition("\n")[0])
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks"))
    options = parser.parse_args()

    # Here, for they are slow to import.
    from scratchgen.data import load_dataset

    data = load_dataset("mnist" if os.environ.get("SCRATCHGEN_DATA") else "strokes")
    print(f"{machine()}; {', '.join(f'{name} {number}' for name, number in versions().items())}; {data.name}")
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as temporary:
        np.save(Path(temporary) / "train.npy", data.train.images)
        np.save(Path(temporary) / "test.npy", data.test.images)
        for name in options.section:
            print(f"\n{SECTIONS[name].__doc__}", flush=True)
            for finding in SECTIONS[name](Path(temporary), options.threads):
                print(finding.line, flush=True)
                findings.append(finding)
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": str(date.today()), "data": data.name, "versions": versions()}
    content = about | {"findings": [asdict(finding) for finding in findings]}
    (options.out / "whole.json").write_text(json.dumps(content, indent=1) + "\n")
    print("\nwrote", options.out / "whole.json")


if __name__ == "__main__":
    main()
