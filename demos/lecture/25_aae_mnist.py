# %% [markdown]
# # An adversarial autoencoder on MNIST
#
# An autoencoder puts codes wherever it likes. An adversarial one (Makhzani et al. 2015; L25 of the ledger) sets a
# discriminator D on the codes: it learns to tell draws of a prior p(z) from codes, and the encoder learns to fool it,
# until the codes of all the data together, q(z) = E_x q(z|x), are distributed as p(z). Any prior that can be sampled
# will do. Each batch goes through two phases with three updates, each of its own parameters (L26):
#
#     reconstruction phase    encoder and decoder lower the reconstruction error
#     regularisation phase    the discriminator learns to tell p(z), which is 1, from q(z), which is 0
#                             the generator, which is the encoder, learns to have its codes taken for draws of p(z)
#
# The lecture calls them events 1 to 3. Which is 1 has to be said once and kept: the lecture's event 3 takes the prior
# for 1 and the code for 0.
#
# Run it as it is (about 20 minutes on two cores), or `--quick` for an epoch of each, or `--by-hand` for the updates
# derived on paper beside the engine's.

# %%
import argparse
import math
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from scratchgen import Tensor, runs
from scratchgen.by_hand.tasks import ByHandAAETask, format_curves, learning_curves
from scratchgen.data.dataset import Split
from scratchgen.models.aae import AAE
from scratchgen.options import add_data_options, load_data, make_folder
from scratchgen.random import RandomStream, stream
from scratchgen.recipes import RECIPES
from scratchgen.recipes.aae import health
from scratchgen.tasks.aae import AAETask
from scratchgen.training import Trainer

parser = argparse.ArgumentParser(description="An adversarial autoencoder on MNIST.")
add_data_options(parser)
parser.add_argument("--out", type=Path, default=Path("runs/demo-25"), help="folder for pictures and runs")
parser.add_argument("--quick", action="store_true", help="one epoch of each")
parser.add_argument("--by-hand", action="store_true", help="only compare 40 steps by hand with the engine's")
options = parser.parse_args()
make_folder(parser, options.out)
data = load_data(parser, options)
recipe = RECIPES["aae"]
config = replace(recipe.configs["gaussian"], data=data.name, data_dir=options.data_dir)
unlabelled = Split(data.train.images[:0], data.train.labels[:0])  # no image has its label

# %% [markdown]
# ## By hand
#
# `scratchgen/by_hand/aae.py` derives every update on paper and writes it out in NumPy. From the same parameters, noise
# and batches it follows the engine's curve, here in float64, where rounding has no time to grow.

# %%
if options.by_hand:
    models = [AAE(config.network, stream(0, "parameters"), np.float64) for _ in range(2)]
    pair = [
        kind(model, config.training, RandomStream(0), 600, 1, unlabelled, lambda *_: {})
        for kind, model in zip((AAETask, ByHandAAETask), models, strict=True)
    ]
    images = data.train.images[:5000].astype(np.float64)
    print(format_curves(learning_curves(*pair, images, data.train.labels[:5000], 40, config.batch_size, seed=0)))
    raise SystemExit

# %% [markdown]
# ## Three updates, three sets of parameters
#
# One batch, update by update: which parts of the model each of them changes. A game is a discriminator, the codes that
# it judges, and as many draws of their prior; here there is one. No one is given labels in this model, so y is None.
# `AAETask.train_step` is these lines, and the trainer repeats it.

# %%
model = recipe.build(config)
task = recipe.task(config, model, recipe.seen(config, data))
x, labels = Tensor(data.train.images[: config.batch_size]), data.train.labels[: config.batch_size]


def show_changes(update, take, expected):
    """Which parts of the model an update changes."""
    before = model.state_dict()
    take()
    changed = {key.split(".")[0] for key, array in model.state_dict().items() if not np.array_equal(array, before[key])}
    print(f"{update:<45} changes {' and '.join(sorted(changed))}")
    assert changed == expected


y = task.one_hot_labels(labels)
show_changes("reconstruction phase", lambda: task.update_autoencoder(x, y), {"encoder", "decoder"})
pairs = task.adversarial_pairs(x, y, labels)
show_changes("regularisation phase, discriminator", lambda: task.update_discriminators(pairs), {"discriminator"})
show_changes("regularisation phase, generator (the encoder)", lambda: task.update_encoder(pairs), {"encoder"})

