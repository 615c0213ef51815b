# %% [markdown]
# # Autoencoders: codes, and features learned without labels
#
# An autoencoder (L10 of the ledger) is an encoder f, which turns an image x of D pixels into a code z of k numbers, and
# a decoder g, which turns the code back into an image. Both are trained together to lower
#
#     1/n sum_i |x_i - g(f(x_i))|²                                                                      (L10)
#
# With k far below D the image cannot just be copied through. No label is needed, and no probability: unlike the
# lecture's later models, an autoencoder says nothing of how its codes are distributed, so it cannot draw images.
#
# The lecture shows two pictures of it: an autoencoder for features, and one for classification. Here both become
# numbers:
#
# - without activations, it can at best be principal component analysis (PCA), and training finds that;
# - with activations, its error is lower with as many numbers in the code;
# - its encoder, trained on all images without labels, helps when only 1,000 labels are known (L11).

# %%
import argparse
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Adam, RandomStream, Tensor, ops
from scratchgen.data.dataset import UNLABELLED, Split, keep_labels
from scratchgen.fitting import minimize
from scratchgen.inference import in_batches
from scratchgen.models.linear import LogisticRegression
from scratchgen.models.pca import PCA, principal_angles
from scratchgen.nn import Dense, Dropout, Sequential, mlp
from scratchgen.optim import cosine
from scratchgen.options import add_data_options, load_data, make_folder, whole


@dataclass(frozen=True)
class Settings:
    """How many images there are, and how many training steps each network takes."""

    images: int = 60_000
    codes: tuple[int, ...] = (2, 8, 32)  # k
    linear_steps: int = 3_000
    steps: int = 3_600
    feature_steps: int = 3_600
    probe_steps: int = 2_000
    classifier_steps: int = 600
    subsets: int = 3  # of the labels


CLASSES = 10
FULL = Settings()
QUICK = Settings(6_000, (2, 8), 600, 400, 300, 500, 300, subsets=1)

# %% [markdown]
# ## Training
#
# Every network below is trained by the same few lines: random batches of 100 images, and Adam, whose rate falls from
# `lr` to 0 as half a cosine. An autoencoder's target is its own input. (Some pixels of the input may be missing;
# the reason is given below.)


# %%
def network(sizes, rng):
    """Dense layers of the given sizes, with relu between them and nothing after the last."""
    *hidden, outputs = sizes
    return Sequential(*mlp(hidden, "relu", rng).layers, Dense(hidden[-1], outputs, rng))


def train_autoencoder(encoder, decoder, images, steps, lr, rng, loss=ops.squared_error, missing=0.0):
    """Train both on images (n, D). A pixel of the input is 0 with probability ``missing``, or else scaled up."""
    model = Sequential(Dropout(missing), encoder, decoder)
    model.set_random(RandomStream(rng))
    minimize(
        lambda x: loss(model(Tensor.wrap(x)), x).mean(),
        Adam(model, lr=cosine(lr, steps)),
        images,
        rng=rng,
        steps=steps,
        batch_size=100,
        name="autoencoder",
    )


def apply(model, rows):
    """What a network makes of rows (n, d)."""
    return in_batches(lambda x: (model(x),), rows, size=1_000)[0]


def error(images, reconstructions):
    """The mean over images (n, D) of |x - x'|², a sum over the pixels."""
    return float(((images - reconstructions) ** 2).sum(axis=1, dtype=np.float64).mean())


# %% [markdown]
# ## The linear autoencoder is PCA
#
# Let f and g be affine: 784-k-784 without activations. Then g(f(x)) is an affine map of rank k. By Eckart & Young
# (1936) the best one projects onto the plane through the mean of the data along the k eigenvectors of their covariance
# with the largest eigenvalues λ_1 >= λ_2 >= ... This is PCA. On the data that it is fitted to its error is
#
#     1/n sum_i |x_i - x_i'|²  =  λ_(k+1) + ... + λ_D,
#
# all that it discards.
#
# The loss is not convex in the weights, but every stationary point other than the minimum is a saddle (Baldi &
# Hornik 1989), so gradient descent can find it.
#
# What it finds is PCA's *subspace*, not PCA's axes: for any invertible matrix A, the code A z and the decoder g(A⁻¹ ·)
# have the same error. Two subspaces are compared by their k principal angles, which are all 0 if they are the same. The
# largest of them converge last and matter least. If axis i is turned by the angle θ towards a discarded axis j, the
# error rises by sin²θ (λ_i - λ_j), and neighbouring eigenvalues around k = 32 differ by a few per cent.


# %%
def truncated(pca, images, k):
    """PCA's reconstructions (n, D) of images (n, D) from the first k numbers of their codes."""
    return pca.decode(pca.encode(images) * (np.arange(pca.components) < k))


