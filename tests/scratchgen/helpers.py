"""Runs small enough for tests, and the command line over them, which can be told when to die.

``MOMENT="SIGKILL after step 7" python helpers.py train vae --config tiny`` sends itself the signal at that moment:
"before step N" or "after step N" of this process, or, N counting how often this process writes the file NAME,
"amid NAME N", with half of it written, "before NAME N", all written under a temporary name, and "after NAME N".
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from scratchgen import checkpoint, cli, runs
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.models.vae import VAEConfig, VAETask, VAETraining

# All that has a state in training is on. Of five batches the last is a short one.
TINY = runs.RunConfig(
    "tiny",
    VAEConfig(latent_dim=2, encoder_hidden=(16,), decoder_hidden=(16,)),
    VAETraining(samples=2, schedule="tripling", binarize="dynamic", beta_warmup=1.5, output_bias=True),
    epochs=3,
    batch_size=128,
    data="strokes",
)
STEPS = 5  # an epoch


@cache
def tiny_data() -> Dataset:
    """600 and 60 drawn digits."""
    train, test = (draw_strokes(n, np.random.default_rng(n)) for n in (600, 60))
    return Dataset("strokes", Split(train.images, train.labels), Split(test.images, test.labels))


def use_tiny(set_attribute) -> None:
    """Have runs and the command line know ``TINY`` and load ``tiny_data``; ``set_attribute`` may be monkeypatch's."""
    for module in (runs, cli):
        set_attribute(module, "load_dataset", lambda source="auto", data_dir=None: tiny_data())
    set_attribute(runs, "VAE_CONFIGS", {**runs.VAE_CONFIGS, "tiny": TINY})
    set_attribute(runs, "IW_SAMPLES", 20)  # L_20 instead of L_500


def without_figures(set_attribute) -> None:
    """Have runs draw nothing, which would take longer than the rest."""
    set_attribute(runs, "draw", lambda *_: [])


def outcome(folder: Path) -> dict:
    """All of a finished run that its seed decides: everything but times."""
    arrays, progress = checkpoint.load_checkpoint(folder / "checkpoint.safetensors")
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics == progress["history"]
    assert not list(folder.glob("*.tmp"))
    for timed in (progress, summary, *metrics, *progress["history"]):
        del timed["seconds"]
    bits = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
    return {"arrays": bits, "progress": progress, "metrics": metrics, "summary": summary}


def files(folder):
    """What is in a folder: the bytes of every file, False for a folder, by path."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def train_options():
    """What ``train vae --help`` lists."""
    actions = cli._parser()._subparsers._group_actions[0].choices["train"]._subparsers._group_actions[0].choices["vae"]
    return [option for action in actions._actions for option in action.option_strings if option not in ("-h", "--help")]


def edit(run, keys, value):
    """Change or, with ..., remove an entry of the run's config.json."""
    config = part = json.loads((run / "config.json").read_text())
    for key in keys[:-1]:
        part = part[key]
    part.pop(keys[-1]) if value is ... else part.update({keys[-1]: value})
    (run / "config.json").write_text(json.dumps(config))


def drive(*arguments: object, moment: str = "", after: float = 0.0) -> subprocess.CompletedProcess:
    """Run this file as a script, to be killed after so many seconds of its work or at a moment."""
    environment = {**os.environ, "MOMENT": moment, "AFTER": str(after)}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def _signal_at(when: str) -> None:
    """Have this process send itself a signal at a moment."""
    number, _, fatal = when.partition(" ")
    counts = Counter()

    def moment(name: str) -> None:
        counts[name] += 1
        if f"{name} {counts[name]}" == fatal:
            os.kill(os.getpid(), signal.Signals[number])

    def step(task, *arguments, original=VAETask.step):
        moment("before step")
        metrics = original(task, *arguments)
        moment("after step")
        return metrics

    class HalfWritten(io.FileIO):  # without a buffer: what is written has left the process
        def write(self, content):
            written = super().write(content[: len(content) // 2])
            moment(f"amid {Path(self.name).name.removesuffix(f'.{os.getpid()}.tmp')}")
            return written + super().write(content[written:])

    def replace(source, target, original=os.replace):
        moment(f"before {Path(target).name}")
        original(source, target)
        moment(f"after {Path(target).name}")

    VAETask.step, checkpoint.open, os.replace = step, HalfWritten, replace


if __name__ == "__main__":
    use_tiny(setattr)
    without_figures(setattr)
    if os.environ["MOMENT"]:
        _signal_at(os.environ["MOMENT"])
    if after := float(os.environ["AFTER"]):
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
    sys.exit(cli.main())