# %% [markdown]
# ## A normal distribution as the prior, with and without the adversary
#
# How near do the codes of the test images come to the prior? Two measures: the squared maximum mean discrepancy
# (unbiased, inverse multiquadric kernel), beside that of the prior with itself; and the cross-entropy of a
# discriminator trained afresh on training codes, which is ln 2 = 0.693 nats where nothing can be told apart. The same
# autoencoder, trained by the reconstruction phase alone, shows what the adversary does.


# %%
class Autoencoder(AAETask):
    """Trained by the reconstruction phase alone."""

    def train_step(self, x, labels):
        return self.update_autoencoder(x, self.one_hot_labels(labels))


def train(name, **changes):
    """Train a named configuration, with changes to its training; its summary's test, and its folder."""
    named = recipe.configs[name]
    named = replace(named, data=data.name, data_dir=options.data_dir, training=replace(named.training, **changes))
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.out))
    return runs.start(replace(named, epochs=1 if options.quick else named.epochs), folder)["test"], folder


epochs = 1 if options.quick else config.epochs
normal, folder = train("gaussian")
folders = [folder]
plain, random = recipe.build(config), RandomStream(stream(config.seed, "noise"))
steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
measure = partial(health, 0)  # without labels
plain_task = Autoencoder(plain, config.training, random, steps_per_epoch, epochs, unlabelled, measure)
plain_folder = Path(tempfile.mkdtemp(prefix="no-adversary-", dir=options.out))
Trainer(plain_task, data, plain_folder, epochs=epochs, batch_size=config.batch_size, seed=0, fingerprint="").run()
without = recipe.evaluate(config, plain, data)

# %% [markdown]
# ## Priors with a region for each class
#
# With its label beside the code, D sees whether a code lies where its class belongs: in one of ten petals, or on a
# stretch of a swiss roll. The share of test images whose code lies in their own class's region is the measure; test
# labels are not used for anything else.

# %%
petals, folder = train("mixture")
folders.append(folder)
roll, folder = train("swiss-roll")
folders.append(folder)

# %% [markdown]
# ## Style and content apart; and few labels
#
# With the label given to the decoder, the code need not carry the class: a row of `styles.png` is one code, a column
# one digit. And where the encoder itself says the class, by a second, categorical code with an adversary of its own, a
# thousand labelled images, or a hundred, go a long way.

# %%
_, folder = train("supervised")
folders.append(folder)
thousand, folder = train("semi-supervised")
folders.append(folder)
hundred, folder = train("semi-supervised", labels=100)
folders.append(folder)

# %% [markdown]
# ## Expected beside got

# %%
ratio = normal["mmd"] / without["mmd"]
rows = [
    ("fresh discriminator's bce, ln 2 = 0.693", "0.65 or more", f"{normal['fresh_discriminator_bce']:.3f}"),
    ("the same without adversary", "far below", f"{without['fresh_discriminator_bce']:.3f}"),
    ("mmd of codes and prior", "small", f"{normal['mmd']:.1e}"),
    ("the prior with itself: the spread of chance", "smaller", f"{normal['mmd_prior_vs_prior']:.1e}"),
    ("mmd / mmd without adversary", "0.1 or less", f"{ratio:.1e}"),
    (
        "reconstruction_mse, and without adversary",
        "alike",
        f"{normal['reconstruction_mse']:.4f}, {without['reconstruction_mse']:.4f}",
    ),
    ("ten petals: codes in their own", "0.95 or more", f"{petals['own_region']:.4f}"),
    ("swiss roll: codes on their own stretch", "0.955 to 0.96", f"{roll['own_region']:.4f}"),
    ("test error with 1,000 labels", "0.04 or less", f"{thousand['error_rate']:.4f}"),
    ("test error with 100 labels", "as it comes", f"{hundred['error_rate']:.4f}"),
]
if options.quick or data.name != "mnist":
    print("(what is expected is of MNIST and the whole training)")
for what, expected, got in [("what", "expected", "got"), *rows]:
    print(f"{what:<46} | {expected:<14} | {got}")

# %% [markdown]
# The pictures: codes beside the prior, the manifold over it, samples and reconstructions; styles by digits.

# %%
for folder in folders:
    for path in sorted(folder.glob("*.png")):
        print(path)
