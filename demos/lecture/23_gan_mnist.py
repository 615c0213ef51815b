# %% [markdown]
# # A generative adversarial network on MNIST
#
# A VAE raises a bound of log p(x). A GAN has no likelihood at all: a generator G turns noise z into pictures, a
# discriminator D says how sure it is that a picture is real, and each learns from the other (L22, L23 of the ledger):
#
#     D maximises  V = E_x log D(x) + E_z log(1 - D(G(z)))          G minimises  -E_z log D(G(z))
#
# Where the lecture is loose, and the right form:
#
# - D maximises the expectation of logarithms, not the product D(x) (1 - D(G(z))); lesson 22 shows what that learns.
# - "Only one survives": the game ends where G(z) is distributed as x, D = 1/2 everywhere, and nobody wins.
# - "The best discriminator has a large error": of 50 %, with a cross-entropy of ln 2 on each half.
#
# Run it as it is (about eleven minutes on two cores), or `--quick` for two epochs, or `--by-hand` for the steps derived
# on paper beside the engine's.

# %%
import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from scratchgen import Tensor, runs
from scratchgen.by_hand.tasks import ByHandGANTask, format_curves, learning_curves
from scratchgen.judge import load_judge
from scratchgen.models.gan import GAN, GENERATOR_OBJECTIVES, discriminator_loss, generator_loss
from scratchgen.options import add_data_options, load_data, make_folder
from scratchgen.random import RandomStream, stream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.gan import GANTask

parser = argparse.ArgumentParser(description="A generative adversarial network on MNIST.")
add_data_options(parser)
parser.add_argument("--out", type=Path, default=Path("runs/demo-23"), help="folder for pictures and runs")
parser.add_argument("--quick", action="store_true", help="two epochs")
parser.add_argument("--by-hand", action="store_true", help="only compare 40 steps by hand with the engine's")
options = parser.parse_args()
make_folder(parser, options.out)
data = load_data(parser, options)
config = replace(RECIPES["gan"].configs["mlp"], data=data.name, data_dir=options.data_dir)

# %% [markdown]
# ## The game, before anybody has learned
#
# D gives a logit a, and s = sigmoid(a) is D(x). An untrained D is undecided: V is near -2 ln 2. What each of G's
# objectives lets through to the logit is s, 1 - s and s (1 - s): while D sees through every sample, s is near 0 and
# only the non-saturating -log s still teaches.

# %%
model = GAN(config.network, stream(0, "parameters"))
real, fake = Tensor(data.train.images[:128]), model.generate(model.draw_noise(128, RandomStream(0))).detach()
losses = [discriminator_loss(model.discriminate(x), label).item() for x, label in ((real, 1.0), (fake, 0.0))]
print(f"V before training: {-sum(losses):.3f}; of a D that is 1/2 everywhere: {-2 * math.log(2):.3f}")
print(f"{'|d loss / d logit| where D(G(z)) is':<38}" + "".join(f"{s:>9.2f}" for s in (0.01, 0.5, 0.99)))
for objective in GENERATOR_OBJECTIVES:
    slopes = []
    for s in (0.01, 0.5, 0.99):
        logit = Tensor([[math.log(s / (1 - s))]], requires_grad=True)
        generator_loss(logit, objective).backward()
        slopes.append(abs(logit.grad.item()))
    print(f"{objective:<38}" + "".join(f"{slope:>9.4f}" for slope in slopes))

# %% [markdown]
# ## By hand
#
# `scratchgen/by_hand/gan.py` derives both steps on paper and writes them out in NumPy. From the same parameters, noise
# and batches it follows the engine's curve, here in float64, where rounding has no time to grow.

# %%
if options.by_hand:
    models = [GAN(config.network, stream(0, "parameters"), np.float64) for _ in range(2)]
    pair = [
        kind(model, config.training, RandomStream(0), 469, 1, lambda *_: {})
        for kind, model in zip((GANTask, ByHandGANTask), models, strict=True)
    ]
    images = data.train.images[:5000].astype(np.float64)
    print(format_curves(learning_curves(*pair, images, data.train.labels[:5000], 40, config.batch_size, seed=0)))
    raise SystemExit

# %% [markdown]
# ## Training
#
# Is this normal? Of a GAN the losses hardly tell. What does, is printed after every epoch: whether the samples show all
# ten classes (by a judge, a classifier trained with this engine), how sure the judge is, and how far D still tells
# samples from test images. What makes this plain network work:
#
# - batch normalisation in G: without it, G collapses to one picture within epochs;
# - D judges pictures in pairs (PacGAN, Lin et al. 2018): a G that repeats itself is found out, so no class is lost;
# - labels of 0.9 for real (Salimans et al. 2016), and no dropout in D, which would keep it too dull to teach strokes;
# - Adam with beta1 = 0.5 (Radford et al. 2015), its rate falling as half a cosine, and samples from a running average.

# %%
epochs = 2 if options.quick else config.epochs
folder = Path(tempfile.mkdtemp(prefix="gan-", dir=options.out))
summary = runs.start(replace(config, epochs=epochs), folder)
print(json.dumps(summary, indent=2))

# %% [markdown]
# ## Expected beside got
#
# A judge that is as sure of samples as of real digits, and ten even classes, would be perfect; D(x) = D(G(z)) = 1/2
# would be the end of the game. With smoothed labels a D that knew nothing would say 0.45.
#
# In the judge's last features samples are compared with test images: by the Fréchet distance (Heusel et al. 2017), by
# precision, the share of samples that lie among the images, and by recall, the share of images that lie among the
# samples (Kynkäänniemi et al. 2019). Beside each is what as many training images have: no samples can be expected to do
# better.

# %%
test = summary["test"]
certainty = load_judge(data).probabilities(data.test.images).max(axis=1).mean()
print(f"{'what':<44}{'expected':<22}got")
if data.name == "mnist" and not options.quick:
    print(f"{'classes of ten':<44}{'10':<22}{test['classes_covered']}")
    print(f"{'smallest share of a class':<44}{'0.06 or more':<22}{test['smallest_class']:.3f}")
    print(f"{'entropy of the classes, nats (ln 10 = 2.303)':<44}{'2.28 or more':<22}{test['class_entropy']:.3f}")
    print(f"{'mean confidence of the judge':<44}{'0.90 or more':<22}{test['judge_confidence']:.3f}")
    for name in ("frechet_distance", "precision", "recall"):
        expected = f"training images {test['as_training'][name]:.3f}"
        print(f"{name.replace('_', ' '):<44}{expected:<22}{test[name]:.3f}")
print(f"{'the same on real test images':<44}{'0.98 or more':<22}{certainty:.3f}")
print(f"{'mean D on test images, on samples':<44}{'near one another':<22}{test['d_real']:.2f}, {test['d_fake']:.2f}")

# %% [markdown]
# The pictures: samples, curves, and D's logits on test images and samples beside the classes.

# %%
for path in sorted(folder.glob("*.png")):
    print(path)
