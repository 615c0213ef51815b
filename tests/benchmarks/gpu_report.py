"""All that an NVIDIA GPU can say about the CUDA kernels, in ten minutes, for a report.

Run by ``python -m tests.benchmarks.gpu_report`` (``make gpu-report``), on a machine with numba-cuda, and with PyTorch
for the rivals. Each stage is a process with a limit of its own, so that one which hangs or crashes leaves the others;
the most telling come first. What a stage prints is a file of the folder, and ``summary.txt`` has a line for each.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from scratchgen.data import find_mnist

LEAST = 15.0  # seconds: with fewer left, a stage does not begin
PACKAGES = ("numba", "numpy", "torch", "cuda", "nvidia", "llvmlite", "hypothesis", "pytest", "safetensors")


class Stage(NamedTuple):
    """A command, in words of the shell, that may take so many ``seconds``."""

    name: str
    seconds: float
    command: Sequence[str]


def stages(folder: Path) -> list[Stage]:
    """In their order; the training only where MNIST is."""
    python, gpu = [sys.executable, "-m"], "tests.benchmarks.gpu"
    training = ["scratchgen", "train", "vae", "--kernels", "cuda", "--data", "mnist", "--out", str(folder / "run")]
    tests = ["pytest", "tests/cuda", "--ignore=tests/cuda/test_compile.py", "-q", "--durations=5"]
    return [
        Stage("gradcheck", 90, [*python, "scratchgen", "gradcheck", "--kernels", "cuda"]),
        Stage("steps", 150, [*python, gpu, "--parts", "steps", "epochs", "--rounds", "7"]),
        *([Stage("training", 60, [*python, *training])] if find_mnist() else []),
        Stage("products", 90, [*python, gpu, "--parts", "products", "bandwidth", "--rounds", "7"]),
        Stage("tests", 240, [*python, *tests]),
    ]


def machine() -> str:
    """What ``nvidia-smi`` says, and the versions of what takes part."""
    try:
        said = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"nvidia-smi: {error}\n"
    found = sorted(f"{d.name} {d.version}" for d in distributions() if d.name.lower().startswith(PACKAGES))
    return "\n".join([said, f"Python {sys.version}", *found, ""])


def run(stage: Stage, folder: Path, left: float) -> str:
    """Run a stage for as long as it may, and ``left`` seconds at most; its line of the summary."""
    if left < LEAST:
        return f"{stage.name}: left out, for no time is left"
    began, path = time.monotonic(), folder / f"{stage.name}.txt"
    with path.open("w") as out:
        process = subprocess.Popen(stage.command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            verdict = f"exit {process.wait(min(stage.seconds, left))}"
        except subprocess.TimeoutExpired:
            verdict = "stopped at its limit"
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.wait()
    lines = path.read_text(errors="replace").splitlines()
    return f"{stage.name}: {verdict} after {time.monotonic() - began:.0f} s: {lines[-1][:160] if lines else 'silent'}"


def report(every: Sequence[Stage], folder: Path, seconds: float) -> list[str]:
    """Run the stages, ``seconds`` in all; the lines of the summary, which is written after each."""
    began, summary = time.monotonic(), list[str]()
    for stage in every:
        summary.append(run(stage, folder, seconds - (time.monotonic() - began)))
        print(summary[-1], flush=True)
        (folder / "summary.txt").write_text("\n".join([*summary, ""]))
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu_report", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="the report's folder (gpu-report)")
    parser.add_argument("--seconds", type=float, default=600, help="for all of it (600)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "machine.txt").write_text(machine())
    report(stages(options.out), options.out, options.seconds)
    print(f"the report lies in {options.out}; if something in it looks wrong, send the folder with your issue")


if __name__ == "__main__":
    main()
