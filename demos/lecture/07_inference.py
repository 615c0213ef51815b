# %% [markdown]
# # Variational inference, and p(x) as an integral
#
# Two ideas carry the variational autoencoder, and neither needs a network to be understood:
#
# - a complicated distribution, such as p(z|x), is replaced by a simple one, q, that is fitted by making a
#   Kullback-Leibler divergence small (L07 of the ledger);
# - p(x) = ∫ p(x|z) p(z) dz = E p(x|z), over z from p(z), is a mean, and may be estimated by drawing (L08).
#
# Here z is one number, so every integral can also be computed by quadrature, and nothing has to be believed.
#
# The lecture says that p(x|z) cannot be computed. In its models p(x|z) is easy: it is the decoder. What is hard is
# p(x), because of the integral, and with it p(z|x) = p(x|z) p(z) / p(x).

# %%
import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scratchgen import Tensor, no_grad, ops
from scratchgen.nn import Parameter
from scratchgen.optim import Adam, cosine
from scratchgen.options import make_folder, whole

# %% [markdown]
# ## A target with two modes
#
# The divergence KL(q || p) = E_q[log q(z) - log p(z)] is not symmetric. Either distribution may come first, and for a q
# that cannot be equal to p this decides what q looks like. The target is a mixture,
#
#     p(z) = 0.6 N(z | -2.5, 0.6²) + 0.4 N(z | 2.5, 0.9²),
#
# and q is a single normal distribution N(mu, sigma²). As elsewhere, sums of densities are taken as logsumexp.

# %%
WEIGHTS, MEANS, SDS = np.array([0.6, 0.4]), np.array([-2.5, 2.5]), np.array([0.6, 0.9])
LOG_2PI = math.log(2 * math.pi)


def log_mixture(z):
    """log p(z) (...) of codes z (..., 1)."""
    constants = np.log(WEIGHTS) - np.log(SDS) - LOG_2PI / 2
    return ops.logsumexp(constants - ((z - MEANS) * (1 / SDS)) ** 2 * 0.5)


# %% [markdown]
# ## Reverse: KL(q || p)
#
# This is the divergence that variational inference uses, because its mean is over q, from which one can draw. With
# z = mu + sigma eps and eps from N(0, 1), the mean is over eps, whose distribution does not depend on mu and sigma, so
# the gradient goes inside it (L18):
#
#     KL(q || p)  =  -½ (1 + log 2 pi sigma²)  -  E_eps[log p(mu + sigma eps)].
#
# A VAE draws one eps for each example. In one dimension a sum over a grid of eps gives the same gradient without
# noise, so the optimum is reached to many digits. The first function below computes the divergence either way, and a
# row of the table checks that the gradients of single draws have the grid's as their mean. The second runs Adam from
# many starts at once.
#
# `log_p` need not be normalised. With the constant missing, the divergence is off by a constant, the gradient is not.

# %%
EPS, SPACING = np.linspace(-8, 8, 321, retstep=True)
EPS_WEIGHTS = np.exp(-(EPS**2 + LOG_2PI) / 2) * SPACING  # they sum to 1


def reverse_kl(log_p, mu, logvar, eps, weights):
    """KL(q || p) (n,) of n normals mu (n, 1), logvar (n, 1), from noise eps (m, n, 1) with weights (m, 1)."""
    z = ops.reparameterize(mu, logvar, eps)
    cross_entropy = -(log_p(z) * weights).sum(axis=0)
    return cross_entropy - (logvar.reshape(-1) + (1 + LOG_2PI)) * 0.5


def fit_reverse(log_p, mu, sigma, steps=1000, lr=0.1):
    """Means, standard deviations and KL(q || p), each (n,), where Adam ends from starts mu (n,), sigma (n,)."""
    mu, logvar = Parameter(mu[:, None]), Parameter(2 * np.log(sigma)[:, None])
    eps = Tensor(np.broadcast_to(EPS[:, None, None], (len(EPS), *mu.shape)))
    weights = Tensor(EPS_WEIGHTS[:, None])
    optimizer = Adam([mu, logvar], lr=cosine(lr, steps))
    for _ in range(steps):
        optimizer.zero_grad()
        reverse_kl(log_p, mu, logvar, eps, weights).sum().backward()
        optimizer.step()
    with no_grad():
        kl = reverse_kl(log_p, mu, logvar, eps, weights).data
    return mu.data[:, 0].copy(), np.exp(logvar.data[:, 0] / 2), kl