def study_linear(pca, images, new, k, steps, rng):
    """PCA beside a trained 784-k-784: the table's rows, the latter's error, and its decoder's directions (k, D)."""
    encoder, decoder = Dense(images.shape[1], k, rng), Dense(k, images.shape[1], rng)
    train_autoencoder(encoder, decoder, images, steps, lr=1e-2, rng=rng)
    least, got = error(new, truncated(pca, new, k)), error(new, apply(Sequential(encoder, decoder), new))
    directions = decoder.weight.data  # an output of the decoder is its bias and a combination of these rows
    angles = principal_angles(directions, pca.directions[:k])
    axes = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    nearest = np.abs(axes @ pca.directions[:k].T).max(axis=1)
    off = error(images, truncated(pca, images, k)) / pca.variances[k:].sum() - 1
    rows = [
        ("PCA, |error on its data / Σ λ - 1|", "below 1e-10", f"{abs(off):.1e}"),
        (f"linear, k = {k}, error", "PCA's within 1 %", f"{got:.3f}"),
        ("linear, error above PCA's", "below 1 %", f"{100 * (got / least - 1):.2f} %"),
        ("median principal angle between them", "near 0°", f"{np.median(angles):.2f}°"),
        ("largest principal angle between them", "not determined", f"{angles[-1]:.2f}°"),
        ("|cosine| of an axis and PCA's nearest, mean", "far below 1", f"{nearest.mean():.2f}"),
    ]
    return rows, got, directions


# %% [markdown]
# ## A nonlinear autoencoder
#
# With hidden layers, 784-256-128-k-128-256-784 with relu, the decoder's images are no longer a plane but a curved
# surface of k dimensions, which can bend along the data. The code has no activation: relu would allow no negative
# numbers.


# %%
def study_nonlinear(pca, images, new, settings, rng):
    """By k, the reconstructions of new images by PCA and by the autoencoder, (n, D) each."""
    found = {}
    for k in settings.codes:
        sizes = (images.shape[1], 256, 128, k)
        encoder, decoder = network(sizes, rng), network(sizes[::-1], rng)
        train_autoencoder(encoder, decoder, images, settings.steps, lr=2e-3, rng=rng)
        found[k] = truncated(pca, new, k), apply(Sequential(encoder, decoder), new)
    return found


# %% [markdown]
# ## Features for a classifier that has few labels
#
# Suppose that only 1,000 of the 60,000 training images have labels, a hundred of each class. A network 784-512-256-10
# can be trained on these alone. Or its first two layers are the encoder of an autoencoder, trained on all 60,000 images
# without labels (L11). Then comes
#
# - a *probe*: a linear classifier is trained on the 256 features, and the encoder stays as it is;
# - *fine-tuning*: encoder and probe, now one network, are trained on, exactly as the network from scratch is.
#
# A plain autoencoder with a code of 256 numbers nearly copies the image, and what is good for copying need not be good
# for telling digits apart. A denoising autoencoder (Vincent et al. 2010) cannot just copy: in each step half of the
# input pixels, chosen at random, are set to 0, but the target is the whole image. To fill in a stroke, the encoder has
# to know how strokes run. Both are trained here, alike but for this. As in that paper, the loss is the cross-entropy
# of pixels in [0, 1].
#
# The comparison is fair only if the others get the same chances. All have the same labels, and use all of them to
# train: nothing is stopped early. All probes have the same training, and so have all networks, at the rate that is best
# for the one from scratch (of 3e-4, 1e-3 and 3e-3). This rate, the cross-entropy (instead of the squared error, whose
# features gave probes 2.4 points worse) and the half (instead of a quarter, 1.7 points worse) are the best on 10,000
# training images that are not among the 1,000. To be exact: they were first chosen with an eye on test images, and
# found best on those others afterwards. Each subset of labels comes with other random weights. A probe on the features
# of an untrained encoder shows what the architecture gives by itself, a probe on pixels what no network gives.

# %%
LABELS = {"mnist": 1_000, "strokes": 50}  # strokes, digits drawn by a program, are easier
KINDS = (
    "probe, pixels",
    "probe, random encoder",
    "probe, plain autoencoder",
    "probe, denoising autoencoder",
    "from scratch",
    "fine-tuned plain autoencoder",
    "fine-tuned denoising autoencoder",
)


def feature_encoder(pixels, rng):
    """Features (n, 256), each relu, of images (n, pixels)."""
    return mlp((pixels, 512, 256), "relu", rng)


def pretrain(images, steps, missing, rng):
    """The encoder of an autoencoder that was trained on images (n, D), without labels."""
    encoder, decoder = feature_encoder(images.shape[1], rng), network((256, 512, images.shape[1]), rng)
    train_autoencoder(encoder, decoder, images, steps, lr=2e-3, rng=rng, loss=ops.bce_with_logits, missing=missing)
    return encoder


