# %% [markdown]
# # A latent digit: why the two halves of a picture agree
#
# Before a model draws a picture, says the lecture, it first draws a digit z from 0..9, and then makes all strokes fit
# it (L05 of the ledger). z is *latent*: the picture does not say which z it came from. Bayes' rule says how probable
# each z is (L06). This lesson takes the smallest such model of pictures x of 28 x 28 binary pixels,
#
#     p(x) = sum_z p(z) p(x|z),        p(x|z) = prod_d t_zd^x_d (1 - t_zd)^(1 - x_d)                         (L05)
#
# a mixture of Bernoulli templates: t_zd is the probability that pixel d is on, given z. Everything about it is exact:
# the density, p(z|x), and the distribution of half a picture given the other half. In the VAE of lesson 15, z becomes a
# vector, and a network takes the place of the templates.

# %%
import argparse
import itertools
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from scratchgen.judge import load_judge
from scratchgen.models.bernoulli_mixture import BernoulliMixture
from scratchgen.options import add_data_options, load_data, make_folder, whole

# %% [markdown]
# ## From R to R^10000
#
# Why a latent variable? In R, a histogram of the data is a fine estimate of p(x). In R^10000, little of what we know of
# space from drawings is left:
#
# - Draws of N(0, I) lie near a sphere: |x| has the mean sqrt(2) Γ((d + 1)/2) / Γ(d/2), near sqrt(d), and a standard
#   deviation near 1/sqrt(2), however large d is. The density is largest at 0, where no draw comes.
# - All points are almost equally far apart. From one draw of N(0, I), the distances to n others have a mean near
#   sqrt(2d) and a standard deviation near sqrt(3)/2. So for large d the farthest is (sqrt(2d) + c) / (sqrt(2d) - c)
#   times as far as the nearest, where c / (sqrt(3)/2) = Φ⁻¹(2^(-1/n)) is the median of the largest of n normals.
# - A ball's volume is at its surface: the outer tenth of the radius holds 1 - 0.9^d of it.
# - The ball inside a cube fills π^(d/2) / (2^d Γ(d/2 + 1)) of it. From d = 20 or so, uniform draws from the cube never
#   hit it, nor do random pixels ever show a digit. A model has to say where in the cube the digits are.


# %%
DIMENSIONS = (1, 2, 10, 100, 1_000, 10_000)
NEIGHBOURS = 1000


def theory(d):
    """In R^d: mean and sd of |x| for N(0, I), farthest / nearest, share of a ball's outer tenth, ball / cube."""
    mean = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    c = math.sqrt(3) / 2 * NormalDist().inv_cdf(2 ** (-1 / NEIGHBOURS))
    ratio = (math.sqrt(2 * d) + c) / (math.sqrt(2 * d) - c) if d >= 100 else math.nan
    ball = math.exp(d / 2 * math.log(math.pi) - d * math.log(2) - math.lgamma(d / 2 + 1))
    return mean, math.sqrt(d - mean**2), ratio, 1 - 0.9**d, ball


def far_over_near(d, rng, queries=20):
    """Distance of the farthest of ``NEIGHBOURS`` draws of N(0, I) over that of the nearest; median of some queries."""
    points = rng.standard_normal((NEIGHBOURS, d))
    distances = [np.linalg.norm(points - query, axis=1) for query in rng.standard_normal((queries, d))]
    return float(np.median([each.max() / each.min() for each in distances]))


def measure(d, n, rng):
    """What ``theory`` says, from n draws, and the draws of |x|.

    A uniform point of the sphere in R^(d + 2), without two of its coordinates, is uniform in the ball of R^d.
    """
    normal = rng.standard_normal((n, d + 2))
    norms = np.linalg.norm(normal[:, :d], axis=1)
    in_ball = norms / np.linalg.norm(normal, axis=1)
    in_cube = np.linalg.norm(rng.uniform(-1, 1, (n, d)), axis=1)
    return norms.mean(), norms.std(), far_over_near(d, rng), (in_ball > 0.9).mean(), (in_cube < 1).mean(), norms


