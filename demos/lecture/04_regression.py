# %% [markdown]
# # Regression twice: a line through points, and a density p(x|z)
#
# The lecture recalls regression two times (L04 of the ledger). First as most people know it: points, and the line with
# the smallest squares. Then with a model of the errors, p(x|z), which makes the line a probability distribution. The
# second view gives what the first cannot: how probable a point is, bounds within which a new point will lie, and a
# scale on which models can be compared.
#
# As in the lecture, z is what is given and x is what is predicted. Here z is observed. In a variational autoencoder it
# is not, but p(x|z) is the same thing there: it is called the decoder.

# %%
import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Tensor, no_grad, ops
from scratchgen.nn import Dense, Module, Parameter, mlp
from scratchgen.optim import SGD, Adam, cosine
from scratchgen.options import make_folder, whole

# %% [markdown]
# ## The same line twice
#
# The data are n = 20 points x = 1 + 2z + noise, with noise from N(0, 0.5²). Least squares solves a linear system. With
# A the matrix of rows (1, z), the coefficients w minimise |x - A w|², so A'A w = A'x.
#
# The statistician writes p(x|z) = N(x | a + b z, sigma²), with the same sigma everywhere, and maximises the likelihood
#
#     sum over i of log p(x_i|z_i)  =  -n/2 log(2 pi sigma²)  -  1/(2 sigma²) sum over i of (x_i - a - b z_i)².   (L13)
#
# In a and b this is least squares with other constants, so both lines are the same. Here gradient descent finds this
# maximum, and sigma² with it, from nothing but `ops.gaussian_nll` and the engine's gradients.


# %%
NOISE = 0.5  # sigma of the line and of the polynomials below


def draw_line(n, rng):
    """Inputs z (n,) and outcomes x (n,) of the line."""
    z = rng.uniform(-1, 1, n)
    return z, 1 + 2 * z + NOISE * rng.standard_normal(n)


def least_squares(features, x):
    """The coefficients (k,) that minimise |x - features w|², for features (n, k) and x (n,)."""
    return np.linalg.lstsq(features, x, rcond=None)[0]