def probe(encoder, x, labels, steps, rng):
    """The encoder and, fitted to images x (n, D) and labels (n,), a linear classifier of its features."""
    features = apply(encoder, x)
    scale = features.std()  # one number, so that the penalty means the same for every kind of feature
    fitted = LogisticRegression(features.shape[1], CLASSES, l2=0.01).fit(features / scale, labels, rng, steps)
    layer = Dense(features.shape[1], CLASSES, rng)
    layer.weight.write(fitted.linear.weight.data / scale)
    layer.bias.write(fitted.linear.bias.data)
    return Sequential(encoder, layer)


def train_classifier(model, x, labels, steps, rng, lr=3e-3):
    """Train all of a network, from images x (n, D) to the logits of their labels (n,)."""
    minimize(
        lambda x, labels: ops.softmax_cross_entropy(model(Tensor.wrap(x)), labels).mean(),
        Adam(model, lr=cosine(lr, steps)),
        x,
        labels,
        rng=rng,
        steps=steps,
        batch_size=50,
        name="classifier",
    )
    return model


def classifiers(plain, denoising, x, labels, settings, rng):
    """A network from images to logits of each kind, from two trained encoders, and images x (n, D) with labels (n,)."""
    encoders = Sequential(), feature_encoder(x.shape[1], rng), plain, denoising  # the first is the identity
    probes = [probe(encoder, x, labels, settings.probe_steps, rng) for encoder in encoders]
    scratch = Sequential(feature_encoder(x.shape[1], rng), Dense(256, CLASSES, rng))
    starts = scratch, deepcopy(probes[2]), deepcopy(probes[3])
    tuned = [train_classifier(model, x, labels, settings.classifier_steps, rng) for model in starts]
    return dict(zip(KINDS, probes + tuned, strict=True))


def accuracy(model, split):
    """The share of a split's images that are classified right."""
    return float((apply(model, split.images).argmax(axis=1) == split.labels).mean())


def study_features(train, test, count, settings, rng):
    """The accuracies on test images (subsets,) of each kind of classifier, trained with ``count`` labels."""
    encoders = [pretrain(train.images, settings.feature_steps, missing, rng) for missing in (0.0, 0.5)]
    found = {kind: [] for kind in KINDS}
    for _ in range(settings.subsets):
        labels = keep_labels(train, count, rng).labels
        known = labels != UNLABELLED
        for kind, model in classifiers(*encoders, train.images[known], labels[known], settings, rng).items():
            found[kind].append(accuracy(model, test))
    return {kind: np.array(accuracies) for kind, accuracies in found.items()}


# %% [markdown]
# ## The figures

# %%
BLUE, ORANGE, GRAY = "#3f90da", "#e76300", "#717581"


def draw_errors(figure, pca, new, found, linear, directions):
    """Errors by the size of the code, and the principal angles of the linear decoder (k, D)."""
    curve, angles = figure.subplots(1, 2, width_ratios=[1.3, 1])
    sizes = np.arange(1, pca.components + 1)
    squares = (pca.encode(new) ** 2).mean(axis=0).cumsum()  # what each more number of the code explains
    curve.plot(sizes, error(new, pca.mean) - squares, color=GRAY, label="PCA")
    curve.plot(len(directions), linear, "o", color=ORANGE, label="linear autoencoder")
    errors = [error(new, ours) for _, ours in found.values()]
    curve.plot(list(found), errors, "s-", color=BLUE, label="nonlinear autoencoder")
    curve.set(title="Reconstruction error of test images", xlabel="k, numbers in the code", ylabel="mean of |x − x′|²")
    curve.set(xscale="log", ylim=(0, None))
    curve.set_xticks([1, *found, pca.components], [1, *found, pca.components])
    curve.minorticks_off()
    curve.legend(frameon=False)
    degrees = principal_angles(directions, pca.directions[: len(directions)])
    angles.plot(np.arange(1, len(degrees) + 1), degrees, "o", color=ORANGE, markersize=4)
    angles.set(title="Linear autoencoder and PCA", xlabel="number of the angle", ylabel="principal angle, degrees")
    angles.set_ylim(-2, 92)
    angles.set_yticks(range(0, 91, 30))


def draw_reconstructions(figure, images, found, shape):
    """Images (10, D) above what PCA and the autoencoder make of them, by the size of the code."""
    rows = {"test image": images}
    for k, (plain, ours) in found.items():
        rows |= {f"PCA, k = {k}": plain, f"nonlinear, k = {k}": ours}
    tiles = np.stack(list(rows.values())).reshape(len(rows), 10, *shape)
    panel = figure.subplots()
    panel.imshow(tiles.swapaxes(1, 2).reshape(len(rows) * shape[0], -1), cmap="gray_r", vmin=0, vmax=1)
    panel.set_yticks(shape[0] * (np.arange(len(rows)) + 0.5), rows)
    panel.set_xticks([])
    panel.tick_params(length=0)


