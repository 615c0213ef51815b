# %% [markdown]
# # Boltzmann machines, restricted and deep
#
# The lecture names two ancestors of its models, the deep belief network and the deep Boltzmann machine (L03 of the
# ledger). Both are made of the restricted Boltzmann machine (RBM), in which pixels v and hidden units h, all 0 or 1,
# have an energy, and a probability that falls with it:
#
#     p(v, h) = e^-E(v, h) / Z            E(v, h) = -v W h - a v - b h
#
# The links between units have no direction: an *undirected* model, in which neither layer causes the other. Within a
# layer there are none; that is the restriction. So given one layer, the units of the other are independent of each
# other,
#
#     p(h_j = 1 | v) = sigmoid(v W + b)_j          p(v_i = 1 | h) = sigmoid(W h + a)_i,
#
# inference, a problem in directed models, is one line, and so is the sum over all h:
#
#     p(v) = e^-F(v) / Z                  F(v) = -a v - sum_j softplus(v W + b)_j.
#
# The price is Z, a sum over all states of all units. With 784 pixels and 500 hidden units 2^500 terms are left of it,
# even with the sum over all pixels done by a formula. What follows is how to train without it, how to estimate it
# afterwards, and two ways to more layers.
#
# Run it as it is (about 20 minutes on a core), or `--quick` for small machines and three epochs.

# %%
import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Adam, RandomStream, Tensor, figures, ops, runs
from scratchgen.data.dataset import UNLABELLED, keep_labels
from scratchgen.evaluation.partition import (
    all_states,
    annealed_log_partition,
    annealed_log_partition_of_top,
    exact_log_partition,
    reverse_log_partition,
)
from scratchgen.fitting import minimize
from scratchgen.inference import in_batches
from scratchgen.models.dbm import DBMConfig
from scratchgen.models.dbn import DBN, DBNConfig
from scratchgen.models.rbm import RBM, RBMConfig
from scratchgen.models.vae import VAEConfig
from scratchgen.nn import Dense, Sequential
from scratchgen.optim import cosine
from scratchgen.options import add_data_options, load_data, make_folder
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.tasks.dbm import DBMTraining
from scratchgen.tasks.dbn import DBNTraining
from scratchgen.tasks.rbm import RBMTraining
from scratchgen.tasks.vae import VAETraining

parser = argparse.ArgumentParser(description="Restricted Boltzmann machines, deep belief networks, deep machines.")
add_data_options(parser)
parser.add_argument("--out", type=Path, default=Path("runs/demo-03"), help="folder for the figures")
parser.add_argument("--quick", action="store_true", help="small machines and three epochs")
options = parser.parse_args()
make_folder(parser, options.out)
data = load_data(parser, options)


def rows(*found):
    """Print a table: what is compared, what is expected, and what was got."""
    for what, expected, got in [("what", "expected", "got"), *found]:
        print(f"{what:<54} | {expected:<26} | {got}")


# %% [markdown]
# ## A machine that can be enumerated
#
# With 4 pixels and 3 hidden units there are 128 states, and every probability can be written down. The formulas above
# are then compared with sums over the table of p(v, h).

# %%
toy = RBM(RBMConfig(4, 3), rng=0, dtype=np.float64)
draw = np.random.default_rng(3)
for parameter in toy.parameters():
    parameter.write(1.5 * draw.standard_normal(parameter.shape))
v, h = all_states(4), all_states(3)
energies = [toy.energy(Tensor(v), Tensor(np.tile(state, (16, 1)))).data for state in h]
unnormalised = np.exp(-np.stack(energies, axis=1))  # (16, 8), a column for each h
joint = unnormalised / unnormalised.sum()
p_v, given_v, given_h = joint.sum(axis=1), joint / joint.sum(axis=1, keepdims=True), joint / joint.sum(axis=0)


def largest(difference):
    return f"{abs(difference).max():.1e}"


