# %% [markdown]
# # The game with convolutions, with classes, and with a distance
#
# The GAN of lesson 23 takes a picture for 784 numbers in no order. Three steps on from there, each from a paper, on
# the same game (L23 of the ledger):
#
# 1. **DCGAN** (Radford et al. 2015): G and D are convolutional, and strokes get sharper.
# 2. **Conditional GAN** (Mirza & Osindero 2014): both networks see the class y, so a digit can be asked for.
# 3. **WGAN-GP** (Arjovsky et al. 2017, Gulrajani et al. 2017): D no longer says "real or not". It becomes a critic f
#    whose loss estimates a distance between data and samples, and so at last a loss that tells how good samples are.
#
# Run it as it is (about half an hour on two cores; stopped with Ctrl-C, it goes on from there when run again), or
# `--quick` for an epoch of each.

# %%
import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from scratchgen import Tensor, figures, no_grad, runs
from scratchgen.judge import load_judge
from scratchgen.models.gan import GAN
from scratchgen.nn import evaluating
from scratchgen.options import add_data_options, load_data, make_folder
from scratchgen.random import stream
from scratchgen.recipes import RECIPES
from scratchgen.recipes.gan import generate
from scratchgen.training import Interrupted

parser = argparse.ArgumentParser(description="GANs with convolutions, with classes, and with a distance.")
add_data_options(parser)
parser.add_argument("--out", type=Path, default=Path("runs/demo-dcgan"), help="folder for pictures and runs")
parser.add_argument("--quick", action="store_true", help="an epoch of each")
options = parser.parse_args()
make_folder(parser, options.out)
data = load_data(parser, options)
config = RECIPES["gan"].configs["dcgan"]

# %% [markdown]
# ## Two networks, mirrored
#
# D halves the sides of a picture twice, by convolutions with a stride of 2; G goes the other way, by transposed
# convolutions. A unit sees 4 by 4 pixels only, with the same weights everywhere: a stroke need not be learned anew at
# each place. As in the paper: strides instead of pooling, batch normalisation of the convolutions except where they
# meet the picture, relu in G and leaky relu in D, weights drawn from N(0, 0.02²), Adam with beta1 = 0.5.


# %%
def layers_table(network, x):
    """A line for each layer of a network: what it gives for an input x (b, n), and how many parameters it has."""
    lines = [f"{'layer':<16}{'output':<16}{'parameters':>10}", f"{'(input)':<16}{x.shape[1:]!s:<16}"]
    with no_grad(), evaluating(network):
        for layer in network.layers:
            x = layer(x)
            count = sum(parameter.size for parameter in layer.parameters())
            lines.append(f"{type(layer).__name__:<16}{x.shape[1:]!s:<16}{count:>10,}")
    return "\n".join(lines)


model = GAN(config.network, 0)
noise, pair = np.zeros((1, config.network.latent_dim)), np.tile(data.train.images[:1], (1, config.network.pack))
print(f"G:\n{layers_table(model.generator, Tensor(noise, dtype=model.dtype))}\n")
print(f"D, of a pair of pictures:\n{layers_table(model.discriminator, Tensor(pair))}")

# %% [markdown]
# ## Trained
#
# What makes it work here, and the paper does without: hidden layers between the noise and G's first images, without
# which too much of the noise lies between two digits, and one in D; pictures judged in pairs, as in lesson 23, so that
# no class is lost; and learning rates that begin higher and fall to 0.