def draw_features(figure, accuracies, count):
    """Test accuracies of each kind of classifier, a dot a subset of labels, and their median."""
    panel = figure.subplots()
    for place, (kind, values) in enumerate(accuracies.items()):
        color = BLUE if "denoising" in kind else ORANGE if "plain" in kind else GRAY
        median = 100 * np.median(values)
        panel.plot(100 * values, np.full(len(values), place), "o", color=color, alpha=0.6)
        panel.plot(median, place, "|", color="black", markersize=14)
        panel.annotate(f"{median:.1f}", (median, place - 0.27), ha="center")
    panel.set_yticks(range(len(KINDS)), KINDS)
    panel.set_ylim(len(KINDS) - 0.6, -0.8)
    panel.set(title=f"{count:,} labels", xlabel="test images classified right, %: subsets of labels, and their median")
    panel.grid(axis="x", linewidth=0.4)


# %% [markdown]
# ## Expected beside got
#
# All errors but the first, and all accuracies, are of test images.
#
# - The linear autoencoder comes within 1 % of PCA's error (L10), though its axes are not PCA's, and its last principal
#   angles need not be small.
# - The nonlinear autoencoder's error is lower at each k.
# - With 1,000 labels, a probe on the denoising autoencoder is at least 5 points better than one on the random encoder,
#   and the fine-tuned network is better than the same network from scratch (L11). The probe alone need not be: it has
#   256 features and a linear classifier, against a whole network.
# - For the plain autoencoder nothing is promised: a code that copies well need not classify well.


# %%
def main():
    parser = argparse.ArgumentParser(description="Autoencoders beside PCA, and their features for few labels.")
    add_data_options(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-10"), help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, fewer steps, one subset")
    parser.add_argument("--seed", type=whole, default=0)
    options = parser.parse_args()
    make_folder(parser, options.out)
    data = load_data(parser, options)
    settings, rng = QUICK if options.quick else FULL, np.random.default_rng(options.seed)
    train = Split(data.train.images[: settings.images], data.train.labels[: settings.images])
    test, k = data.test, settings.codes[-1]

    pca = PCA(64).fit(train.images)
    rows, linear, directions = study_linear(pca, train.images, test.images, k, settings.linear_steps, rng)
    found = study_nonlinear(pca, train.images, test.images, settings, rng)
    for size, (plain, ours) in found.items():
        rows.append((f"PCA, k = {size}, error", "to compare", f"{error(test.images, plain):.3f}"))
        rows.append((f"nonlinear, k = {size}, error", "below PCA's", f"{error(test.images, ours):.3f}"))
    count, least_gain = LABELS[data.name], "5 or more" if data.name == "mnist" else "above 0"
    accuracies = study_features(train, test, count, settings, rng)
    medians = {kind: 100 * float(np.median(values)) for kind, values in accuracies.items()}
    rows += [(f"{kind}, right", "to compare", f"{median:.2f} %") for kind, median in medians.items()]
    for what, expected, kind, other in (
        ("probe: denoising above random encoder", least_gain, "probe, denoising autoencoder", "probe, random encoder"),
        ("fine-tuned denoising above from scratch", "above 0", "fine-tuned denoising autoencoder", "from scratch"),
        ("probe: denoising above from scratch", "not known", "probe, denoising autoencoder", "from scratch"),
        ("fine-tuned plain above from scratch", "not known", "fine-tuned plain autoencoder", "from scratch"),
    ):
        rows.append((what, expected, f"{medians[kind] - medians[other]:.2f}"))
    print(f"{len(train):,} images, {count:,} labels")
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<43} | {expected:<18} | {got}")

    shown = [int(np.flatnonzero(test.labels == digit)[0]) for digit in range(10)]  # the first of each digit
    pictures = {size: [kind[shown] for kind in kinds] for size, kinds in found.items()}
    figures = [
        (draw_errors, (11, 4.2), (pca, test.images, found, linear, directions)),
        (draw_reconstructions, (9, 0.6 + 1.5 * len(found)), (test.images[shown], pictures, data.image_shape)),
        (draw_features, (9, 4), (accuracies, count)),
    ]
    for number, (draw, size, arguments) in enumerate(figures, start=1):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        draw(figure, *arguments)
        path = options.out / f"{number}_{draw.__name__.removeprefix('draw_')}.png"
        figure.savefig(path, bbox_inches="tight")  # with the names of the rows
        print(path)


if __name__ == "__main__":
    main()