def study_dimensions(quick, rng):
    """The measurements by d, printed beside theory, and rows of the last table."""
    results = {d: measure(d, min(100_000, (4_000_000 if quick else 20_000_000) // d), rng) for d in DIMENSIONS}
    print("theory, then measured:")
    heads = ("mean of |x|", "sd of |x|", "farthest / nearest", "outer tenth", "ball / cube")
    print(f"{'d':>6}" + "".join(f"{head:>20}" for head in heads))
    for d in DIMENSIONS:
        pairs = zip(theory(d), results[d][:5], strict=True)
        print(f"{d:6}" + "".join(f"{'-' if math.isnan(a) else f'{a:.4g}':>11}{b:9.4g}" for a, b in pairs))
    names = [(10_000, 0, "mean of |x|, R^10000"), (10_000, 1, "sd of |x|, R^10000")]
    names += [(10_000, 2, "farthest / nearest, R^10000"), (10, 3, "outer tenth, R^10"), (10, 4, "ball / cube, R^10")]
    return results, [(name, f"{theory(d)[i]:.5g}", f"{results[d][i]:.5g}") for d, i, name in names]


# %% [markdown]
# ## Cat or not
#
# The lecture's example: z = 1 if the picture x shows a cat. One picture in three does, p(z=1) = 1/3. Then
#
#     p(z|x) = p(x|z) p(z) / p(x),        p(x) = sum_z p(x|z) p(z)                                           (L06)
#
# Here x has 3 x 3 pixels, so the joint p(x, z) is a table of 512 x 2 numbers, and p(z|x) is a row of it divided by its
# sum. Bayes' rule must say the same.
#
# The lecture writes P(z)=1 below a picture that is surely a cat, and P(z)=0.1 below one that resembles a cat. These are
# *posteriors*: P(z=1|x)=1. The prior P(z=1) stays 1/3 whatever we look at, and is their mean, sum_x p(x) P(z=1|x). A
# posterior is exactly 1 only where p(x|z=0) = 0, that is, if nothing else ever looks like this.


# %%
CAT = np.array([0.9, 0.1, 0.9, 0.8, 0.9, 0.8, 0.2, 0.7, 0.2])  # two ears, a broad face, a chin
OTHER = np.array([0.3, 0.4, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])


def cat_model():
    """The mixture of z = 0, no cat, and z = 1, a cat."""
    model = BernoulliMixture(2)
    model.log_weights, model.templates = np.log([2 / 3, 1 / 3]), np.stack([OTHER, CAT])
    return model


def joint_table(weights, templates):
    """All 2^D pictures x (2^D, D), and p(x, z) (2^D, K) as plain products."""
    x = np.array(list(itertools.product((0.0, 1.0), repeat=templates.shape[1])))
    return x, weights * np.where(x[:, None], templates, 1 - templates).prod(axis=2)


def cats_among(model, low, high, rng, n=200_000):
    """Of draws (x, z) with low < P(z=1|x) < high: the mean of P(z=1|x), the share of cats, and its standard error."""
    x, z = model.sample(n, rng)
    posterior = model.posterior(x)[:, 1]
    chosen = (posterior > low) & (posterior < high)
    mean = posterior[chosen].mean()
    return mean, z[chosen].mean(), math.sqrt(mean * (1 - mean) / chosen.sum())


def study_cats(rng):
    """Rows of the last table; prints the picture most like a cat, the least, and one of P(z=1|x) near 0.1."""
    model = cat_model()
    x, table = joint_table(np.exp(model.log_weights), model.templates)
    posterior = model.posterior(x)
    cat = posterior[:, 1]
    chosen = [cat.argmax(), cat.argmin(), np.abs(cat - 0.1).argmin()]
    print("\nP(z=1|x):" + "".join(f"{cat[i]:>12.5f}" for i in chosen))
    for row in range(0, 9, 3):
        print(" " * 9 + "".join(f"{''.join('.#'[int(on)] for on in x[i, row : row + 3]):>12}" for i in chosen))
    mean, share, error = cats_among(model, 0.4, 0.6, rng)
    return [
        ("Bayes' rule - enumeration", "below 1e-12", f"{np.abs(posterior - table / table.sum(1)[:, None]).max():.1e}"),
        ("sum_x p(x) P(z=1|x)", "1/3, the prior", f"{np.exp(model.log_prob(x)) @ cat:.4f}"),
        ("largest P(z=1|x)", "below 1", f"{cat.max():.5f}"),
        ("cats, of draws with P(z=1|x) in 0.4 to 0.6", f"{mean:.3f} ± {2 * error:.3f}", f"{share:.3f}"),
    ]


# %% [markdown]
# ## Ten digits: with labels, and without
#
# The same model with z in 0..9 and 784 pixels, each on if its grey level is above one half. Given labels, the best
# templates are the means of the classes, slightly smoothed: naive Bayes. Without labels, EM alternates
#
#     E:  r_nz = p(z|x_n)                M:  p(z) = mean_n r_nz,    t_z = sum_n r_nz x_n / sum_n r_nz
#
# and never lowers its objective: log p(x), plus a log prior that smooths the templates. EM maximises p(x), and counting
# p(x, label). So EM's p(x) comes out higher, but its classes are ten kinds of pictures, not the ten digits.
#
# A digit is written in many ways, so the next step is m templates for each: with EM inside each class, z has 10 m
# values, each of one digit.


# %%
SMOOTHING = 0.1  # pseudo-counts


def fit_by_class(x, labels, m, rng, iterations=10):
    """A mixture of 10 m components, by EM within each digit: component k is of digit k // m."""
    mixture = BernoulliMixture(10 * m, SMOOTHING)
    parts = [BernoulliMixture(m, SMOOTHING).fit(x[labels == digit], None, rng, iterations) for digit in range(10)]
    shares = np.log(np.bincount(labels, minlength=10) / len(labels))
    mixture.log_weights = np.concatenate([part.log_weights + share for part, share in zip(parts, shares, strict=True)])
    mixture.templates = np.concatenate([part.templates for part in parts])
    return mixture


def majority(mixture, x, labels):
    """The most frequent digit (K,) of each component, and the share of x that are of their component's digit."""
    counts = np.zeros((mixture.components, 10))
    np.add.at(counts, (mixture.predict(x), labels), 1)
    return counts.argmax(axis=1), counts.max(axis=1).sum() / len(x)


# %% [markdown]
# ## Half a digit
#
# If the left half is that of a 5, says the lecture, the right half cannot be that of a 0. In this model the pixels are
# independent given z, so all that the left half x_L says of the right half x_R goes through z:
#
#     p(x_R|x_L) = sum_z p(z|x_L) p(x_R|z)                                                                   (L05)
#
# How much is that? I(L; R) = E[log p(x) - log p(x_L) - log p(x_R)], over draws of the model, is at most log K.
#
# We complete test digits from their left halves, with the expectation E[x_R|x_L], grey where the model is unsure, or
# with a draw. The judge, a classifier of whole digits trained with this engine, sees the real left half beside the new
# right half, and we ask:
#
# - *judged as the digit*: is its verdict the true label? For this the left half must be understood first.
# - *judged as inferred*: is it argmax p(digit|x_L), what the model took the left half for? This asks only whether the
#   two halves agree.
#
# As a control, the right half is drawn from p(x_R) instead, independently. The judge still sees the real left half, so
# it often finds the digit nevertheless.


# %%
LEFT = np.arange(784) % 28 < 14


def halves_information(mixture, n, rng):
    """I(L; R) in nats, from n draws of a mixture."""
    x, _ = mixture.sample(n, rng)
    return (mixture.log_prob(x) - mixture.log_prob(x, LEFT) - mixture.log_prob(x, ~LEFT)).mean()


def completions(mixture, x, rng):
    """Digits x (n, 784) with new right halves, of three kinds."""
    independent = mixture.complete(x, np.zeros(784, bool), rng)
    return {
        "expectation": mixture.complete(x, LEFT),
        "draw": mixture.complete(x, LEFT, rng),
        "independent": np.where(LEFT, x > 0.5, independent),
    }


def verdicts(judge, images):
    """The judge's class (n,) of images (n, 784)."""
    return judge.probabilities(images.astype(np.float32)).argmax(axis=1)


def examine(mixture, judge, x, labels, rng):
    """Shares of digits judged as the digit and as inferred, by kind of completion; and of right inferences."""
    posterior = mixture.posterior(x, LEFT).reshape(len(x), 10, -1).sum(axis=2)  # over the templates of each digit
    inferred = posterior.argmax(axis=1)
    shares = {"inferred": (inferred == labels).mean()}
    for kind, images in completions(mixture, x, rng).items():
        verdict = verdicts(judge, images)
        shares[kind], shares[f"{kind}, agrees"] = (verdict == labels).mean(), (verdict == inferred).mean()
    return shares


# %% [markdown]
# ## The figures

# %%
BLUE, ORANGE, GRAY = "#3f90da", "#e76300", "#717581"


def draw_dimensions(figure, results):
    """|x| of N(0, I); the farthest over the nearest; shares of volume."""
    norms, ratios, shares = figure.subplots(1, 3)
    bins = np.linspace(-2.5, 2.5, 41)
    for d, color in ((1, GRAY), (10, ORANGE), (10_000, BLUE)):
        values = results[d][5] - math.sqrt(d)
        norms.hist(values, bins, density=True, histtype="step", color=color, linewidth=1.6, label=f"d = {d:,}")
    norms.plot(bins, np.exp(-(bins**2)) / math.sqrt(math.pi), "k--", linewidth=1, label="N(0, 1/2)")
    norms.set(title="Draws of N(0, I)", xlabel="|x| − √d", ylabel="density", xlim=(-2.5, 2.5))
    ratios.plot(DIMENSIONS, [results[d][2] for d in DIMENSIONS], "o", color=BLUE, label="measured")
    ratios.plot(DIMENSIONS, [theory(d)[2] for d in DIMENSIONS], "k--", linewidth=1, label="theory, large d")
    ratios.set(title="Farthest / nearest of 1,000 points", xlabel="d", ylabel="ratio", xscale="log", yscale="log")
    fine = np.geomspace(1, 10_000, 200)
    for i, color, label in ((3, ORANGE, "outer tenth of the ball"), (4, BLUE, "ball in the cube")):
        shares.plot(fine, [theory(d)[i] for d in fine], color=color, linewidth=1, label=f"{label}, theory")
        shares.plot(DIMENSIONS, [results[d][i] for d in DIMENSIONS], "o", color=color, label="measured")
    shares.set(title="Shares of volume", xlabel="d", ylabel="share", xscale="log")
    for panel in (norms, ratios, shares):
        panel.legend(frameon=False, fontsize=8)


def draw_pictures(panel, images, rows):
    """Pictures (rows, 10, 784), one digit a column, with white lines between."""
    cells = np.pad(images.reshape(-1, 10, 28, 28), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)
    panel.imshow(cells.swapaxes(1, 2).reshape(-1, 300), "gray", vmin=0, vmax=1)
    panel.set_yticks(30 * np.arange(len(rows)) + 15, rows)
    panel.set_xticks(30 * np.arange(10) + 15, range(10))
    panel.tick_params(length=0, labeltop=True, labelbottom=False)
    panel.spines[:].set_visible(False)


def draw_templates(figure, counted, found, digits, n):
    """Templates with and without labels, and EM's objective for each of n images."""
    pictures, curve = figure.subplots(2, 1, height_ratios=[2, 1.5])
    order = digits.argsort(kind="stable")
    draw_pictures(pictures, np.stack([counted.templates, found.templates[order]]), ["labels", "EM"])
    below = pictures.secondary_xaxis("bottom")
    below.set_xticks(30 * np.arange(10) + 15, [f"mostly {digit}" for digit in digits[order]])
    below.tick_params(length=0)
    below.spines[:].set_visible(False)
    curve.plot(range(1, len(found.objective)), np.array(found.objective[1:]) / n, color=BLUE, marker=".")
    curve.set(title="EM never goes down", xlabel="iteration", ylabel="log p(x) + log prior,\nnats an image")


def draw_completions(figure, pictures, shares):
    """Completed digits, and by templates a digit how many are judged right."""
    left, curve = figure.subplots(1, 2, width_ratios=[1.45, 1])
    draw_pictures(left, np.stack(list(pictures.values())), list(pictures))
    for kind, line, color, label in (
        ("expectation, agrees", "--", ORANGE, "judged as inferred, expectation"),
        ("draw, agrees", "--", BLUE, "judged as inferred, a draw"),
        ("expectation", "-", ORANGE, "judged as the digit, expectation"),
        ("draw", "-", BLUE, "judged as the digit, a draw"),
        ("independent", "-", GRAY, "judged as the digit, independent halves"),
    ):
        percent = [100 * share[kind] for share in shares.values()]
        curve.plot(list(shares), percent, line, marker="o", markersize=4, color=color, label=label)
    curve.axhline(90, color="black", linewidth=0.8, linestyle=":")
    curve.set(title="Completed test digits", xlabel="templates a digit", ylabel="%", xscale="log", ylim=(None, 101))
    curve.set_xticks(list(shares), list(shares))
    curve.minorticks_off()
    curve.legend(frameon=False, fontsize=8)


# %% [markdown]
# ## Expected beside got
#
# - Dimensions: the formulas above, to the accuracy of some thousand draws.
# - Of the completed digits, more than 90 % are judged as the digit (L05): with 200 templates a digit, whether the right
#   half is the expectation or a draw. With one template a digit, about one left half in four is taken for another
#   digit; and a draw is hardly a digit, since one template leaves the pixels independent: the judge knows fewer than
#   half.
#
# When 10,000 training images were left out of the fit, their log p(x) was highest with 200 templates (of 50, 200 and
# 400) and a smoothing of 0.1 (of 0.03, 0.1 and 1): so these two were chosen.


# %%
def main():
    parser = argparse.ArgumentParser(description="A latent digit: mixtures, Bayes' rule, and half a digit completed.")
    add_data_options(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-05"), help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="10,000 digits, at most 20 templates each")
    parser.add_argument("--seed", type=whole, default=0)
    options = parser.parse_args()
    make_folder(parser, options.out)
    data = load_data(parser, options)
    judge, rng = load_judge(data), np.random.default_rng(options.seed)
    train, test = (10_000, 2_000) if options.quick else (None, None)
    x, labels = data.train.images[:train], data.train.labels[:train]
    new_x, new_labels = data.test.images[:test], data.test.labels[:test]

    results, rows = study_dimensions(options.quick, rng)
    rows += study_cats(rng)
    counted = BernoulliMixture(10, SMOOTHING).fit(x, labels)
    found = BernoulliMixture(10, SMOOTHING).fit(x, None, rng, iterations=30)
    digits, pure = majority(found, new_x, new_labels)
    shares = {}
    print("\n             inferred class  judged as the digit:             judged as inferred:")
    print("templates    is right        expectation  draw   independent  expectation  draw")
    for m in (1, 5, 20) if options.quick else (1, 10, 50, 200):
        mixture = fit_by_class(x, labels, m, rng)
        share = shares[m] = examine(mixture, judge, new_x, new_labels, rng)
        print(f"{m:<13}{share['inferred']:<16.3f}{share['expectation']:<13.3f}{share['draw']:<7.3f}", end="")
        print(f"{share['independent']:<13.3f}{share['expectation, agrees']:<13.3f}{share['draw, agrees']:.3f}")
    above = "above 0.8" if options.quick else "above 0.9"
    rows += [
        ("EM, largest fall of the objective", "0", f"{max(0.0, -np.diff(found.objective).min()):.1e}"),
        ("EM, log p(x) of test digits", "above counting's", f"{found.log_prob(new_x).mean():.1f}"),
        ("counting, log p(x) of test digits", "below EM's", f"{counted.log_prob(new_x).mean():.1f}"),
        ("EM, test digits whose class is mostly of their digit", "below counting's", f"{pure:.3f}"),
        (
            "counting, test digits classified",
            "about 0.84 on MNIST",
            f"{(counted.predict(new_x) == new_labels).mean():.3f}",
        ),
        ("I(L; R), 1 template a digit", "at most ln 10 = 2.303", f"{halves_information(counted, 5000, rng):.3f}"),
        ("1 template a digit, judged as the digit", "lower", f"{shares[1]['expectation']:.3f}"),
        ("1 template a digit, judged as the digit, a draw", "far lower", f"{shares[1]['draw']:.3f}"),
        (f"{m} templates, judged as the digit", above, f"{share['expectation']:.3f}"),
        (f"{m} templates, judged as the digit, a draw", above, f"{share['draw']:.3f}"),
        (f"{m} templates, independent halves", "far lower", f"{share['independent']:.3f}"),
        ("whole test digits, judged right", "the limit", f"{(verdicts(judge, new_x > 0.5) == new_labels).mean():.3f}"),
    ]
    print()
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<53} | {expected:<21} | {got}")

    shown = new_x[[int(np.flatnonzero(new_labels == digit)[0]) for digit in range(10)]]  # the first of each digit
    few, many = completions(counted, shown, rng), completions(mixture, shown, rng)
    pictures = {"digit": shown > 0.5, "left half": np.where(LEFT, shown > 0.5, 0.5)}
    pictures |= {"1 template,\nexpectation": few["expectation"], f"{m} templates,\nexpectation": many["expectation"]}
    pictures |= {f"{m} templates,\na draw": many["draw"], "independent\nhalves": many["independent"]}
    figures = [(draw_dimensions, (results,)), (draw_templates, (counted, found, digits, len(x)))]
    figures += [(draw_completions, (pictures, shares))]
    for number, (draw, arguments) in enumerate(figures, start=1):
        figure = Figure(figsize=(12, 4.6), dpi=150, layout="constrained")
        draw(figure, *arguments)
        path = options.out / f"{number}_{draw.__name__.removeprefix('draw_')}.png"
        figure.savefig(path)
        print(path)


if __name__ == "__main__":
    main()