random = RandomStream(0)
rows(
    (
        "log Z, enumerated, less that by the smaller layer",
        "below 1e-10",
        largest(np.log(unnormalised.sum()) - exact_log_partition(toy)),
    ),
    (
        "p(v) less e^-F(v) / Z",
        "below 1e-10",
        largest(p_v - np.exp(-toy.free_energy(Tensor(v)).data - exact_log_partition(toy))),
    ),
    ("E[h|v] less sigmoid(v W + b)", "below 1e-10", largest(given_v @ h - toy.hidden(Tensor(v), random).means.data)),
    ("E[v|h] less sigmoid(W h + a)", "below 1e-10", largest(given_h.T @ v - toy.visible(Tensor(h), random).means.data)),
)

# %% [markdown]
# ## Learning by contrast
#
# The gradient of the log-likelihood has two terms, and Z shows up as an expectation under the model:
#
#     -d log p(v) = dF(v) - E_p[dF(v')]            dF/dW = -v p(h|v),   dF/da = -v,   dF/db = -p(h|v)
#
# Lower the free energy where the data are, raise it where the model's own samples are. Gibbs sampling, h given v and v
# given h in turn, gives such samples, but only after many steps. Contrastive divergence (CD-k: Hinton 2002) begins at
# the data and takes k steps. On the toy the distribution after k steps is a product of 16 x 16 matrices, so the
# expected update is known exactly for each k, and with it how far it is from the gradient. The data here are any
# distribution.

# %%
data_p = draw.dirichlet(np.ones(16))  # the probability of each v in the data
step = (given_v @ given_h.T).T  # (16, 16): a column says where one Gibbs step leads from a v
p_h = toy.hidden(Tensor(v), random).means.data  # (16, 3)


def statistics(weights):
    """E[v p(h|v)], E[v] and E[p(h|v)] over the v of these probabilities (16,), as one vector."""
    return np.concatenate([((v * weights[:, None]).T @ p_h).ravel(), v.T @ weights, p_h.T @ weights])


gradient = statistics(p_v) - statistics(data_p)
steps, errors, p_k = [], [], data_p
for k in range(1, 201):
    p_k = step @ p_k
    if k in (1, 2, 3, 5, 10, 20, 50, 100, 200):
        update = statistics(p_k) - statistics(data_p)
        steps.append(k)
        errors.append(np.linalg.norm(update - gradient) / np.linalg.norm(gradient))

figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
panel = figure.subplots()
panel.loglog(steps, errors, "o-", color="#3f90da")
panel.set(xlabel="k", ylabel="|update − gradient| / |gradient|", title="The expected update of CD-k, exactly")
panel.set_xticks(steps, steps)
panel.minorticks_off()
figure.savefig(options.out / "1_contrast.png")
rows(
    ("error of CD-1's expected update", "not small", f"{errors[0]:.2f}"),
    ("error of CD-200's", "near 0", f"{errors[-1]:.1e}"),
)
print(options.out / "1_contrast.png")

# %% [markdown]
# CD-1 errs by a good part of the gradient, and its error falls with every step. The other way is to let the chains go
# on from one batch to the next, at the hidden states where they were (persistent contrastive divergence: Tieleman
# 2008). The parameters change little in a step, so the chains stay near the model's distribution.
#
# Both on MNIST, with 500 hidden units: the free energy falls where the data are and rises where the chains are.

# %%
HIDDEN, EPOCHS = (64, 3) if options.quick else (500, 20)
ANNEALING = {"annealing_steps": 300 if options.quick else 10_000}  # for log Z, of which more below


def train(config):
    """The model of a run of this configuration, and its test metrics."""
    config = replace(config, data=data.name, data_dir=options.data_dir)
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # its epochs
        summary = runs.start(config, Path(folder) / "run")
        config, model = runs.load_model(Path(folder) / "run")
    return config, model, summary["test"]


def samples(config, model):
    """A hundred pictures (100, D)."""
    return RECIPES[config.model].sample(config, model, 100, np.random.default_rng(0))


