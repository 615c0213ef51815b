# %% [markdown]
# # A generative adversarial network that can be seen whole: x in R
#
# This is the lecture's practice (L22, L23, L24 of the ledger): the data are draws from N(-1, 1), the noise z is one
# number, G turns it into a sample, and D says how sure it is that a number comes from the data. Everything fits into
# one picture, and the best D is known exactly.
#
# Where the lecture is loose, and the right form:
#
# - D does not maximise D(x) (1 - D(G(z))) but E log D(x) + E log(1 - D(G(z))). The product has another optimum, shown
#   below: a D that only ever says 0 or 1.
# - G's D(G(z)) has the right optimum but little gradient; in practice G maximises log D(G(z)) (non-saturating) or
#   minimises log(1 - D(G(z))) (minimax).
# - "Only one survives": both do. At the equilibrium the samples are distributed as the data and D is 1/2 everywhere:
#   its error is 50 %, and its cross-entropy is ln 2 over data and over samples, so V = -2 ln 2.

# %%
import argparse
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from scratchgen import Tensor, no_grad, ops
from scratchgen.models.gan import GENERATOR_OBJECTIVES, discriminator_loss, generator_loss
from scratchgen.nn import Module, Parameter, frozen
from scratchgen.optim import SGD, Adam, constant, cosine, staircase
from scratchgen.options import make_folder, positive, whole

DATA_MEAN, DATA_SD = -1.0, 1.0


