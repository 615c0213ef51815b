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
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from scratchgen import checkpoint, cli, commands, explorer, recipes, runs
from scratchgen.capture import Capture
from scratchgen.data.dataset import Dataset, Split
from scratchgen.data.strokes import draw_strokes
from scratchgen.judge import Judge
from scratchgen.models.aae import AAEConfig
from scratchgen.models.classifier import Classifier
from scratchgen.models.dbm import DBMConfig
from scratchgen.models.dbn import DBNConfig
from scratchgen.models.gan import GANConfig
from scratchgen.models.rbm import RBMConfig
from scratchgen.models.vae import VAEConfig
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.tasks.aae import AAETraining
from scratchgen.tasks.dbm import DBMTraining
from scratchgen.tasks.dbn import DBNTraining
from scratchgen.tasks.gan import GANTraining
from scratchgen.tasks.rbm import RBMTraining
from scratchgen.tasks.vae import VAETraining

# All that has a state in training is on. Of five batches the last is a short one.
TINY = RunConfig(
    "vae",
    "tiny",
    VAEConfig(latent_dim=2, encoder_hidden=(16,), decoder_hidden=(16,)),
    VAETraining(samples=2, schedule="tripling", binarize="dynamic", beta_warmup=1.5, output_bias=True),
    epochs=3,
    batch_size=128,
    data="strokes",
)
STEPS = 5  # an epoch
TINY_GAN = RunConfig(
    "gan",
    "tiny",
    GANConfig(latent_dim=3, generator_hidden=(16,), discriminator_hidden=(16,), discriminator="maxout", pieces=2),
    GANTraining(
        discriminator_steps=2, schedule="cosine", optimizer="momentum", final_momentum=0.7, momentum_epochs=2.0
    ),
    epochs=3,
    batch_size=128,
    data="strokes",
)
TINY_AAE = RunConfig(
    "aae",
    "tiny",
    AAEConfig(
        latent_dim=2,
        encoder_hidden=(16,),
        decoder_hidden=(16,),
        discriminator_hidden=(16,),
        posterior="gaussian",
        labels_for="encoder",
        batch_norm=True,
        hidden_noise=0.1,
    ),
    AAETraining(labels=50, schedule="cosine", input_noise=0.1, consistency=1.0, moved=1),
    epochs=3,
    batch_size=128,
    data="strokes",
)
FEW = {"chains": 10, "momentum": 0.5, "annealed_chains": 20, "annealing_steps": 50}
TINY_RBM = RunConfig(
    "rbm",
    "tiny",
    RBMConfig(hidden=16),
    RBMTraining(**FEW),
    epochs=3,
    batch_size=128,
    data="strokes",
)
TINY_DBN = replace(
    TINY_RBM, model="dbn", network=DBNConfig(hidden=(16, 12)), training=DBNTraining(layer_epochs=1, **FEW)
)
TINY_DBM = replace(
    TINY_RBM,
    model="dbm",
    network=DBMConfig(hidden=(16, 12)),
    training=DBMTraining(gibbs_steps=2, centered=False, pretraining_epochs=1, mean_field_steps=3, **FEW),
)
TINIES = {config.model: config for config in (TINY, TINY_GAN, TINY_AAE, TINY_RBM, TINY_DBN, TINY_DBM)}
# A KL term whose weight soon is 10 makes the third epoch worse than the second.
STOPPING = replace(
    TINY, epochs=12, patience=1, log="csv", training=replace(TINY.training, lr=0.01, beta=10.0, beta_warmup=4.0)
)

HALVES = {"encoder_channels": (2, 3), "decoder_channels": (3, 2)}
TINY_DCGAN = GANConfig(
    latent_dim=3,
    generator_hidden=(),
    generator_channels=(3, 2),
    discriminator_hidden=(),
    discriminator_channels=(2, 3),
)
CONVOLUTIONAL = {
    **{model: replace(TINIES[model], network=replace(TINIES[model].network, **HALVES)) for model in ("vae", "aae")},
    "gan": replace(TINY_GAN, network=TINY_DCGAN, training=GANTraining()),
    "wasserstein": replace(
        TINY_GAN,
        network=replace(TINY_DCGAN, pack=1, discriminator_batch_norm=False),
        training=GANTraining(objective="wasserstein", discriminator_steps=2, momentum=0.0),
    ),
}
CONVOLUTIONAL = {name: replace(config, epochs=2) for name, config in CONVOLUTIONAL.items()}