machine = RunConfig("rbm", "lesson", RBMConfig(hidden=HIDDEN), RBMTraining(chains=100, **ANNEALING), EPOCHS, 100)
by_cd1 = replace(machine, training=RBMTraining(chains=0, **ANNEALING))
persistent_config, persistent, of_persistent = train(machine)
_, cd1, of_cd1 = train(by_cd1)
rows(
    ("CD-1: nll, nats a test image", "far above", f"{of_cd1['nll']:.1f}"),
    ("chains that go on: nll, nats a test image", "lower", f"{of_persistent['nll']:.1f}"),
    ("CD-1: squared error of a pixel, reconstructed", "as good", f"{of_cd1['reconstruction']:.4f}"),
    ("chains that go on: the same", "as good", f"{of_persistent['reconstruction']:.4f}"),
)

# %% [markdown]
# CD-1 reconstructs as well, though its likelihood is worse by many nats: its chains never went far from the data, so
# nothing has pushed up the free energy of what lies far away, and there the machine believes in pictures that are no
# digits. Longer chains find them. Below, chains of both machines from the same eight test images; then samples of the
# second machine, each at the end of a thousand more steps from where training has left a chain, and what 100 of its
# hidden units look for.

# %%
shape, recipe, counts = data.image_shape, RECIPES["rbm"], (1, 10, 100, 1_000)
seen = recipe.as_seen(persistent_config, data.test.images[:8], "test")
names = ["data", *(f"{k:,}" for k in counts)]
for name, rbm in (("2_chains_cd1.png", cd1), ("3_chains_persistent.png", persistent)):
    chains = recipe.chain(rbm, rbm.hidden(Tensor(seen), random).states, counts, random)
    columns = np.concatenate([seen[:, None], chains], axis=1)
    figures.save_columns(options.out / name, columns, names, shape, "Gibbs steps")
figures.save_samples(
    options.out / "4_samples_persistent.png",
    samples(persistent_config, persistent),
    shape,
    10,
    "samples, persistent chains",
)
weights = persistent.weight.data.T[:100]
figures.save_samples(
    options.out / "5_filters.png", weights / (2 * abs(weights).max()) + 0.5, shape, 10, "weights of hidden units"
)
for path in sorted(options.out.glob("[2-5]_*.png")):
    print(path)

# %% [markdown]
# ## What Z is
#
# The likelihoods above need log Z after all. Annealed importance sampling (Salakhutdinov & Murray 2008) begins with a
# machine whose Z is known, without weights and with the data's mean pixels, and goes to ours through machines whose
# weights and biases lie between. At each step a chain's weight is multiplied by e^-F of its state in the next machine
# over that in the one before, and the mean weight is an unbiased estimate of the ratio of both Z. Its logarithm is too
# low on the average. Chains that go back, from samples of our machine, give one that is too high on the average. So the
# truth lies between the two, but for the errors of both.
#
# For a machine of 20 hidden units Z can be enumerated, over 2^20 states. The chains are 100; the samples for the way
# back are those of the training's chains.

# %%
small_config, small, _ = train(replace(machine, network=RBMConfig(hidden=10 if options.quick else 20), epochs=3))
exact = exact_log_partition(small)
kept = Tensor(small.kept)
below = small.gibbs(kept, 100, random)[0].states.data
lengths = (10, 30, 100, 300) if options.quick else (10, 30, 100, 300, 1_000, 3_000)
lower = [annealed_log_partition(small, 100, length, random) for length in lengths]
upper = [reverse_log_partition(small, below, length, random) for length in lengths]
figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
panel = figure.subplots()
panel.axhline(0, color="#717581", linewidth=1)
for name, found, colour in (("from the base machine", lower, "#3f90da"), ("back to it", upper, "#e76300")):
    errors = [each.log_z - exact for each in found]
    panel.errorbar(lengths, errors, [each.standard_error for each in found], fmt="o-", color=colour, label=name)