def normal_density(x, mean=DATA_MEAN, sd=DATA_SD):
    """The density of N(mean, sd²) at x; of the data by default."""
    return np.exp(-(((x - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


# %% [markdown]
# ## The best discriminator (L23)
#
# For densities p of the data and q of the samples, V = ∫ p log D + q log(1 - D). At each x by itself, p log D +
# q log(1 - D) is concave in D and largest at
#
#     D*(x)  =  p(x) / (p(x) + q(x)),        where        V(D*)  =  -log 4 + 2 JSD(p, q),
#
# with the Jensen-Shannon divergence JSD = KL(p || m)/2 + KL(q || m)/2 to the mixture m = (p + q)/2. So G, by lowering
# V(D*), lowers a divergence that is 0 for p = q alone.
#
# The two sides are computed in two ways that share no formula: V from D*, the JSD from the entropies, as H(m) -
# H(p)/2 - H(q)/2, where H(p) = -∫ p log p. On a grid that reaches far into the tails the plain sum is as good as exact.

# %%
GRID, SPACING = np.linspace(-14, 14, 5601, retstep=True)


def best_discriminator(p, q):
    """D* = p / (p + q); 1/2 where both are 0."""
    total = p + q
    return np.divide(p, total, out=np.full_like(total, 0.5), where=total > 0)


def game_value(d, p, q, spacing):
    """V = ∫ p log D + q log(1 - D), with 0 log 0 = 0, of D, p and q on a grid."""
    smallest = np.finfo(float).tiny
    return float((p * np.log(np.maximum(d, smallest)) + q * np.log(np.maximum(1 - d, smallest))).sum() * spacing)


def entropy(p, spacing):
    """-∫ p log p, with 0 log 0 = 0, of a density on a grid."""
    return float(-(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum() * spacing)


def jensen_shannon(p, q, spacing):
    """JSD(p, q) in nats: 0 for p = q, and log 2 where they share no point."""
    return entropy((p + q) / 2, spacing) - (entropy(p, spacing) + entropy(q, spacing)) / 2


# %% [markdown]
# ## What the product learns instead
#
# Let x and z be independent. Then E[D(x) (1 - D(G(z)))] = A (1 - B), where A = ∫ p D and B = ∫ q D are D's means over
# data and samples. Change D near one x, by a little; the product changes by
#
#     p(x) (1 - B) - q(x) A        times the change of D(x),
#
# whose sign does not depend on D(x): one x has no probability of its own, so A and B stay what they are. So D(x) goes
# all the way, to 1 where p(x)/q(x) > t = A/(1 - B), else to 0. The best D is a threshold on the ratio of the densities.
# How sure one may be, p/(p + q), is not in it, and where D is flat G has no gradient to follow. Where p = q the product
# is A (1 - A), and every D with A = 1/2 is as good as D = 1/2.
#
# `best_threshold` tries all thresholds: with the points in the order of falling p/q, A and B are running sums.


# %%
def product_value(d, p, q, spacing):
    """A (1 - B) = E[D(x)] E[1 - D(G(z))], of D, p and q on a grid."""
    return float((p * d).sum() * spacing * (1 - (q * d).sum() * spacing))


def best_threshold(p, q, spacing):
    """The D in {0, 1} that maximises the product, on the grid, and the ratio t = A / (1 - B) at which it switches."""
    order = np.argsort(-best_discriminator(p, q), kind="stable")  # D* rises with p/q, and is finite where q is 0
    a, b = np.cumsum(p[order]) * spacing, np.cumsum(q[order]) * spacing
    last = int(np.argmax(a * (1 - b)))
    d = np.zeros_like(p)
    d[order[: last + 1]] = 1
    return d, float(a[last] / (1 - b[last]))


# %% [markdown]
# ## Networks, several seeds side by side
#
# G and D are two MLPs of one input and one output, far too small to keep a computer busy: most of a step's time goes
# to Python. So the networks of all seeds train as one stack, with weights (seeds, inputs, outputs). No seed feels the
# others: each draws from its own generator of random numbers, and the loss is the sum of all seeds' losses.
#
# The source, Eric Jang's 1-D GAN of 2016, begins with weights from N(0, 1) and biases of 0. So do all networks here.


# %%
class MLPs(Module):
    """Multilayer perceptrons with tanh in the hidden layers, one for each rng: (seeds, b, 1) -> (seeds, b, 1)."""

    def __init__(self, hidden, rngs):
        sizes = list(pairwise((1, *hidden, 1)))
        self.weights = [Parameter(np.stack([rng.standard_normal(size) for rng in rngs])) for size in sizes]
        self.biases = [Parameter(np.zeros((len(rngs), 1, outputs))) for _, outputs in sizes]

    def forward(self, x):
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in hidden:
            x = ops.tanh(x @ weight + bias)
        return x @ last[0] + last[1]


# %% [markdown]
# ## The set-up of the source, and the other choices
#
# Both networks are 1-6-5-1. G ends in 5 tanh. D ends in tanh, clipped to [0.01, 0.99] and called a probability. Steps:
# 10,000 with batches of 200, one of D then one of G, by gradient descent with momentum 0.6 at learning rate 0.001,
# times 0.95 after every quarter. Before, D is fitted for 1,000 steps by least squares to the *density* of the data at
# points uniform in (-5, 5): meant as a bump in the right place, though p is not p/(p + q) for any
# density q, and at this learning rate 1,000 steps do not always get there.
#
# The noise comes in two ways. `stratified`: 200 points evenly from -5 to 5, moved by up to 0.01, with the data of the
# batch sorted, so that batch after batch the i-th noise meets the i-th datum. `uniform`: from (0, 1), as the lecture
# says. The two ways of training are the source's, by logarithms, and the lecture's, where D maximises the mean of
# D(x) (1 - D(G(z))) over the batch and G maximises D(G(z)).
#
# Sorting is lost on the logarithms: the mean of log D(x_i) + log(1 - D(G(z_i))) is a sum of two means, in which nobody
# meets anybody. The product does feel it. If G rises with z and every pair is the same, x_i = G(z_i), each term is
# D (1 - D), and D = 1/2 is the one best answer, where of independent pairs it is one of many.


# %%
@dataclass(frozen=True)
class Setup:
    """How a GAN is built and trained; the source's as it stands. ``output`` is D's: "clipped tanh" or "logit"."""

    noise: str = "stratified"
    criterion: str = "logarithms"
    objective: str = "non-saturating"
    output: str = "clipped tanh"
    discriminator_hidden: tuple[int, ...] = (6, 5)
    optimizer: str = "momentum"
    lr: float = 1e-3
    schedule: str = "staircase"
    steps: int = 10_000
    pretraining: int = 1_000


GENERATOR_HIDDEN, BATCH = (6, 5), 200
SOURCE = Setup()
LECTURE = replace(SOURCE, criterion="product", objective="literal")
IMPROVED = Setup(
    noise="normal",
    discriminator_hidden=(16, 16),
    optimizer="adam",
    lr=5e-3,
    schedule="cosine",
    steps=3_000,
)

NOISES = {
    "stratified": lambda rng, n: np.linspace(-5, 5, n) + 0.01 * rng.random(n),
    "uniform": lambda rng, n: rng.random(n),
    "normal": lambda rng, n: rng.standard_normal(n),
}
SCHEDULES = {
    "staircase": lambda setup: staircase(setup.lr, 0.95, max(setup.steps // 4, 1)),
    "cosine": lambda setup: cosine(setup.lr, setup.steps),
    "constant": lambda setup: constant(setup.lr),
}


def clip(probability):
    """Into [0.01, 0.99], without a gradient outside."""
    return ops.relu(probability - 0.01) - ops.relu(probability - 0.99) + 0.01


def criterion_loss(criterion, real, fake):
    """What D minimises, the sum over seeds of the mean over the batch, of logits (seeds, b, 1) of data and samples."""
    if criterion == "product":
        return -(ops.sigmoid(real) * ops.sigmoid(-fake)).mean(axis=1).sum()
    losses = discriminator_loss(real.reshape(-1, 1), 1) + discriminator_loss(fake.reshape(-1, 1), 0)
    return losses * len(real)  # the mean over seeds times their number


class Game:
    """The generators and discriminators of some seeds, and how they learn."""

    def __init__(self, setup, seeds):
        self.setup, self.seeds = setup, list(seeds)
        self.rngs = [np.random.default_rng(seed) for seed in self.seeds]
        self.generators = MLPs(GENERATOR_HIDDEN, self.rngs)
        self.discriminators = MLPs(setup.discriminator_hidden, self.rngs)
        schedule = SCHEDULES[setup.schedule](setup)
        self.generator_optimizer = self.optimizer(self.generators, schedule)
        self.discriminator_optimizer = self.optimizer(self.discriminators, schedule)

    def optimizer(self, networks, lr):
        return Adam(networks, lr, beta1=0.5) if self.setup.optimizer == "adam" else SGD(networks, lr, momentum=0.6)

    def draw(self, distribution, n=BATCH):
        """n draws a seed (seeds, n, 1), each from its seed's rng."""
        return Tensor(np.stack([distribution(rng, n) for rng in self.rngs])[:, :, None])

    def data(self, n=BATCH):
        x = self.draw(lambda rng, n: rng.normal(DATA_MEAN, DATA_SD, n), n)
        return Tensor(np.sort(x.data, axis=1)) if self.setup.noise == "stratified" else x

    def noise(self, n=BATCH):
        return self.draw(NOISES[self.setup.noise], n)

    def generate(self, z):
        """G(z)."""
        return ops.tanh(self.generators(z)) * 5.0

    def logits(self, x):
        """The logit of D(x); log D and log(1 - D) are functions of it, whatever D ends in."""
        out = self.discriminators(x)
        if self.setup.output == "logit":
            return out
        probability = clip(ops.tanh(out))
        return ops.log(probability) - ops.log(1.0 - probability)

    def pretrain(self):
        """Least squares of D on the density of the data, with an optimizer of its own."""
        optimizer = self.optimizer(self.discriminators, self.setup.lr)
        unclipped = ops.sigmoid if self.setup.output == "logit" else ops.tanh
        for _ in range(self.setup.pretraining):
            x = self.draw(lambda rng, n: rng.uniform(-5, 5, n))
            error = unclipped(self.discriminators(x)) - normal_density(x.data)
            optimizer.zero_grad()
            ops.square(error).mean(axis=1).sum().backward()
            optimizer.step()

    def step(self):
        """One step of D, on data and on samples (D1 and D2, L24), then one of G, which D, held fixed, teaches."""
        with no_grad():
            fake = self.generate(self.noise())
        self.discriminator_optimizer.zero_grad()
        criterion_loss(self.setup.criterion, self.logits(self.data()), self.logits(fake)).backward()
        self.discriminator_optimizer.step()

        self.generator_optimizer.zero_grad()
        with frozen(self.discriminators):
            logits = self.logits(self.generate(self.noise()))
        (generator_loss(logits.reshape(-1, 1), self.setup.objective) * len(self.seeds)).backward()
        self.generator_optimizer.step()

    def play(self, watch=lambda game, step: None):
        """Pretraining and all steps. ``watch(game, step)`` is called before the first and after each."""
        self.pretrain()
        watch(self, 0)
        for number in range(self.setup.steps):
            self.step()
            watch(self, number + 1)
        return self

    def samples(self, n=10_000):
        """G of n fresh independent draws of the noise, (seeds, n); for stratified noise, uniform in (-5, 5)."""
        noise = (lambda rng, n: rng.uniform(-5, 5, n)) if self.setup.noise == "stratified" else NOISES[self.setup.noise]
        z = [noise(np.random.default_rng([seed, 1]), n) for seed in self.seeds]
        with no_grad():
            return self.generate(Tensor(np.stack(z)[:, :, None])).data[:, :, 0]

    def probability(self, x):
        """D(x), (seeds, n), at points x (n,)."""
        with no_grad():
            points = np.broadcast_to(x[:, None], (len(self.seeds), len(x), 1))
            return ops.sigmoid(self.logits(Tensor(points))).data[:, :, 0]


# %% [markdown]
# ## How good is G?
#
# On the line the Wasserstein distance W1, how far a grain has to be carried on average when one heap is made into the
# other, is the mean distance between quantiles: sort the samples and compare with the quantiles of N(-1, 1). Of 10,000
# true draws it is about 0.01; a shift by 0.1 costs 0.1.


# %%
def wasserstein(samples, mean=DATA_MEAN, sd=DATA_SD):
    """W1 of samples (n,) and N(mean, sd²), at the quantiles (i + 1/2) / n."""
    normal, n = NormalDist(mean, sd), len(samples)
    quantiles = np.array([normal.inv_cdf((i + 0.5) / n) for i in range(n)])
    return float(np.abs(np.sort(samples) - quantiles).mean())


def scores(game):
    """Mean, standard deviation and W1 of the samples of each seed: (seeds, 3)."""
    return np.array([(x.mean(), x.std(), wasserstein(x)) for x in game.samples()])


def good(score):
    """Which seeds, of scores (seeds, 3), are near in mean, standard deviation and W1: by 0.1, 0.15 and 0.15."""
    mean, sd, distance = score.T
    return (np.abs(mean - DATA_MEAN) <= 0.1) & (np.abs(sd - DATA_SD) <= 0.15) & (distance <= 0.15)


# %% [markdown]
# ## Two checks on the way: shared parameters, and three gradients
#
# D1 looks at data and D2 at samples, and they share their parameters (L24): D is trained on both at once, and its
# gradient is the sum of two. `shared_gradient_difference` gives D1 and D2 to two networks with the same numbers, and
# adds their gradients up: not one bit is different.
#
# G may raise D(G(z)) in three ways (L22). With the logit a of D and s = sigmoid(a), their gradients with respect to a
# are s for log(1 - s), 1 - s for -log s and s (1 - s) for -s, signs aside. Early on D sees through every sample, s is
# near 0, and only the middle one is then not near 0 as well.


# %%
def shared_gradient_difference(seed):
    """Largest |gradient of one shared D - (gradient of D1 + gradient of D2)|."""

    def loss_gradients(*passes):
        """Gradients of the sum of the losses of ``passes``, from a fresh D of this seed."""
        game = Game(SOURCE, [seed])
        x, z = game.data(), game.noise()
        fake = game.generate(z).detach()
        labelled = {"data": (x, 1), "samples": (fake, 0)}
        sum(discriminator_loss(game.logits(labelled[name][0])[0], labelled[name][1]) for name in passes).backward()
        return np.concatenate([p.grad.ravel() for p in game.discriminators.parameters()])

    both = loss_gradients("data", "samples")
    return float(np.abs(both - (loss_gradients("data") + loss_gradients("samples"))).max())


MAGNITUDES = {
    "minimax": lambda s: s,
    "non-saturating": lambda s: 1 - s,
    "literal": lambda s: s * (1 - s),
}


def objective_gradients(a):
    """|d/da| of each of G's objectives by the engine, at logits a (n,)."""
    found = {}
    for name in GENERATOR_OBJECTIVES:
        logits = Tensor(a[:, None], requires_grad=True)
        generator_loss(logits, name).backward()
        found[name] = np.abs(logits.grad[:, 0]) * len(a)  # the loss is a mean
    return found


# %% [markdown]
# ## D alone, against a G that stands still
#
# Data N(-1, 1), samples N(0.5, 0.7²). A D of 1-16-16-1 learns to tell them apart, once by logarithms and once by the
# product. The first approaches D*. The second steepens for as long as it is trained, towards 0 and 1.

# %%
RIVAL_MEAN, RIVAL_SD = 0.5, 0.7
LESSON = replace(IMPROVED, output="logit")


def train_discriminator(criterion, seed, steps, batch=1000):
    """D (n,) on ``GRID`` after learning with fixed G by a criterion."""
    game = Game(LESSON, [seed])
    game.discriminator_optimizer.lr = cosine(0.01, steps)
    for _ in range(steps):
        real = game.draw(lambda rng, n: rng.normal(DATA_MEAN, DATA_SD, n), batch)
        fake = game.draw(lambda rng, n: rng.normal(RIVAL_MEAN, RIVAL_SD, n), batch)
        game.discriminator_optimizer.zero_grad()
        criterion_loss(criterion, game.logits(real), game.logits(fake)).backward()
        game.discriminator_optimizer.step()
    return game.probability(GRID)[0]


# %% [markdown]
# ## The pictures
#
# A watcher keeps what the first seed's G and D look like at some steps: D on a line of x, and 5,000 samples.

# %%
BLUE, ORANGE, GREY = "#3f90da", "#e76300", "#94a4a2"
LINE = np.linspace(-5, 5, 401)
LEGEND_OUTSIDE = {"loc": "outside lower center", "ncols": 3, "frameon": False}


class Film:
    """What the first seed looks like at ``frames`` + 1 steps, closer together where most happens, at the start."""

    def __init__(self, setup, frames):
        self.steps = {round(setup.steps * (i / frames) ** 2) for i in range(frames + 1)}
        self.frames = []

    def __call__(self, game, step):
        if step in self.steps:
            self.frames.append((step, game.samples(5000)[0], game.probability(LINE)[0]))


def draw_game(panel, frame, title):
    """Density of the data, histogram of the samples, and D(x)."""
    step, samples, d = frame
    panel.fill_between(LINE, normal_density(LINE), color=BLUE, alpha=0.25, linewidth=0)
    panel.plot(LINE, normal_density(LINE), color=BLUE, label="p of the data")
    weights = np.full(len(samples), 1 / (len(samples) * 0.2))  # a density, over bins of 0.2
    bins = np.linspace(-5, 5, 51)
    panel.hist(samples, bins, weights=weights, histtype="step", color=ORANGE, linewidth=1.4, label="p of G's samples")
    panel.plot(LINE, d, color="black", label="D(x)")
    panel.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    panel.set(title=f"{title}, {step:,} steps", xlabel="x", xlim=(-5, 5), ylim=(0, 1.1))


def draw_best(panel, p, q, learned, threshold):
    """D* and the threshold, and what D learned by each criterion."""
    panel.fill_between(GRID, p, color=BLUE, alpha=0.25, linewidth=0, label="p, N(−1, 1)")
    panel.fill_between(GRID, q, color=ORANGE, alpha=0.25, linewidth=0, label="q, N(0.5, 0.7²)")
    panel.plot(GRID, best_discriminator(p, q), color="black", linestyle="--", linewidth=2, label="D* = p/(p + q)")
    panel.plot(GRID, learned["logarithms"], color=BLUE, label="learned by logarithms")
    panel.plot(GRID, threshold, color=GREY, linestyle="--", linewidth=2, label="best D of the product")
    panel.plot(GRID, learned["product"], color=ORANGE, label="learned by the product")
    panel.set(title="D against a fixed G", xlabel="x", xlim=(-4.5, 4.5), ylim=(0, 1.75), yticks=np.arange(0, 1.1, 0.25))
    panel.legend(loc="upper center", frameon=False, ncols=2, fontsize=8)


def draw_gradients(panel, a, found):
    """Gradient magnitudes of G's objectives over s."""
    labels = {"minimax": "log(1 − s): s", "non-saturating": "−log s: 1 − s", "literal": "−s: s(1 − s)"}
    s = 1 / (1 + np.exp(-a))
    for (name, label), colour in zip(labels.items(), (BLUE, ORANGE, "black"), strict=True):
        panel.plot(s, found[name], color=colour, label=label)
    panel.set(title="What G feels: |d loss / d logit|", xlabel="s = D(G(z))", xlim=(0, 1), ylim=(0, 1.3))
    panel.legend(loc="upper center", frameon=False, ncols=3, fontsize=8)


def save_film(path, films, titles):
    """Both trainings beside each other, a frame for each part of them."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    writer, legend = PillowWriter(fps=8), None
    with writer.saving(figure, path, dpi=75):
        frames = list(zip(*(film.frames for film in films), strict=False))
        for pair in [*frames, *[frames[-1]] * 6]:  # stay at the end for a while
            for panel, frame, title in zip(panels, pair, titles, strict=True):
                panel.clear()
                draw_game(panel, frame, title)
            legend = legend or figure.legend(*panels[0].get_legend_handles_labels(), **LEGEND_OUTSIDE)
            writer.grab_frame()


# %% [markdown]
# ## Source and improved, measured
#
# A seed counts as good with a mean of -1 ± 0.1, a standard deviation of 1 ± 0.15 and a W1 of at most 0.15. Seeds 0 to
# 4, 10,000 samples each; `--study 5` prints the table again, in about ten minutes on an idle core:
#
#     set-up                                | good   | mean           | sd           | W1, median and worst
#     source, stratified, by logarithms     | 3 of 5 | -1.26 to -0.94 | 0.68 to 1.06 | 0.14, 0.37
#     source, uniform, by logarithms        | 1 of 5 | -1.51 to  1.27 | 0.33 to 0.97 | 0.32, 2.27
#     source, stratified, the lecture's way | 0 of 5 | -1.36 to  1.68 | 0.60 to 1.02 | 0.52, 2.68
#     source, uniform, the lecture's way    | 0 of 5 | -2.20 to  1.29 | 0.06 to 0.84 | 1.23, 2.29
#     improved                              | 5 of 5 | -1.01 to -0.92 | 0.96 to 1.04 | 0.04, 0.14
#     improved, but D of 6-5                | 3 of 5 | -1.02 to -0.95 | 0.93 to 1.29 | 0.13, 0.37
#     improved, but stratified noise        | 3 of 5 | -1.04 to -0.92 | 0.99 to 1.21 | 0.10, 0.22
#     improved, but uniform noise           | 1 of 5 | -1.27 to -0.99 | 0.95 to 1.07 | 0.21, 0.31
#     improved, but lr not lowered          | 5 of 5 | -1.08 to -1.00 | 0.91 to 1.05 | 0.10, 0.14
#     improved, but the source's momentum   | 4 of 5 | -1.06 to -0.88 | 0.87 to 1.06 | 0.10, 0.17
#     improved, but D with a logit          | 2 of 5 | -1.09 to -0.83 | 0.56 to 0.99 | 0.15, 0.38
#
# With stratified noise the source gets mean and width roughly right, but not the shape: look at the histogram. The
# improved set-up changes three things: the noise, N(0, 1), from which a G that is all but linear makes the data; D,
# with 16-16 hidden units instead of 6-5; and the steps, 3,000 of Adam at learning rate 0.005, lowered to 0. Put a
# part back and a seed or more is lost, most with noise from (0, 1). Only with a rate that is not lowered none is, but
# then the median W1 is 0.10, not 0.04: the game tends to circle its equilibrium, not to settle there. The clipped tanh
# may stay: a logit, which is what everyone uses today, did worse here, at these rates.
#
# Five seeds tell 5 of 5 from 1 of 5, but hardly from 4 of 5.


# %%
VARIANTS = {
    "source, stratified, by logarithms": SOURCE,
    "source, uniform, by logarithms": replace(SOURCE, noise="uniform"),
    "source, stratified, the lecture's way": LECTURE,
    "source, uniform, the lecture's way": replace(LECTURE, noise="uniform"),
    "improved": IMPROVED,
    "improved, but D of 6-5": replace(IMPROVED, discriminator_hidden=(6, 5)),
    "improved, but stratified noise": replace(IMPROVED, noise="stratified"),
    "improved, but uniform noise": replace(IMPROVED, noise="uniform"),
    "improved, but lr not lowered": replace(IMPROVED, schedule="constant"),
    "improved, but the source's momentum": replace(
        IMPROVED, optimizer="momentum", lr=SOURCE.lr, schedule="staircase", steps=SOURCE.steps
    ),
    "improved, but D with a logit": replace(IMPROVED, output="logit"),
}


def study(seeds):
    """Where training ends from seeds 0 to ``seeds`` - 1, for every variant."""
    print(f"{'set-up':<38} | good    | mean           | sd           | W1, median and worst")
    for name, setup in VARIANTS.items():
        score = scores(Game(setup, range(seeds)).play())
        (mean_low, sd_low, _), (mean_high, sd_high, worst) = score.min(axis=0), score.max(axis=0)
        print(
            f"{name:<38} | {good(score).sum()} of {seeds:<2} | {mean_low:5.2f} to {mean_high:5.2f} "
            f"| {sd_low:4.2f} to {sd_high:4.2f} | {np.median(score[:, 2]):.2f}, {worst:.2f}",
            flush=True,
        )


# %%
def main():
    parser = argparse.ArgumentParser(
        description="A GAN on N(-1, 1): the source's set-up, an improved one, and D alone."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo-22"), help="folder for the figure and the animation"
    )
    parser.add_argument("--quick", action="store_true", help="two seeds, 500 steps of the source and 1,000 of ours")
    parser.add_argument("--seed", type=whole, default=0, help="the first of five")
    parser.add_argument("--study", type=positive, metavar="N", help="only train every variant from seeds 0 to N - 1")
    options = parser.parse_args()
    if options.study:
        return study(options.study)
    make_folder(parser, options.out)
    count, frames = (2, 12) if options.quick else (5, 24)
    source, improved = SOURCE, IMPROVED
    if options.quick:
        source, improved = replace(source, steps=500, pretraining=300), replace(improved, steps=1_000)
    seeds = range(options.seed, options.seed + count)

    p, q = normal_density(GRID), normal_density(GRID, RIVAL_MEAN, RIVAL_SD)
    best = best_discriminator(p, q)
    value = game_value(best, p, q, SPACING)
    identity = value - (2 * jensen_shannon(p, q, SPACING) - math.log(4))
    steps = 300 if options.quick else 1_500
    learned = {name: train_discriminator(name, options.seed, steps) for name in ("logarithms", "product")}
    threshold, ratio = best_threshold(p, q, SPACING)
    shares = (p + q) / 2 * SPACING  # of data and samples together, at each point of the grid
    errors = {name: float((shares * np.abs(d - best)).sum()) for name, d in learned.items()}
    undecided = {name: float(shares[(d > 0.1) & (d < 0.9)].sum()) for name, d in (learned | {"best": best}).items()}

    logits = np.linspace(-10, 10, 401)
    found = objective_gradients(logits)
    s = 1 / (1 + np.exp(-logits))
    gradient_errors = {name: np.abs(found[name] - MAGNITUDES[name](s)).max() for name in found}

    films, ends = [], []
    for name, setup in (("source", source), ("improved", improved)):
        films.append(Film(setup, frames))
        ends.append(scores(Game(setup, seeds).play(films[-1])))
        for seed, (mean, sd, distance) in zip(seeds, ends[-1], strict=True):
            print(f"{name:<8} seed {seed}: mean {mean:5.2f}, sd {sd:4.2f}, W1 {distance:.3f}")

    def span(column, score):
        return f"{score[:, column].min():.2f} to {score[:, column].max():.2f}"

    def product(d):
        return f"{product_value(d, p, q, SPACING):.4f}"

    equal = game_value(best_discriminator(p, p), p, p, SPACING)
    quick = options.quick
    rows = [
        ("|V(D*) + log 4 - 2 JSD|, by quadrature", "below 1e-5", f"{abs(identity):.1e}"),
        ("V(D*) where p = q", "-1.386294", f"{equal:.6f}"),
        ("V(D*)", "-0.8108", f"{value:.4f}"),
        ("V of D trained by logarithms", "just below V(D*)", f"{game_value(learned['logarithms'], p, q, SPACING):.4f}"),
        ("mean |D - D*|, D trained by logarithms", "below 0.02", f"{errors['logarithms']:.3f}"),
        ("mean |D - D*|, D trained by the product", "above 0.1", f"{errors['product']:.3f}"),
        ("E D(x) (1 - D(G(z))), the product, of D*", "below the next two", product(best)),
        ("the product of D trained by it", "near the next", product(learned["product"])),
        ("the product of the best threshold", "the largest", product(threshold)),
        ("the p/q at which it switches, A/(1 - B)", "0.910", f"{ratio:.3f}"),
        ("share of x with D in (0.1, 0.9), D*", "0.655", f"{undecided['best']:.3f}"),
        ("share of x with D in (0.1, 0.9), by logarithms", "about as many", f"{undecided['logarithms']:.3f}"),
        ("share of x with D in (0.1, 0.9), by the product", "below 0.1", f"{undecided['product']:.3f}"),
        ("gradient of shared D - (of D1 + of D2)", "0.0", f"{shared_gradient_difference(options.seed)}"),
        *((f"|gradient| of {name}, error", "below 1e-12", f"{e:.1e}") for name, e in gradient_errors.items()),
        ("source, mean of the samples", "any" if quick else "-1 ± 0.5", span(0, ends[0])),
        ("source, sd of the samples", "any" if quick else "0.5 to 1.5", span(1, ends[0])),
        ("source, W1", "any" if quick else "above 0.05", span(2, ends[0])),
        ("improved, mean of the samples", "-1 ± 0.5" if quick else "-1 ± 0.1", span(0, ends[1])),
        ("improved, sd of the samples", "1 ± 0.4" if quick else "1 ± 0.15", span(1, ends[1])),
        ("improved, W1", "at most 0.5" if quick else "at most 0.15", span(2, ends[1])),
        ("improved, seeds within all three", "any" if quick else "5 of 5", f"{good(ends[1]).sum()} of {count}"),
    ]
    print()
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<47} | {expected:<18} | {got}")

    figure = Figure(figsize=(14, 7.4), dpi=130, layout="constrained")
    games, alone = figure.subfigures(1, 2, width_ratios=[2, 1])
    panels = games.subplots(2, 2)
    for row, film, name in zip(panels, films, ("source", "improved"), strict=True):
        draw_game(row[0], film.frames[0], f"{name.capitalize()}, seed {options.seed}")
        draw_game(row[1], film.frames[-1], f"{name.capitalize()}, seed {options.seed}")
    games.legend(*panels[0, 0].get_legend_handles_labels(), **LEGEND_OUTSIDE)
    above, below = alone.subplots(2, 1)
    draw_best(above, p, q, learned, threshold)
    draw_gradients(below, logits, found)
    picture, animation = options.out / "gan_one_dimensional.png", options.out / "gan_one_dimensional.gif"
    figure.savefig(picture)
    save_film(animation, films, ("Source", "Improved"))
    print(picture)
    print(animation)


if __name__ == "__main__":
    main()