def gradients(log_p, mu, logvar, eps, weights):
    """d KL(q || p) / d (mu, logvar), (n, 2), at one q, for n sets of noise eps (m, n, 1)."""
    n = eps.shape[1]
    leaves = [Tensor(np.full((n, 1), value), requires_grad=True) for value in (mu, logvar)]
    reverse_kl(log_p, *leaves, Tensor(eps), Tensor(weights)).sum().backward()
    return np.concatenate([leaf.grad for leaf in leaves], axis=1)


# %% [markdown]
# Where q is large and p small, log q - log p is large: reverse KL punishes a q that puts mass where p has none. It does
# not mind p having mass where q has none. So q takes one mode and ignores the other. If the modes do not overlap,
# p = w_k p_k wherever q lives, so KL(q || p) = KL(q || p_k) - log w_k, and its minimum is -log w_k, at q = p_k.
#
# Which mode depends on the start. Each is a local optimum, and nothing in the run tells that there is a better one.
# There is a third optimum here, the worst, with a broad q over both modes. Starts with a large sigma may end in it. It
# is not the q that the forward divergence finds: its mean differs, and it is narrower.
#
# ## Forward: KL(p || q)
#
#     KL(p || q)  =  E_p[log p(z)] - E_p[log q(z)]
#
# is maximum likelihood: only the second term depends on q, and with data from p for the mean, it is the log-likelihood
# of the data. It punishes a q that is small where p is not, so q has to cover both modes. For a normal q the optimum is
# known: the mean and the variance of p. But it needs draws from p, and those are hard to get from a posterior. Hence
# variational inference takes the reverse divergence.

# %%
GRID, STEP = np.linspace(-20, 20, 8001, retstep=True)