panel.set(xscale="log", xlabel="steps of a chain", ylabel="nats", title=f"Estimates of log Z less log Z = {exact:.2f}")
panel.legend(frameon=False)
figure.savefig(options.out / "6_log_z.png")
rows(
    (
        "log Z, 100 chains of so many steps, less the exact",
        "near 0",
        f"{lower[-1].log_z - exact:.3f} ± {lower[-1].standard_error:.3f}",
    ),
    ("back from samples", "near 0", f"{upper[-1].log_z - exact:.3f} ± {upper[-1].standard_error:.3f}"),
)
print(options.out / "6_log_z.png")

# %% [markdown]
# With few steps a few chains have most of the weight, and the error bars, which are made from the spread of the
# weights, are then too small: those of the way back at 30 and 100 steps miss the truth by more than three of them. So
# `scratchgen` says how many chains effectively have the weight; where they are few, take more steps
# (`scratchgen evaluate RUN --annealing-steps N`).
#
# ## The deep belief network
#
# An RBM says p(v) = sum_h p(h) p(v|h), with a p(h) of its own that is not simple. The deep belief network (Hinton,
# Osindero & Teh 2006) keeps p(v|h) and models p(h) anew, by a second RBM whose pixels are the first one's hidden units,
# trained on what the first draws for the data. It begins as the first one upside down: as many hidden units as there
# are pixels, and the same weights, transposed. With that nothing has changed, and a better p(h), which training then
# looks for, raises
#
#     log p(v) >= E_q [log p(v|h) + log p(h) - log q(h|v)],            q(h|v) = p(h|v) of the first RBM.
#
# This is the bound of the VAE (L15), with a trained prior p(h) and an encoder that came for free. The links below the
# top are directed now, downwards. Sampling is a chain of the top RBM, then one pass down. What the bound gains is
# small: 86.34 nats became 85.97 in the paper that measured it (Salakhutdinov & Murray 2008), and an estimate of log Z
# can err by as much. So the chains for log Z of the second RBM go by way of the first one, upside down, as which it
# began and to which it is still near; and all rows begin with the same random numbers.

# %%
PIXELS = data.train.images.shape[1]
layers = DBNTraining(chains=100, layer_epochs=EPOCHS, **ANNEALING)
network = RunConfig("dbn", "lesson", DBNConfig(hidden=(HIDDEN, PIXELS)), layers, 2 * EPOCHS, 100)
dbn_config, dbn, of_dbn = train(network)
upside_down = DBN(DBNConfig(PIXELS, (HIDDEN, PIXELS)), rng=0)
upside_down.rbms[0].load_state_dict(dbn.rbms[0].state_dict())
upside_down.begin(1)
test = RECIPES["dbn"].as_seen(dbn_config, data.test.images, "test")


def bound(network, depth):
    """The bound of so many layers, in nats a test image; log Z is by the same random numbers each time."""
    network.depth = depth
    (found,) = in_batches(lambda v: (network.log_weights(v, random),), test, size=1_000)
    log_z = annealed_log_partition_of_top(network, 100, ANNEALING["annealing_steps"], RandomStream(1)).log_z
    return log_z - found.mean(dtype=np.float64)


rows(
    ("its first RBM alone: nll, nats a test image", "to compare", f"{bound(dbn, 1):.2f}"),
    ("with the same RBM upside down above it: bound", "the same", f"{bound(upside_down, 2):.2f}"),
    ("DBN, its second layer trained: bound", "lower", f"{bound(dbn, 2):.2f}"),
    (
        f"what {of_dbn['samples']} importance weights take off the bound",
        "above 0",
        f"{of_dbn['neg_bound'] - of_dbn['nll']:.2f}",
    ),
)
figures.save_samples(
    options.out / "7_samples_dbn.png", samples(dbn_config, dbn), shape, 10, "samples of the deep belief network"
)
print(options.out / "7_samples_dbn.png")