# %%
def train(name, config):
    """Train a run in the folder of this name, or go on with it where it was stopped; its test metrics and history."""
    config = replace(config, data=data.name, epochs=1 if options.quick else config.epochs)
    folder = options.out / name
    try:
        if not (folder / "config.json").exists():
            summary = runs.start(replace(config, data_dir=options.data_dir), folder)
        elif (was := runs.load_config(folder)).fingerprint() == config.fingerprint() and was.epochs == config.epochs:
            summary = runs.resume(folder)
        else:
            parser.error(f"{folder} holds a run with other settings; give another --out")
    except (Interrupted, KeyboardInterrupt):
        raise SystemExit("stopped; run the lesson again to go on") from None
    return summary["test"], [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


tests, histories = {}, {}
tests["dcgan"], histories["dcgan"] = train("dcgan", config)

# %% [markdown]
# ## Does G copy its training images?
#
# A G that had learned 60,000 pictures by heart would draw sharp digits, too. Two signs that it has not: a sample's
# nearest training image is often much like it, but not the same, as for a test image (``nearest.png`` above); and
# between two samples there is a way through noise on which every point is a digit, or half-way between two ("walking in
# the latent space", section 6.1 of the DCGAN paper): ten ways, one each row.


# %%
def walk(starts, ends, steps):
    """Noise (n · steps, J) on n ways between draws (n, J) of N(0, I), ends included.

    On the straight way the middle would be shorter than any draw is; these turn from one direction to the other.
    """
    angle = np.linspace(0, math.pi / 2, steps)[:, None]
    return (np.cos(angle) * starts[:, None] + np.sin(angle) * ends[:, None]).reshape(-1, starts.shape[1])


_, model = runs.load_model(options.out / "dcgan")
noise, labels = stream(0, "samples").standard_normal((20, model.config.latent_dim)), np.zeros(200, np.int64)
between = generate(model, walk(noise[:10], noise[10:], 20), labels)
print(figures.save_samples(options.out / "walk.png", between, data.image_shape, 20))

# %% [markdown]
# ## A digit on demand
#
# With the class beside the noise, and beside the picture for D, each class is a game of its own, played by the same
# two networks. Fewer epochs are enough. The samples have a class each column, and one noise each row: it is the style.

# %%
conditional = replace(config, network=replace(config.network, conditional=True), epochs=10)
tests["conditional"], _ = train("conditional", conditional)
print(f"drew the class asked for: {tests['conditional']['class_accuracy']:.1%}, says the judge")

# %% [markdown]
# ## Which loss tells how good the samples are?
#
# D's loss says how well D does against the G of the moment. D learns, too: its loss may fall while the samples get
# better, as in the first run from the fifth epoch on. The critic's
#
#     max over f of  E f(x) − E f(G(z)),    |∇f| near 1 between data and samples    (scratchgen/models/wgan.py)
#
# is the Wasserstein distance, if f is the best such function: it falls as the samples move to the data. It compares the
# epochs of one run, not runs: the judge is more confident in the samples of the first run.


# %%
def losses_beside_confidence(name, history, loss):
    """Some epochs of a run: the loss beside the judge's confidence in the samples."""
    shown = [history[i] for i in sorted({0, 1, len(history) // 4, len(history) // 2, len(history) - 1}) if history[i:]]
    lines = [f"{name + ', epoch':<22}" + "".join(f"{entry['epoch']:>8}" for entry in shown)]
    for what, split, metric in ((loss, "train", loss), ("judge's confidence", "test", "judge_confidence")):
        lines.append(f"{what:<22}" + "".join(f"{entry[split][metric]:>8.3f}" for entry in shown))
    return "\n".join(lines)


tests["wgan-gp"], histories["wgan-gp"] = train("wgan-gp", RECIPES["gan"].configs["wgan-gp"])
for name, loss in (("dcgan", "d_loss"), ("wgan-gp", "wasserstein")):
    print(f"\n{losses_beside_confidence(name, histories[name], loss)}")

# %% [markdown]
# ## Expected beside got
#
# The network of lesson 23 has a confidence of 0.91 and a Fréchet distance of 4.3 after 40 epochs. With convolutions
# strokes are clean, and what is no digit is rare. Precision and recall tell two faults apart: DCGAN's samples lie among
# the digits nearly as often as real digits do, but do not reach all of them; WGAN-GP's reach nearly as many as real
# digits do, and more of them lie outside.

# %%
certainty = load_judge(data).probabilities(data.test.images).max(axis=1).mean()
rows = [("judge's confidence, test images", "0.98 or more", f"{certainty:.3f}")]
for name, confidence in (("dcgan", "0.96 or more"), ("conditional", "0.96 or more"), ("wgan-gp", "0.93 or more")):
    test = tests[name]
    rows += [
        (f"{name}: classes of ten", "10", f"{test['classes_covered']}"),
        (f"{name}: smallest share of a class", "0.07 or more", f"{test['smallest_class']:.3f}"),
        (f"{name}: entropy of the classes", "2.29 or more", f"{test['class_entropy']:.3f}"),
        (f"{name}: judge's confidence", confidence, f"{test['judge_confidence']:.3f}"),
        (f"{name}: Fréchet distance", "1.5 or less", f"{test['frechet_distance']:.2f} ± {test['frechet_error']:.2f}"),
        (f"{name}: precision, recall", "to compare", f"{test['precision']:.3f}, {test['recall']:.3f}"),
    ]
as_training = tests["dcgan"]["as_training"]
rows += [
    ("training images: Fréchet distance", "to compare", f"{as_training['frechet_distance']:.2f}"),
    (
        "training images: precision, recall",
        "to compare",
        f"{as_training['precision']:.3f}, {as_training['recall']:.3f}",
    ),
]
rows.append(("conditional: drew the class asked for", "0.95 or more", f"{tests['conditional']['class_accuracy']:.3f}"))
if options.quick or data.name != "mnist":
    print("(what is expected is of MNIST and the whole training)")
for what, expected, got in [("what", "expected", "got"), *rows]:
    print(f"{what:<38} | {expected:<13} | {got}")
for path in sorted(options.out.rglob("*.png")):
    print(path)