def fit_forward(log_p, mu, sigma, steps=1000, lr=0.1):
    """Mean and standard deviation of the q with the smallest KL(p || q), by Adam from mu, sigma; p on the grid."""
    mu, logvar = (Parameter([[value]], np.float64) for value in (mu, 2 * math.log(sigma)))
    z = Tensor(GRID[:, None])
    zeros = np.zeros(z.shape)
    with no_grad():
        weights = ops.exp(log_p(z)) * STEP
    optimizer = Adam([mu, logvar], lr=cosine(lr, steps))
    for _ in range(steps):
        loss = (weights * ops.gaussian_nll(mu + zeros, logvar + zeros, z)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mu.item(), math.exp(logvar.item() / 2)


def log_normal(z, mu, sigma):
    """log N(z | mu, sigma²)."""
    return -(((z - mu) / sigma) ** 2 + LOG_2PI) / 2 - np.log(sigma)


def divergences(mu, sigma):
    """KL(q || p) and KL(p || q) by quadrature, for q = N(mu, sigma²) and the mixture."""
    with no_grad():
        log_p = log_mixture(Tensor(GRID[:, None])).data
    log_q = log_normal(GRID, mu, sigma)
    return (np.exp(log_q) * (log_q - log_p)).sum() * STEP, (np.exp(log_p) * (log_p - log_q)).sum() * STEP


# %% [markdown]
# ## Between two normal distributions
#
# Between two normal distributions the divergence has a closed form. The KL term of a VAE is its case N(0, 1) for the
# second (L16):
#
#     KL(N(m, s²) || N(M, S²))  =  log(S/s)  +  (s² + (m - M)²) / (2 S²)  -  ½.
#
# It is compared with the mean of log q(z) - log p(z) over draws from the first.


# %%
def normal_kl(m, s, big_m, big_s):
    """KL(N(m, s²) || N(big_m, big_s²))."""
    return math.log(big_s / s) + (s**2 + (m - big_m) ** 2) / (2 * big_s**2) - 0.5


def sampled_normal_kl(m, s, big_m, big_s, draws, rng):
    """The same by Monte Carlo, and its standard error."""
    z = m + s * rng.standard_normal(draws)
    terms = log_normal(z, m, s) - log_normal(z, big_m, big_s)
    return terms.mean(), terms.std(ddof=1) / math.sqrt(draws)


PAIRS = [(0.7, 0.5, 0, 1), (-2, 1.5, 0, 1), (1, 0.2, 0.5, 0.3), (0, 2, 3, 1), (3, 1, 0, 2)]

# %% [markdown]
# ## p(x), three ways
#
# Now a model: z from N(0, 1), and x from N(f(z), 0.3²) with f(z) = z + z³/10. Two data points are looked at: x = f(0.5)
# in the middle of the distribution, and x = f(2.5) in its tail. The posterior of z is close to 0.5 or 2.5, and much
# narrower than the prior.
#
# 1. Quadrature: a sum over a grid of z. It has no error to speak of, but its grid would have 8001^20 nodes if z had 20
#    dimensions.
# 2. Naive Monte Carlo: the mean of p(x|z) over draws from p(z). Nearly all draws miss the posterior and count nothing.
# 3. Importance sampling: p(x) = E_q[p(x|z) p(z) / q(z)], for any q that is positive where p(x|z) p(z) is. The best q
#    is the posterior: the ratio is then p(x) at every z. Here q is the normal distribution fitted to it by reverse KL,
#    then widened. `fit_reverse` takes the joint density p(x|z) p(z), which is the posterior times p(x): what it
#    minimises is -ELBO(x) = KL(q || p(z|x)) - log p(x) (L14).
#
# In the last two p(x) is the mean of weights w, over draws from the prior or from q. The mean of N draws has the
# relative error sqrt(v/N), where v = Var[w] / p(x)² can be computed by quadrature too. So the error falls with the
# slope -1/2 in a log-log plot, whatever the dimension. Only v tells a good q from a bad one, and v_naive / v_q is how
# many times fewer draws importance sampling needs.
#
# Why is q widened? Reverse KL makes q narrow, and where q is far smaller than the posterior, the weights are huge. For
# the x in the tail, the fitted q has v above 1e100, nearly all of it from z around -2, forty standard deviations of q
# away. No run draws such a z, so an error bar computed from the weights never shows it. Here that part of p(x) is
# negligible; with another posterior, two modes say, it need not be. With sigma 1.5 times as large, v is about 0.2 (for
# a normal posterior 1.5² / sqrt(2 · 1.5² - 1) - 1 = 0.203).

# %%
NOISE, WIDER = 0.3, 1.5


def decode(z):
    """f(z), the mean of p(x|z), of numbers, arrays or tensors."""
    return z + 0.1 * z**3


POINTS = {"middle": decode(0.5), "tail": decode(2.5)}


def log_joint(x):
    """The function log p(x|z) + log p(z) (...) of codes z (..., 1), for one number x."""

    def log_density(z):
        mean = decode(z)
        log_likelihood = -ops.gaussian_nll_fixed(mean, np.full(mean.shape, x), NOISE)
        return log_likelihood - ops.gaussian_nll_fixed(z, np.zeros(mean.shape), 1.0)

    return log_density


def quadrature(x, grid=GRID):
    """log p(x)."""
    with no_grad():
        return ops.logsumexp(log_joint(x)(Tensor(grid[:, None]))).item() + math.log(grid[1] - grid[0])


def log_weights(x, mu, sigma, draws, rng):
    """log p(x|z) + log p(z) - log q(z) (draws), for z from q = N(mu, sigma²); with q the prior, log p(x|z)."""
    z = mu + sigma * rng.standard_normal(draws)
    with no_grad():
        return log_joint(x)(Tensor(z[..., None])).data - log_normal(z, mu, sigma)


def estimate(x, mu, sigma, draws, rng, chunk=500_000):
    """log of the mean weight of so many draws."""
    parts = [ops.logsumexp(Tensor(log_weights(x, mu, sigma, chunk, rng))).item() for _ in range(draws // chunk)]
    return ops.logsumexp(Tensor(np.array(parts))).item() - math.log(chunk * len(parts))


def relative_variance(x, mu, sigma):
    """v = Var[w] / p(x)² = E[w²] / p(x)² - 1, by quadrature."""
    with no_grad():
        joint = log_joint(x)(Tensor(GRID[:, None])).data
    square = 2 * joint - log_normal(GRID, mu, sigma)
    return math.exp(ops.logsumexp(Tensor(square)).item() + math.log(STEP) - 2 * quadrature(x)) - 1


# %% [markdown]
# ## The logarithm of an estimate
#
# The mean weight is an unbiased estimate of p(x). Its logarithm is not one of log p(x): the logarithm is concave, so by
# Jensen's inequality E[log mean w] <= log E[w] = log p(x), and to first order the bias is -v/(2N). It is the same fact
# as the bounds ELBO = L_1 <= L_10 <= ... <= log p(x) of importance sampling (L12). A log-likelihood that was
# estimated with too few draws is too low, never too high on average, and a bad q makes it much too low.

# %%
SIZES = (10, 100, 1000, 10_000)  # N


def errors(x, mu, sigma, log_p, draws, rng):
    """Relative error (root mean square) of the mean weight; the mean of log(mean weight) - log p; its error; each (4,).

    Every size is used as often as it goes into ``draws``.
    """
    relative, bias, error = [], [], []
    for size in SIZES:
        parts = [log_weights(x, mu, sigma, (draws // size // 10, size), rng) for _ in range(10)]  # to save memory
        estimates = ops.logsumexp(Tensor(np.concatenate(parts))).data - math.log(size) - log_p
        relative.append(math.sqrt(np.square(np.exp(estimates) - 1).mean()))
        bias.append(estimates.mean())
        error.append(estimates.std(ddof=1) / math.sqrt(len(estimates)))
    return np.array(relative), np.array(bias), np.array(error)


def slope(values):
    """The slope of log values (4,) against log N."""
    return np.polyfit(np.log(SIZES), np.log(values), 1)[0]


# %% [markdown]
# ## The figures

# %%
BLUE, ORANGE, GREEN, GRAY = "#3f90da", "#e76300", "#2a8f5b", "#717581"
BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def draw_fits(panel, reverse, forward):
    """The target, and the normal distributions fitted to it."""
    z = np.linspace(-7, 8, 600)
    with no_grad():
        p = np.exp(log_mixture(Tensor(z[:, None])).data)
    panel.fill_between(z, p, color=GRAY, alpha=0.3, linewidth=0, label="p(z)")
    for name, style, (mu, sigma) in zip(("left", "right", "broad"), ("-", "--", ":"), reverse, strict=True):
        panel.plot(z, np.exp(log_normal(z, mu, sigma)), style, color=BLUE, label=f"KL(q ‖ p), {name} optimum")
    panel.plot(z, np.exp(log_normal(z, *forward)), color=ORANGE, label="KL(p ‖ q), the only optimum")
    panel.set(title="A normal q for a p with two modes", xlabel="z", ylabel="density", ylim=(0, 0.92))
    panel.legend(frameon=False, loc="upper right")


def draw_landscape(panel, starts, ends, forward):
    """KL(q || p) over mu and sigma, and where each start ends."""
    mu, sigma = np.linspace(-6, 6, 121), np.geomspace(0.2, 5, 61)
    grid = [Tensor(part.reshape(-1, 1)) for part in np.meshgrid(mu, 2 * np.log(sigma))]
    eps = np.broadcast_to(EPS[:, None, None], (len(EPS), *grid[0].shape))
    with no_grad():
        kl = reverse_kl(log_mixture, *grid, Tensor(eps), Tensor(EPS_WEIGHTS[:, None])).data.reshape(len(sigma), len(mu))
    levels = [0.55, 0.75, 0.95, 1.1, 1.25, 1.5, 2, 3, 5, 8, 13]
    panel.contour(mu, sigma, kl, levels, colors=GRAY, linewidths=0.7)
    colours, markers = (BLUE, ORANGE, GREEN, "black"), "os^D"
    for number, optimum in enumerate(distinct(ends)):
        style = {"color": colours[number % 4], "marker": markers[number % 4]}
        panel.scatter(*starts[np.abs(ends - optimum).max(axis=1) < CLOSE].T, s=16, linewidths=0, **style)
        panel.scatter(*optimum, s=110, edgecolors="black", zorder=3, **style)
        value = f"{divergences(*optimum)[0]:.2f}"
        panel.annotate(value, optimum, xytext=(9, 6), textcoords="offset points", zorder=4, bbox=BOX)
    panel.scatter(*forward, s=80, color="black", marker="x", zorder=3)
    panel.annotate("optimum of KL(p ‖ q)", forward, xytext=(-6, 24), textcoords="offset points", ha="center", bbox=BOX)
    panel.set(title="KL(q ‖ p): starts (small) and optima (large)", xlabel="μ", ylabel="σ", yscale="log")
    panel.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    panel.minorticks_off()


def draw_errors(panel, measured, variances):
    """The relative error against N: measured (points), sqrt(v/N) (lines)."""
    ends = np.array([SIZES[0], SIZES[-1]])
    for (name, relative), v, style in zip(measured.items(), variances, STYLES, strict=True):
        panel.plot(SIZES, relative, style[0], color=style[1], fillstyle=style[2], label=name)
        panel.plot(ends, np.sqrt(v / ends), color=style[1], linewidth=1)
    panel.set(title="Error of the estimated p(x); lines √(v/N)", xlabel="N, draws", ylabel="relative error, rms")
    panel.set(xscale="log", yscale="log")
    panel.legend(frameon=False, loc="lower left")


def draw_bias(panel, measured, variances):
    """The bias of the logarithm against N: measured (points, two standard errors), -v/(2N) (lines)."""
    line = np.geomspace(SIZES[0], SIZES[-1], 100)
    for (name, (bias, error)), v, style in zip(measured.items(), variances, STYLES, strict=True):
        panel.errorbar(SIZES, bias, 2 * error, fmt=style[0], color=style[1], fillstyle=style[2], capsize=3, label=name)
        panel.plot(line, -v / (2 * line), color=style[1], linewidth=1)
    panel.axhline(0, color="black", linewidth=1, linestyle=":")
    panel.set(
        title="Bias of its logarithm; lines −v/(2N)",
        xlabel="N, draws",
        ylabel="nats (linear above −0.01)",
        xscale="log",
    )
    panel.set_yscale("symlog", linthresh=0.01)
    panel.set_ylim(-60, 0.009)
    panel.set_yticks([-10, -1, -0.1, -0.01, 0], ["−10", "−1", "−0.1", "−0.01", "0"])
    panel.legend(frameon=False, loc="lower right")


STYLES = [("o", BLUE, "full"), ("o", BLUE, "none"), ("s", ORANGE, "full"), ("s", ORANGE, "none")]

# %% [markdown]
# ## Expected beside got
#
# The values expected are theory: closed forms where there is one, -log w_k for modes that do not overlap, and to first
# order in 1/N for the bias, with two standard errors; at N = 10 the second order adds about 5 %. Naive Monte Carlo in
# the tail is far from first order until N is in the thousands: of 1,000 draws, three or so come near the posterior, and
# sometimes none.

# %%
CLOSE = 0.02  # of two optima that count as one


def distinct(ends):
    """The different rows (mu, sigma) of the ends (n, 2), in order of sigma."""
    found = []
    for end in ends[ends[:, 1].argsort()]:
        if all(np.abs(end - other).max() >= CLOSE for other in found):
            found.append(end)
    return found


def inference(rng):
    """Rows of the table for q and p, and what the figure needs: starts, ends (n, 2) and the forward optimum."""
    starts = np.stack(np.meshgrid(np.linspace(-5, 5, 11), [0.3, 1.0, 3.0]), axis=-1).reshape(-1, 2)
    ends = np.stack(fit_reverse(log_mixture, *starts.T)[:2], axis=1)
    forward = np.array(fit_forward(log_mixture, 0.0, 1.0))
    mean = WEIGHTS @ MEANS
    closed = np.array([mean, math.sqrt(WEIGHTS @ (SDS**2 + MEANS**2) - mean**2)])

    optima = distinct(ends)
    rows = [(f"optima of KL(q || p) from {len(starts)} starts", "at least one per mode", f"{len(optima)}")]
    names = ["left", "right"] + ["broad"] * (len(optima) - 2)
    for number, (name, optimum) in enumerate(zip(names, optima, strict=True)):
        mode = number < 2
        reverse_value, forward_value = divergences(*optimum)
        rows += [
            (f"{name} optimum: mu", f"{MEANS[number]:.1f}" if mode else "between", f"{optimum[0]:.3f}"),
            (f"{name} optimum: sigma", f"{SDS[number]:.1f}" if mode else "large", f"{optimum[1]:.3f}"),
            (
                f"{name} optimum: KL(q || p)",
                f"{-math.log(WEIGHTS[number]):.3f}" if mode else "no closed form",
                f"{reverse_value:.3f}",
            ),
            (f"{name} optimum: KL(p || q)", "large" if mode else "no closed form", f"{forward_value:.3f}"),
        ]
    values = divergences(*forward)
    rows += [
        ("forward: mu", f"{closed[0]:.3f}", f"{forward[0]:.3f}"),
        ("forward: sigma", f"{closed[1]:.3f}", f"{forward[1]:.3f}"),
        ("forward: difference from mean and sd of p", "below 1e-10", f"{np.abs(forward - closed).max():.1e}"),
        ("forward: KL(q || p)", "more than left", f"{values[0]:.3f}"),
        ("forward: KL(p || q)", "the smallest", f"{values[1]:.3f}"),
    ]

    off = []
    for pair in PAIRS:
        sampled, error = sampled_normal_kl(*pair, 100_000, rng)
        off.append(abs(sampled - normal_kl(*pair)) / error)
    at = -1.0, 0.5  # mu and log sigma² of some q that is no optimum
    single = gradients(log_mixture, *at, rng.standard_normal((1, 100_000, 1)), np.ones((1, 1)))
    exact = gradients(log_mixture, *at, EPS[:, None, None], EPS_WEIGHTS[:, None])[0]
    z_scores = np.abs(single.mean(axis=0) - exact) / (single.std(axis=0, ddof=1) / math.sqrt(len(single)))
    rows += [
        ("closed KL of 5 pairs, Monte Carlo: standard errors", "at most 3", f"{max(off):.1f}"),
        ("gradient by single draws: standard errors", "at most 3", f"{z_scores.max():.1f}"),
    ]
    return rows, starts, ends, forward


def marginal(place, x, draws, rng):
    """Rows of the table for p(x); then v, and what ``errors`` gives, of naive Monte Carlo and importance sampling."""
    log_p = quadrature(x)
    finer = quadrature(x, np.linspace(-25, 25, 30_001))
    (mu,), (sigma,), (minus_elbo,) = fit_reverse(log_joint(x), np.zeros(1), np.ones(1))
    prior, q = (0.0, 1.0), (mu, WIDER * sigma)
    naive, importance = estimate(x, *prior, draws, rng), estimate(x, *q, 100_000, rng, chunk=100_000)
    v = [relative_variance(x, *normal) for normal in (prior, q)]
    measured = [errors(x, *normal, log_p, draws // 2, rng) for normal in (prior, q)]
    (naive_error, naive_bias, spread), (error, bias, _) = measured
    times = np.exp(2 * np.log(naive_error / error).mean())

    rows = [
        ("log p(x) by quadrature", "the reference", f"{log_p:.4f}"),
        ("change on a finer, wider grid", "below 1e-10", f"{abs(finer - log_p):.1e}"),
        (f"naive, {draws:,} draws", f"{log_p:.4f} ± 0.01", f"{naive:.4f}"),
        ("importance sampling, 100,000 draws", f"{log_p:.4f} ± 0.01", f"{importance:.4f}"),
        ("ELBO of the fitted q", f"below {log_p:.4f}", f"{-minus_elbo:.4f}"),
        ("v of the fitted q, not widened", "no guarantee", f"{relative_variance(x, mu, sigma):.2g}"),
        ("v of the widened q", "about 0.2", f"{v[1]:.3f}"),
        ("slope of the error, naive", "-0.5", f"{slope(naive_error):.2f}"),
        ("slope of the error, importance", "-0.5", f"{slope(error):.2f}"),
        ("times fewer draws by importance", f"{v[0] / v[1]:.0f}", f"{times:.0f}"),
        ("bias of log, naive, N = 10", "below 0", f"{naive_bias[0]:.3f}"),
        ("bias of log, naive, N = 10,000", f"{-v[0] / 20_000:.4f} ± {2 * spread[3]:.4f}", f"{naive_bias[3]:.4f}"),
        ("bias of log, importance, N = 10", f"about {-v[1] / 20:.4f}", f"{bias[0]:.4f}"),
    ]
    return [(f"{place}: {what}", expected, got) for what, expected, got in rows], v, measured


# %%
def main():
    parser = argparse.ArgumentParser(description="Both KL divergences, and p(x) three ways, in one dimension.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-07"), help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="a third of the draws")
    parser.add_argument("--seed", type=whole, default=0)
    options = parser.parse_args()
    make_folder(parser, options.out)
    draws = 7_000_000 if options.quick else 20_000_000

    rows, starts, ends, forward = inference(np.random.default_rng([options.seed, 0]))
    variances, error_by_name, bias_by_name = [], {}, {}
    for number, (place, x) in enumerate(POINTS.items(), 1):
        more, v, measured = marginal(place, x, draws, np.random.default_rng([options.seed, number]))
        rows += more
        variances += v
        for name, (relative, *bias) in zip(("naive", "importance"), measured, strict=True):
            error_by_name[f"{name}, {place}"], bias_by_name[f"{name}, {place}"] = relative, bias
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<50} | {expected:<21} | {got}")

    figure = Figure(figsize=(11, 8), dpi=150, layout="constrained")
    panels = figure.subplots(2, 2)
    draw_fits(panels[0, 0], distinct(ends)[:3], forward)
    draw_landscape(panels[0, 1], starts, ends, forward)
    draw_errors(panels[1, 0], error_by_name, variances)
    draw_bias(panels[1, 1], bias_by_name, variances)
    path = options.out / "inference.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