# %% [markdown]
# What made these networks famous is that they also are a good start for a classifier: its hidden layers are the RBMs',
# with one more layer for the classes, and all of it is trained on by back-propagation. With 1,000 labels (L11's
# question again), beside the same network from random weights. That one is given an advantage, the best of three
# learning rates by the test images themselves:

# %%
CLASSES, COUNT = 10, 1_000 if data.name == "mnist" else 50  # strokes are easier
rng = np.random.default_rng(0)
given = keep_labels(data.train, COUNT, rng).labels
known = given != UNLABELLED


def classifier(pretrained):
    """Images (n, D) to logits (n, 10): the network's hidden layers with the RBMs' weights, or random ones."""
    sizes = (PIXELS, HIDDEN, PIXELS)
    layers = [Dense(i, o, rng, "sigmoid") for i, o in pairwise(sizes)]
    if pretrained:
        for layer, rbm in zip(layers, dbn.rbms, strict=True):
            layer.weight.write(rbm.weight.data)
            layer.bias.write(rbm.hidden_bias.data)
    return Sequential(*layers, Dense(PIXELS, CLASSES, rng))


def accuracy(model, lr, taken):
    """Of test images, after training on those with labels."""
    minimize(
        lambda x, y: ops.softmax_cross_entropy(model(Tensor.wrap(x)), y).mean(),
        Adam(model, lr=cosine(lr, taken)),
        data.train.images[known],
        given[known],
        rng=rng,
        steps=taken,
        batch_size=50,
        name="classifier",
    )
    (logits,) = in_batches(lambda x: (model(x),), data.test.images, size=1_000)
    return 100 * float((logits.argmax(axis=1) == data.test.labels).mean())


taken = 300 if options.quick else 1_000
scratch = max(accuracy(classifier(False), lr, taken) for lr in (3e-4, 1e-3, 3e-3))
tuned = accuracy(classifier(True), 1e-3, taken)
rows(
    (f"{COUNT:,} labels, from random weights, the best of 3 rates", "to compare", f"{scratch:.2f} %"),
    ("from the deep belief network", "better", f"{tuned:.2f} %"),
)

# %% [markdown]
# ## The deep Boltzmann machine
#
# The deep Boltzmann machine (Salakhutdinov & Hinton 2009) adds a layer and leaves all links undirected:
#
#     E(v, h1, h2) = -v W1 h1 - h1 W2 h2 - a v - b1 h1 - b2 h2
#
# What a unit of h1 does depends on both sides, on the pixels and on what h2 makes of them. So given v the hidden units
# are no longer independent, and inference has a price again. Mean field looks for the independent units q nearest to
# p(h1, h2 | v): their means are updated in turn, each update raises the bound
#
#     log p(v) >= -E_q[E] + H(q) - log Z,
#
# and five updates of each layer are nearly enough. The gradient is as before, with these means for the data and Gibbs
# chains of all three layers for the model.
#
# The layers are hard to train at once. A unit of h1 that is on half of the time acts on each pixel and each unit of h2
# like a bias, and the gradient of a weight has more to do with such means than with how the units on its two sides vary
# together. The paper's remedy is to begin with two RBMs, trained one after the other. In each of them h1 has inputs
# from one side only, which therefore count twice: sigmoid(2 v W1 + b1) in the first. A later paper takes the means c,
# d1 and d2 of the layers out of the energy (Montavon & Mueller 2012):
#
#     E = -(v - c) W1 (h1 - d1) - (h1 - d1) W2 (h2 - d2) - a' v - b1' h1 - b2' h2 + constant
#
# It describes the same machines, for the means only move the biases: a = a' - W1 d1, and so on. But a gradient step in
# these parameters goes in another direction, so that training works from random weights, and at a learning rate of 0.1
# instead of 0.001. Below are both ways; the second also has 400 chains, not 100, and one Gibbs step a batch, not five,
# so not all of the difference is due to the centring.