@cache
def tiny_data() -> Dataset:
    """600 and 60 drawn digits."""
    train, test = (draw_strokes(n, np.random.default_rng(n)) for n in (600, 60))
    return Dataset("strokes", Split(train.images, train.labels), Split(test.images, test.labels))


class ByBrightness:
    """A judge without training: ten brightnesses, ten classes."""

    accuracy = 0.5

    def probabilities(self, images):
        nearness = -50 * np.abs(images.mean(axis=1)[:, None] - np.linspace(0.3, 0.6, 10))
        return np.exp(nearness) / np.exp(nearness).sum(axis=1, keepdims=True)

    def features(self, images):
        return np.stack([images.mean(axis=1), images.std(axis=1)], axis=1)


def untrained_judge(data: Dataset) -> Judge:
    """A judge of the usual size, with its first weights."""
    classifier = Classifier(data.image_shape, np.random.default_rng(0), len(data.classes))
    classifier.eval()
    return Judge(classifier, data.test)


def use_tiny(set_attribute) -> None:
    """Have runs and the command line know ``TINIES`` and load ``tiny_data``; ``set_attribute`` may be monkeypatch's."""
    for module in (runs, commands.data, commands.engine):
        set_attribute(module, "load_dataset", lambda source="auto", data_dir=None: tiny_data())
    for name, recipe in RECIPES.items():
        set_attribute(recipe, "configs", {**recipe.configs, "tiny": TINIES[name]})
    set_attribute(recipes.vae, "IW_SAMPLES", 20)  # L_20 instead of L_500
    set_attribute(recipes.gan, "SAMPLES", 300)
    set_attribute(recipes.gan, "SAMPLES_AN_EPOCH", 200)
    set_attribute(recipes.gan, "load_judge", lambda data: ByBrightness())
    for name, few in {"ANNEALED": 20, "SAMPLED": 20, "SHOWN": (1, 10)}.items():
        set_attribute(recipes.boltzmann, name, few)
    set_attribute(recipes.dbn, "SAMPLES", 5)
    set_attribute(explorer, "load_judge", untrained_judge)
    set_attribute(recipes.aae, "fresh_discriminator_bce", lambda *_: 0.5)  # which takes seconds


def without_figures(set_attribute) -> None:
    """Have runs draw nothing, which would take longer than the rest."""
    for recipe in RECIPES.values():
        set_attribute(recipe, "draw", lambda *_: [])


def outcome(folder: Path) -> dict:
    """All of a finished run that its seed decides: everything but times."""
    names = ["checkpoint.safetensors", *(path.name for path in folder.glob("best.safetensors"))]
    checkpoints = [checkpoint.load_checkpoint(folder / name) for name in names]
    progress = checkpoints[0][1]
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics == progress["history"]
    assert not list(folder.glob("*.tmp"))
    of_all = [entry for _, each in checkpoints for entry in (each, *each["history"])]
    for timed in (summary, *metrics, *of_all):
        del timed["seconds"]
    bits, *best = (
        {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}
        for arrays, _ in checkpoints
    )
    found = {"arrays": bits, "progress": progress, "metrics": metrics, "summary": summary}
    return found | ({"best": (best[0], checkpoints[1][1])} if best else {})


def files(folder):
    """What is in a folder: the bytes of every file, False for a folder, by path."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def train_options(model="vae"):
    """What ``train vae --help`` lists, or that of another model."""
    actions = cli._parser()._subparsers._group_actions[0].choices["train"]._subparsers._group_actions[0].choices[model]
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

    def step(capture, *arguments, original=Capture.__call__, **options):
        moment("before step")
        metrics = original(capture, *arguments, **options)
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

    Capture.__call__ = step
    checkpoint.open, os.replace = HalfWritten, replace


if __name__ == "__main__":
    use_tiny(setattr)
    without_figures(setattr)
    if os.environ["MOMENT"]:
        _signal_at(os.environ["MOMENT"])
    if after := float(os.environ["AFTER"]):
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
    sys.exit(cli.main())