def maximum_likelihood(z, x, steps=600):
    """Intercept a, slope b and sigma² of the most likely N(a + b z, sigma²), by gradient descent from (0, 0, 1)."""
    a, b, logvar = (Parameter(np.zeros((1, 1))) for _ in range(3))
    optimizer = SGD([a, b, logvar], lr=0.1)
    z, x = Tensor(z[:, None]), Tensor(x[:, None])
    for _ in range(steps):
        mean = a + b * z
        loss = ops.gaussian_nll(mean, logvar + np.zeros(mean.shape), x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return a.item(), b.item(), math.exp(logvar.item())


# %% [markdown]
# The derivative with respect to sigma² is zero at the mean squared residual: divided by n, not by n - 2. On average it
# is too small, by the factor (n - 2)/n, since the line has been bent towards the points. A band of ±1.96 sigma around
# the line should hold 95 % of new points. With 20 points it holds fewer, because sigma is too small and the line is not
# quite the true one. The right interval uses Student's t. With a thousand points nobody sees the difference.

# %%
WIDTH = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


def small_samples(n, repeats, rng):
    """The mean over many data sets of sigma² by ML, divided by the true one, and the coverage of mean ± 1.96 sigma."""
    z, x = (array.reshape(repeats, n) for array in draw_line(repeats * n, rng))
    fresh_z, fresh_x = draw_line(repeats, rng)
    offset = z - z.mean(axis=1, keepdims=True)
    slope = (offset * x).sum(axis=1) / (offset**2).sum(axis=1)
    intercept = x.mean(axis=1) - slope * z.mean(axis=1)
    variance = ((x - intercept[:, None] - slope[:, None] * z) ** 2).mean(axis=1)
    covered = np.abs(fresh_x - intercept - slope * fresh_z) < WIDTH * np.sqrt(variance)
    return variance.mean() / NOISE**2, covered.mean()


# %% [markdown]
# ## A network with a head for the variance
#
# Nothing forces the mean to be a line or sigma to be constant. Here the data follow a sine, and their spread grows with
# z: x = sin(pi z) + (0.3 + 0.15 z) noise. Two networks learn them from the same 4,000 points. Both have two hidden
# layers and a head for the mean. One has a second head for log sigma²(z), which is free to be any number; the other has
# a single number log sigma². Both minimise -log p(x|z), so a network states how far it may be off. Where it says a
# small sigma and is wrong, it pays the squared error divided by twice that sigma².


# %%
def true_sd(z):
    """The standard deviation of the data at z."""
    return 0.3 + 0.15 * z


def draw_sine(n, rng):
    """Inputs z (n,) and outcomes x (n,) of the sine."""
    z = rng.uniform(-1, 1, n)
    return z, np.sin(math.pi * z) + true_sd(z) * rng.standard_normal(n)


class Regression(Module):
    """p(x|z) = N(mean(z), sigma²), with sigma² a function of z too or a constant."""

    def __init__(self, constant, rng, hidden=32):
        self.body = mlp((1, hidden, hidden), "tanh", rng, np.float64)
        self.mean = Dense(hidden, 1, rng, dtype=np.float64)
        self.logvar = Parameter(np.zeros(1)) if constant else Dense(hidden, 1, rng, dtype=np.float64)

    def forward(self, z):
        """Mean and log variance, each (n, 1), of inputs (n, 1)."""
        features = self.body(z)
        mean = self.mean(features)
        constant = isinstance(self.logvar, Parameter)
        return mean, self.logvar + np.zeros(mean.shape) if constant else self.logvar(features)


def train(constant, z, x, steps, rng):
    """A network trained on points z (n,), x (n,) with Adam, in batches of 500."""
    model = Regression(constant, rng)
    optimizer = Adam(model, lr=cosine(0.02, steps))
    for _ in range(steps):
        batch = rng.integers(0, len(z), 500)
        mean, logvar = model(Tensor(z[batch, None]))
        loss = ops.gaussian_nll(mean, logvar, Tensor(x[batch, None])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def predict(model, z):
    """Mean and standard deviation of p(x|z), each (n,), at z (n,)."""
    with no_grad():
        mean, logvar = model(Tensor(z[:, None]))
    return mean.data[:, 0], np.exp(logvar.data[:, 0] / 2)


def log_density(model, z, x):
    """log p(x|z) (n,) in nats, of z (n,) and x (n,)."""
    with no_grad():
        return -ops.gaussian_nll(*model(Tensor(z[:, None])), Tensor(x[:, None])).data


# %% [markdown]
# ## Bounds that hold everywhere, and bounds that hold on average
#
# 100,000 fresh points say what the bands mean ± 1.96 sigma are worth. The one with sigma(z) should hold 95 % of them,
# and 95 % in each third of z. The best constant sigma is the root of the mean variance. Its band is too wide where the
# data are tight and too narrow where they spread. Over all z both mistakes nearly cancel, and a check of the overall
# coverage would not notice. They need not cancel exactly: mixed over z the errors are no longer normal, and theory says
# 94.2 % here.


# %%
def coverage(inside, z, parts):
    """The part of the points z (n,) in [-1, 1] that is ``inside`` (n,), in equal intervals of z: (parts,)."""
    where = np.minimum(((z + 1) / 2 * parts).astype(int), parts - 1)
    return np.bincount(where, inside, parts) / np.bincount(where, minlength=parts)


def constant_in_theory(parts, nodes=3000):
    """The best constant sigma, and its band's coverage in equal intervals of z: (parts,), if the mean is known."""
    z = (np.arange(nodes) + 0.5) * 2 / nodes - 1
    sigma = math.sqrt((true_sd(z) ** 2).mean())
    inside = np.array([math.erf(WIDTH * sigma / (sd * math.sqrt(2))) for sd in true_sd(z)])
    return sigma, inside.reshape(parts, -1).mean(axis=1)


# %% [markdown]
# ## How probable is a point?
#
# p(x|z) is a density, a probability per unit of x. A single point has a density, and it may exceed 1. With
# sigma = 0.1, N(x | x, sigma²) is 3.99, its logarithm 1.38. In other units it is another number: with x in millimetres
# instead of metres every log density falls by log 1000, for every model alike. Only differences of log densities mean
# something.
#
# The lecture says later that the reconstruction term log p(x|z) is log 1 = 0 when x is reconstructed perfectly. That
# holds for binary x, where p(x|z) is a probability and 0 is the most its logarithm can be. For real x a perfect
# reconstruction has -log sigma - ½ log 2 pi, which has no upper bound as sigma falls.
#
# Two points at z = -0.8 show what it is good for: one on the sine, one 0.55 above it. For the network with sigma(z) the
# second is three standard deviations off, and improbable. The constant sigma calls it ordinary.

# %%
POINT_Z, ABOVE = -0.8, 0.55


def log_normal(distance, sd):
    """log N(distance | 0, sd²)."""
    return -(distance**2) / (2 * sd**2) - math.log(sd) - math.log(2 * math.pi) / 2


# %% [markdown]
# ## Which model?
#
# More parameters always fit the training data better. What counts is the likelihood of data that the fit has not seen.
# Two criteria estimate it, or the evidence for the model, from the training data alone. With k parameters, sigma
# among them, and L the maximum of the likelihood,
#
#     AIC  =  2 k - 2 log L,          BIC  =  k log n - 2 log L,          and the smallest is the best.
#
# The derivation of AIC (Akaike 1974): for a model that contains the truth, log L is too high by k/2 on average, the
# likelihood of fresh data at the fitted parameters too low by k/2, both compared with the true parameters. So the fresh
# log-likelihood is log L - k. That holds for large n; with n = 100 and degree 9 the difference is larger, since in some
# data sets the fit goes astray at the ends. BIC (Schwarz 1978) approximates -2 log p(data | model).
#
# The data here are n = 100 points of a polynomial of degree 3, and the models are the polynomials of degrees 0 to 9,
# fitted by least squares. Fresh points tell how good each fit really is.
#
# How often do the criteria find degree 3? For large n, each further coefficient raises 2 log L by the square of a
# standard normal number, and costs 2 in AIC, log n in BIC. A criterion is right if no number of further coefficients
# pays. For AIC and six further coefficients this stays at 73 % however many data there are (Shibata 1976), while BIC's
# price grows, so its errors vanish: 96 % are right at the price log 100, 99 % at log 1,000. Fresh data do not always
# choose degree 3 either: in some data sets a fit of degree 4 is nearer to the truth.

# %%
DEGREES = range(10)
TRUE_DEGREE = 3
K = np.array([degree + 2 for degree in DEGREES])  # parameters: degree + 1 coefficients and sigma


def draw_cubic(n, rng):
    """Inputs z (n,) and outcomes x (n,) of the cubic."""
    z = rng.uniform(-1, 1, n)
    return z, 1 - z - z**2 / 2 + 2 * z**3 + NOISE * rng.standard_normal(n)


def polynomials(z, x, fresh_z, fresh_x):
    """Mean log p(x|z) of the training points and of fresh points, each (10,), for the best fit of every degree."""
    on_training, on_fresh = [], []
    for degree in DEGREES:
        # Legendre polynomials: the same fits as with powers of z, but well conditioned
        features = np.polynomial.legendre.legvander(z, degree)
        w = least_squares(features, x)
        sigma = math.sqrt(np.square(x - features @ w).mean())
        fresh_features = np.polynomial.legendre.legvander(fresh_z, degree)
        for found, mean, outcome in [(on_training, features @ w, x), (on_fresh, fresh_features @ w, fresh_x)]:
            nll = ops.gaussian_nll_fixed(Tensor(mean[:, None]), Tensor(outcome[:, None]), sigma)
            found.append(-nll.mean().item())
    return np.array(on_training), np.array(on_fresh)


def criteria(on_training, n):
    """AIC and BIC, each (10,), from the mean log-likelihood (10,) of n training points."""
    return 2 * K - 2 * n * on_training, K * math.log(n) - 2 * n * on_training


def chance_of_true_degree(price, rng):
    """How often no further coefficient pays its price, for large n."""
    gains = np.square(rng.standard_normal((100_000, DEGREES[-1] - TRUE_DEGREE)))
    return (np.cumsum(gains - price, axis=1) <= 0).all(axis=1).mean()


# %%
def study(n, repeats, rng):
    """Over many data sets: the degrees that AIC, BIC and fresh data choose (3, repeats), and what the choices cost.

    The costs are the mean fresh log-likelihood a point, below that of the best degree, of AIC's and BIC's choice, and
    the mean excess of the training data's log-likelihood over that of fresh data, (10,).
    """
    choices, lost, excess = [], [], []
    for _ in range(repeats):
        on_training, on_fresh = polynomials(*draw_cubic(n, rng), *draw_cubic(10_000, rng))
        aic, bic = criteria(on_training, n)
        choices.append([aic.argmin(), bic.argmin(), on_fresh.argmax()])
        lost.append([on_fresh.max() - on_fresh[aic.argmin()], on_fresh.max() - on_fresh[bic.argmin()]])
        excess.append(on_training - on_fresh)
    return np.array(choices).T, np.mean(lost, axis=0), np.mean(excess, axis=0)


# %% [markdown]
# ## The figure

# %%
BLUE, ORANGE, GRAY = "#3f90da", "#e76300", "#717581"
TICKS = (-1, -0.5, 0, 0.5, 1)


def draw_fit(panel, z, x, a, b, sigma):
    """The line, and its band."""
    ends = np.array([-1.0, 1.0])
    panel.scatter(z, x, s=14, color="black", linewidths=0, label="data")
    panel.plot(ends, a + b * ends, color=BLUE, label="the line of both fits")
    band = a + b * ends - WIDTH * sigma, a + b * ends + WIDTH * sigma
    panel.fill_between(ends, *band, color=BLUE, alpha=0.2, linewidth=0, label="±1.96 σ, by ML only")
    panel.set(xticks=TICKS, title="Least squares and maximum likelihood", xlabel="z", ylabel="x")
    panel.legend(loc="upper left", frameon=False)


def draw_bands(panel, models, z, x):
    """The bands of both networks, and the two points whose density is compared."""
    line = np.linspace(-1, 1, 300)
    panel.scatter(z[:1500], x[:1500], s=2, color=GRAY, linewidths=0)
    for model, colour, style, name in zip(models, (BLUE, ORANGE), ("-", "--"), ("σ(z)", "constant σ"), strict=True):
        mean, sd = predict(model, line)
        for side in (-1, 1):
            label = f"±1.96 σ, {name}" if side == 1 else None
            panel.plot(line, mean + side * WIDTH * sd, style, color=colour, label=label)
    points = math.sin(math.pi * POINT_Z) + np.array([0, ABOVE])
    panel.scatter([POINT_Z] * 2, points, s=35, color="black", marker="D", label="the two points", zorder=3)
    panel.set(xticks=TICKS, title="Networks: the 95 % bands", xlabel="z", ylabel="x", ylim=(-2, 3))
    panel.legend(loc="upper left", frameon=False)


def draw_coverage(panel, inside, z, parts=20):
    """The coverage of both bands along z."""
    middle = (np.arange(parts) + 0.5) * 2 / parts - 1
    panel.axhline(95, color="black", linewidth=1, linestyle=":", label="95 %")
    panel.plot(middle, 100 * coverage(inside[0], z, parts), "o-", markersize=4, color=BLUE, label="σ(z)")
    panel.plot(middle, 100 * coverage(inside[1], z, parts), "s--", markersize=4, color=ORANGE, label="constant σ")
    theory = 100 * constant_in_theory(parts)[1]
    panel.plot(middle, theory, color=GRAY, linewidth=1, label="constant σ, theory", zorder=1)
    panel.set(xticks=TICKS, title="Fresh points inside the bands", xlabel="z", ylabel="%", ylim=(75, 101))
    panel.legend(loc="lower left", frameon=False)


def draw_degrees(panel, on_training, on_fresh, n):
    """The log-likelihood of each degree, and what the criteria make of it, all in nats a point."""
    aic, bic = criteria(on_training, n)
    panel.axvline(TRUE_DEGREE, color=GRAY, linewidth=1, linestyle=":")
    for values, style, colour, name in [
        (-on_training, "s--", GRAY, "training data"),
        (-on_fresh, "D-", "black", "fresh data"),
        (aic / (2 * n), "o-", BLUE, "AIC / 2n"),
        (bic / (2 * n), "^-", ORANGE, "BIC / 2n"),
    ]:
        panel.plot(DEGREES, values, style, color=colour, markersize=4, linewidth=1.3, label=name)
    panel.set(title="Polynomials: −log p(x|z), mean", xlabel="degree (true: 3)", ylabel="nats a point")
    panel.set_xticks(DEGREES)
    panel.set_ylim(top=1.08)
    panel.legend(loc="upper right", frameon=False)


# %% [markdown]
# ## Expected beside got
#
# The values expected come from theory: for the nets, that of the true density, and of the best constant sigma with the
# true mean. A net's likelihood of fresh data is a little below, as it has learned from 4,000 points only.


# %%
def main():
    parser = argparse.ArgumentParser(description="Regression by least squares and by maximum likelihood.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-04"), help="folder for the figure")
    parser.add_argument("--quick", action="store_true", help="a third of the training steps")
    parser.add_argument("--seed", type=whole, default=0)
    options = parser.parse_args()
    make_folder(parser, options.out)
    streams = [np.random.default_rng([options.seed, part]) for part in range(4)]

    z, x = draw_line(20, streams[0])
    features = np.stack([np.ones(20), z], axis=1)
    w = least_squares(features, x)
    a, b, variance = maximum_likelihood(z, x)
    residual = np.square(x - features @ w).mean()
    ratio, covered = small_samples(20, 20_000, streams[0])

    data, fresh = draw_sine(4000, streams[1]), draw_sine(100_000, streams[1])
    models = [train(constant, *data, 600 if options.quick else 2000, streams[1]) for constant in (False, True)]
    predictions = [predict(model, fresh[0]) for model in models]
    inside = [np.abs(fresh[1] - mean) < WIDTH * sd for mean, sd in predictions]
    thirds = [coverage(part, fresh[0], 3) for part in inside]
    sigma, thirds_in_theory = constant_in_theory(3)
    best = [-np.log(true_sd(fresh[0])).mean() - (math.log(2 * math.pi) + 1) / 2, log_normal(sigma, sigma)]
    points = np.full(2, POINT_Z), math.sin(math.pi * POINT_Z) + np.array([0, ABOVE])

    cubic, fresh_cubic = draw_cubic(100, streams[2]), draw_cubic(10_000, streams[2])
    on_training, on_fresh = polynomials(*cubic, *fresh_cubic)
    aic, bic = criteria(on_training, 100)
    choices, lost, excess = study(100, 100, streams[3])
    right = (choices == TRUE_DEGREE).sum(axis=1)
    chances = [100 * chance_of_true_degree(price, streams[3]) for price in (2, math.log(100))]
    bit = -ops.bce_with_logits(Tensor([[40.0]]), Tensor([[1.0]])).item()

    rows = [
        ("line: difference of both fits", "below 1e-10", f"{np.abs(w - [a, b]).max():.1e}"),
        ("line: ML sigma² - mean squared residual", "below 1e-10", f"{abs(variance - residual):.1e}"),
        ("n = 20: mean ML sigma² / true sigma²", "18/20 = 0.900", f"{ratio:.3f}"),
        ("n = 20: band mean ± 1.96 sigma holds, %", "90.6, by Student's t", f"{100 * covered:.1f}"),
    ]
    names = [("sigma(z)", [95] * 3, 95.0), ("constant sigma", 100 * thirds_in_theory, 100 * thirds_in_theory.mean())]
    for (name, local, overall), part, third in zip(names, inside, thirds, strict=True):
        rows.append((f"{name}: band holds, %", f"{overall:.1f}", f"{100 * part.mean():.1f}"))
        for place, expected, got in zip(("first", "second", "last"), local, third, strict=True):
            rows.append((f"{name}: in the {place} third of z, %", f"{expected:.1f}", f"{100 * got:.1f}"))
    for (name, *_), model, expected, sd in zip(names, models, best, (true_sd(POINT_Z), sigma), strict=True):
        likely, unlikely = log_density(model, *points)
        rows += [
            (f"{name}: mean log p(x|z), fresh", f"at most {expected:.3f}", f"{log_density(model, *fresh).mean():.3f}"),
            (f"{name}: log p of the point on the sine", f"{log_normal(0, sd):.2f}", f"{likely:.2f}"),
            (f"{name}: log p of the point above", f"{log_normal(ABOVE, sd):.2f}", f"{unlikely:.2f}"),
        ]
    rows += [
        ("log p of a bit reconstructed all but perfectly", "0, from below", f"{bit:.1e}"),
        ("degree that AIC chooses", "3, the true one", f"{aic.argmin()}"),
        ("degree that BIC chooses", "3, the true one", f"{bic.argmin()}"),
        ("degree with the best likelihood of fresh data", "3 or 4", f"{on_fresh.argmax()}"),
        ("AIC chooses 3, of 100 data sets", f"{chances[0]:.0f} for large n", f"{right[0]}"),
        ("BIC chooses 3, of 100 data sets", f"about {chances[1]:.0f}, to 100", f"{right[1]}"),
        ("fresh data choose 3, of 100 data sets", "most", f"{right[2]}"),
        ("nats a point lost by AIC's choice, mean", "small", f"{lost[0]:.4f}"),
        ("nats a point lost by BIC's choice, mean", "small", f"{lost[1]:.4f}"),
        ("degree 3: training - fresh log p, nats", "k/n = 0.05 for large n", f"{excess[3]:.3f}"),
        ("degree 9: training - fresh log p, nats", "k/n = 0.11 or more", f"{excess[9]:.3f}"),
    ]
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<46} | {expected:<24} | {got}")

    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2)
    draw_fit(panels[0, 0], z, x, a, b, math.sqrt(variance))
    draw_bands(panels[0, 1], models, *data)
    draw_coverage(panels[1, 0], inside, fresh[0])
    draw_degrees(panels[1, 1], on_training, on_fresh, 100)
    path = options.out / "regression.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