# %%
EARLY = 1 if options.quick else 5
centered = RunConfig(
    "dbm", "lesson", DBMConfig(hidden=(HIDDEN, HIDDEN)), DBMTraining(chains=400, lr=0.1, **ANNEALING), EPOCHS, 100
)
by_the_paper = replace(RECIPES["dbm"].configs["pretrained"].training, pretraining_epochs=EARLY, **ANNEALING)
_, _, of_pretrained = train(replace(centered, training=by_the_paper, epochs=EPOCHS + 2 * EARLY))
dbm_config, dbm, of_dbm = train(centered)
images = RECIPES["dbm"].as_seen(dbm_config, data.test.images[:1_000], "test")
mean_fields = [
    float(dbm.variational_free_energy(dbm.mean_field(Tensor(images), updates)).data.mean()) for updates in (0, 1, 5, 50)
]
rows(
    ("DBM, pretrained, by the plain gradient: bound, nats", "to compare", f"{of_pretrained['neg_bound']:.1f}"),
    ("DBM, by the centred energy from the start: bound", "lower", f"{of_dbm['neg_bound']:.1f}"),
    ("the bound lost by 0 updates instead of 50", "above 0", f"{mean_fields[0] - mean_fields[-1]:.2f}"),
    ("by 1 update", "above 0, less", f"{mean_fields[1] - mean_fields[-1]:.2f}"),
    ("by 5 updates, as in training", "near 0", f"{mean_fields[2] - mean_fields[-1]:.4f}"),
)
figures.save_samples(
    options.out / "8_samples_dbm.png", samples(dbm_config, dbm), shape, 10, "samples of the deep Boltzmann machine"
)
print(options.out / "8_samples_dbm.png")

# %% [markdown]
# ## Where the VAE came in
#
# The same binarised test images, in nats, and a VAE with one layer of as many hidden units on either side. Of the RBM
# the figure is -log p(v), of the others a bound on it.

# %%
vae = RunConfig(
    "vae",
    "lesson",
    VAEConfig(latent_dim=50, encoder_hidden=(HIDDEN,), decoder_hidden=(HIDDEN,)),
    VAETraining(schedule="cosine", binarize="dynamic", output_bias=True),
    EPOCHS,
    100,
)
vae_config, _, of_vae = train(vae)
print(f"{'model':<6} | {'epochs':<6} | {'nats a test image':<18} | {'log Z (effective chains)':<32} | a sample takes")
for name, config, nats, found in (
    ("RBM", persistent_config, of_persistent["nll"], of_persistent),
    ("DBN", dbn_config, of_dbn["neg_bound"], of_dbn),
    ("DBM", dbm_config, of_dbm["neg_bound"], of_dbm),
):
    effectively = f"{found['effective_sample_size']:.0f} of {found['annealed_chains']}"
    log_z = f"{found['log_z']:.1f} ± {found['log_z_error']:.1f} ({effectively})"
    print(f"{name:<6} | {config.epochs:<6} | {nats:<18.1f} | {log_z:<32} | a long Markov chain")
print(
    f"{'VAE':<6} | {EPOCHS:<6} | {of_vae['neg_elbo']:<18.1f} | {'none: p(v|z) sums to 1':<32} | one pass of the decoder"
)

# %% [markdown]
# The belief network is a little ahead of the RBM, and the deep machine far ahead of both: the RBM alone takes sixty
# epochs to get there ([RESULTS](RESULTS.md)). All three are ahead of this VAE.
#
# Each of the machines' figures rests on an estimate of log Z, each gradient on chains that may not mix, and each sample
# on a long chain. The VAE (L15) gives up the undirected links: its decoder is a directed network, p(z) p(x|z),
# normalised by construction, and what was lost with the easy p(h|v) is made up by an encoder, trained along with it by
# one gradient. What longer trainings reach is among the [reproduced figures](../papers/README.md).
