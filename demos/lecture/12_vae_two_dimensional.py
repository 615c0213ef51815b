# %% [markdown]
# # A variational autoencoder that can be checked: z in R, x in R²
#
# This is the lecture's worked example (L12 of the ledger): one latent number z, points x of the plane, and a decoder
# with a mean and a variance of its own for both coordinates. It is small enough that nothing has to be believed. As z
# is one number, log p(x) is an integral over a line, and the bound that trains a VAE can be put beside it.
#
# Some words first, as slides often swap them:
#
# - the encoder is q(z|x), a distribution over codes: not q(x|z);
# - decoding draws x ~ p(x|z): not from q, which never draws data;
# - the ELBO bounds log p(x) from below: not p(x|z), which a VAE computes without any trouble;
# - its reconstruction term is E_q[log p(x|z)], with the logarithm inside, and is averaged over the samples l = 1..M.

# %%
import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from scratchgen import Tensor, no_grad
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.optim import Adam
from scratchgen.options import make_folder, positive, whole

# %% [markdown]
# ## The data
#
# A hidden z gives a point on a curve, at radius √z and angle πz/4, and noise of standard deviation 0.1 z² in both
# coordinates: a thread at the origin that frays towards its end. The lecture does not say how z is drawn; here it is
# uniform on [0, 1]. The model will see x alone, and will have to find both the curve and the fraying.


# %%
def draw_data(n, rng):
    """Points x (n, 2) and the hidden z (n,) that made them."""
    z = rng.uniform(0, 1, n)
    curve = np.sqrt(z) * np.stack([np.cos(math.pi * z / 4), np.sin(math.pi * z / 4)])
    return (curve + 0.1 * z**2 * rng.standard_normal((2, n))).T, z


# %% [markdown]
# ## Two small networks and the whole algorithm
#
# The encoder 2-5-6-1 gives mu(x) and log sigma²(x) of q(z|x) = N(mu, sigma²); the decoder 1-5-6-2 gives mean and log
# variance of p(x|z), with a standard deviation of at least `sigma_floor`; the prior p(z) is N(0, 1). A step draws 640
# fresh points and one noise a point (M = 1), computes the two terms of
#
#     log p(x)  >=  ELBO(x)  =  E_q[log p(x|z)]  -  KL(q(z|x) || p(z))                                  (L15)
#
# and follows the gradient with Adam at learning rate 0.01; 2,000 steps.
#
# One line is not in the lecture: the bias of the encoder's log sigma² begins at -4 instead of 0. A model that ignores z
# is a stationary point of the loss (posterior collapse): the decoder does not need the code, so the KL term makes the
# encoder send nothing, so the decoder cannot need it. Every run passes close by: look at the KL at step 100. With the
# bias at 0, q begins near N(0, 1) for every x, its codes are mostly noise, and some runs never get away. Of seeds 0 to
# 49, 45 reached a mean log p(x) of 1.8 nats, 2 were late and 3 stuck near 0.4. When q begins narrow, 49 did, and the
# other was late. `--study 50` counts them again, in about four minutes.


# %%
CONFIG = VAEConfig(
    input_dim=2,
    latent_dim=1,
    encoder_hidden=(5, 6),
    decoder_hidden=(5, 6),
    activation="softplus",
    likelihood="gaussian",
    sigma_floor=0.01,
)


def train(seed, steps, first_logvar=-4.0, report=print):
    """A trained VAE, in float64: at this size it costs nothing, and the checks below are about small differences."""
    rng = np.random.default_rng(seed)
    model = VAE(CONFIG, rng, np.float64)
    model.encoder_logvar.bias.write(np.array([first_logvar]))
    optimizer = Adam(model, lr=0.01)
    for step in range(1, steps + 1):
        x, _ = draw_data(640, rng)
        noise = rng.standard_normal((1, 640, 1))  # (M, batch, latent dimensions)
        reconstruction, kl = model.negative_elbo(Tensor(x), Tensor(noise))
        loss = reconstruction.mean() + kl.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (1, 10, 100) or step % 500 == 0:
            terms = f"{-reconstruction.mean().item():6.3f} - {kl.mean().item():.3f}"
            report(f"step {step:4d}: ELBO {-loss.item():6.3f} = {terms}")
    return model


# %% [markdown]
# ## log p(x) by quadrature
#
# With one latent dimension, p(x) = ∫ p(x|z) p(z) dz (L12) is a sum over a grid of z. For a smooth integrand that has
# died out at both ends, the plain sum times the spacing converges faster than any power of the spacing, as soon as
# the spacing is below the width of the narrowest peak. Sums of densities are taken as logsumexp: e^-800 is 0 in
# floating point, its logarithm is harmless.
#
# The same grid gives the true posterior p(z|x) = p(x|z) p(z) / p(x), and how far the encoder is from it.


# %%
LOG_2PI = math.log(2 * math.pi)


def decode(model, z):
    """Mean and standard deviation of p(x|z), each (n, 2), of codes z (n,)."""
    with no_grad():
        mean, logvar = model.decode(Tensor(z[:, None]))
    return mean.data, np.exp(logvar.data / 2)


def encode(model, x):
    """Mean and standard deviation of q(z|x), each (n,), of points x (n, 2)."""
    with no_grad():
        mu, logvar = model.encode(Tensor(x))
    return mu.data[:, 0], np.exp(logvar.data[:, 0] / 2)


def log_joint(model, x, z):
    """log p(x|z) + log p(z) (grid, n), of points x (n, 2) and codes z (grid,)."""
    mean, sd = decode(model, z)
    log_likelihood = -(np.log(sd).sum(axis=1)[:, None] + LOG_2PI)
    for d in range(2):
        log_likelihood = log_likelihood - ((x[:, d] - mean[:, d, None]) / sd[:, d, None]) ** 2 / 2
    return log_likelihood - (z[:, None] ** 2 + LOG_2PI) / 2


def logsumexp(a, axis):
    """log Σ e^a along an axis, without overflow."""
    largest = a.max(axis=axis, keepdims=True)
    return np.log(np.exp(a - largest).sum(axis=axis)) + largest.squeeze(axis)


def quadrature(model, x, limit=8.0, nodes=2001):
    """log p(x) and KL(q(z|x) || p(z|x)), each (n,), on a grid of z from -limit to limit."""
    z, spacing = np.linspace(-limit, limit, nodes, retstep=True)
    log_p, kl = [], []
    for part in np.array_split(x, math.ceil(len(x) / 100)):  # 100 points at a time stay in the cache
        joint = log_joint(model, part, z)
        log_p.append(logsumexp(joint, axis=0) + math.log(spacing))
        mu, sigma = encode(model, part)
        log_q = -((z[:, None] - mu) ** 2) / (2 * sigma**2) - np.log(sigma) - LOG_2PI / 2
        kl.append((np.exp(log_q) * (log_q - joint + log_p[-1])).sum(axis=0) * spacing)
    return np.concatenate(log_p), np.concatenate(kl)


# %% [markdown]
# ## The bounds
#
# With K draws of z from q(z|x) and the weights w = p(x|z) p(z) / q(z|x),
#
#     L_K  =  E[log (w_1 + ... + w_K) / K],        ELBO = L_1  <=  L_10  <=  L_100  <=  ...  <=  log p(x).
#
# Each is the mean of many estimates. Here the same draws serve every K, in groups of 1, 10, 100 and 1,000: each group
# of 1,000 is made of whole groups of 100, so by Jensen the estimates themselves rise with K at every point. Only the
# last inequality, the one with log p(x), is subject to chance.
#
# Of the two ways to estimate the ELBO, this one samples the KL term too (L15). When q is the true posterior the weight
# is p(x) whatever z, and the estimate has no variance: the right one for looking at small gaps.

# %%
SIZES = (1, 10, 100, 1000)  # K


def bounds(model, x, repeats, rng):
    """Estimates of L_K and their standard errors, each (len(SIZES), n), from ``repeats`` times 1,000 draws a point."""
    with no_grad():
        draws = [rng.standard_normal((SIZES[-1], len(x), 1)) for _ in range(repeats)]
        weights = np.concatenate([model.log_weights(Tensor(x), Tensor(noise)).data for noise in draws])
    estimates, errors = [], []
    for size in SIZES:
        groups = logsumexp(weights.reshape(-1, size, len(x)), axis=1) - math.log(size)
        estimates.append(groups.mean(axis=0))
        errors.append(groups.std(axis=0, ddof=1) / math.sqrt(len(groups)))
    return np.array(estimates), np.array(errors)


# %% [markdown]
# ## What the decoder learned about the noise
#
# The data's noise is the same in all directions, the learned one need not be. Noise *along* the curve moves a point to
# where another z would have put it, and the model may explain it by z; only noise *across* the curve has to be in the
# decoder's variance. So sigma is also looked at in these two directions, at z = mu(x).


# %%
def learned_noise(model, z):
    """Standard deviation of p(x|z) across and along the curve of means, each (n,), of codes z (n,)."""
    _, sd = decode(model, z)
    tangent = decode(model, z + 1e-4)[0] - decode(model, z - 1e-4)[0]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = tangent[:, ::-1] * [-1, 1]
    return np.linalg.norm(normal * sd, axis=1), np.linalg.norm(tangent * sd, axis=1)


def rank_correlation(a, b):
    """Spearman's: the correlation of the ranks."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


# %% [markdown]
# ## The figure

# %%
BLUE, ORANGE = "#3f90da", "#e76300"


def density(model, n=180):
    """log p(x) (n, n) on a grid of the plane, its axes (n,) and (n,), and the probability inside."""
    x1, x2 = np.linspace(-0.35, 1.25, n), np.linspace(-0.2, 1.4, n)
    log_p, _ = quadrature(model, np.stack(np.meshgrid(x1, x2), axis=-1).reshape(-1, 2))
    return log_p.reshape(n, n), x1, x2, float(np.exp(log_p).sum() * (x1[1] - x1[0]) * (x2[1] - x2[0]))


def draw_density(panel, model, x, log_p, x1, x2):
    """p(x) as filled contours, the curve of the decoder's means, and ellipses of one standard deviation."""
    filled = panel.contourf(x1, x2, log_p, np.arange(-5, 6), cmap="Blues", extend="max")
    panel.figure.colorbar(filled, ax=panel, shrink=0.6, pad=0.02, label="log p(x), nats")
    panel.scatter(*x.T, s=5, color=ORANGE, linewidths=0, label="data")
    panel.plot(*decode(model, np.linspace(-3, 3, 400))[0].T, color="black", linewidth=1, label="mean of p(x|z)")
    codes = np.arange(-2.0, 3.0)
    for code, mean, sd in zip(codes, *decode(model, codes), strict=True):
        panel.add_patch(Ellipse(mean, *(2 * sd), fill=False, linewidth=1.3))
        panel.annotate(f"z = {code:.0f}".replace("-", "−"), (mean[0] + sd[0] + 0.02, mean[1] - 0.05), fontsize=9)
    panel.set(title="The learned density, and ±1 sd of p(x|z)", xlabel="x₁", ylabel="x₂", aspect="equal")
    panel.set(xlim=x1[[0, -1]], ylim=x2[[0, -1]])
    panel.legend(loc="upper left", frameon=False)


def draw_noise(panel, model, x, z):
    """The decoder's standard deviation against the z of the data."""
    across, along = learned_noise(model, encode(model, x)[0])
    panel.scatter(z, across, s=6, color=BLUE, linewidths=0, label="learned, across the curve")
    panel.scatter(z, along, s=6, color=ORANGE, linewidths=0, label="learned, along the curve")
    line = np.linspace(0, 1, 100)
    panel.plot(line, 0.1 * line**2, color="black", linestyle="--", label="data, 0.1 z²")
    panel.axhline(CONFIG.sigma_floor, color="gray", linestyle=":", label="floor of the decoder")
    panel.set(title="σ of p(x|z) at z = μ(x)", xlabel="z of the data, which the model never saw", ylabel="σ")
    panel.legend(frameon=False)


def draw_bounds(panel, estimates, errors, log_p):
    """L_K by K below log p(x), means of all points, with two standard errors."""
    panel.axhline(log_p.mean(), color="black", linestyle="--", label="log p(x), by quadrature")
    panel.errorbar(SIZES, estimates, 2 * errors, color=BLUE, marker="o", capsize=3, label="L_K, where L_1 is the ELBO")
    panel.set(title="The bounds, mean of all points", xlabel="K, draws of z", ylabel="nats", xscale="log")
    panel.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    panel.minorticks_off()
    panel.legend(loc="lower right", frameon=False)


# %% [markdown]
# ## Expected beside got
#
# - log p(x) - ELBO = KL(q(z|x) || p(z|x)): at every point the sampled gap is the KL by quadrature, within the error of
#   sampling, and nowhere is the ELBO above log p(x), chance being allowed four standard errors.
# - The mean of log p(x) is positive: p(x) is a density and may exceed 1. (That log p(x|z) is 0 for a perfect
#   reconstruction holds for binary x only.)
# - N(0, 1) is symmetric, so the learned z may run either way along the curve; its ranks are those of the data's z, or
#   the reverse.
# - Across the curve, sigma grows with 0.1 z² at a slope that is still somewhat below 1 after 2,000 steps, and starts
#   from the floor. Along it, every seed finds another slope: this noise the data hardly determine.


# %%
def study(seeds):
    """Where training ends, from both starts of the encoder: the counts in the text above."""
    for first_logvar in (0.0, -4.0):
        ends = []
        for seed in range(seeds):
            model = train(seed, 2000, first_logvar, report=lambda _: None)
            ends.append(quadrature(model, draw_data(400, np.random.default_rng([seed, 1]))[0])[0].mean())
        good, stuck = sum(end >= 1.8 for end in ends), sum(end < 0.6 for end in ends)
        print(f"bias {first_logvar:4.1f}: {good} of {seeds} good, {seeds - good - stuck} late, {stuck} stuck")


# %%
def main():
    parser = argparse.ArgumentParser(description="A VAE with one latent number, checked against quadrature.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-12"), help="folder for the figure")
    parser.add_argument("--quick", action="store_true", help="half the steps, a quarter of the points and draws")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--study", type=positive, metavar="N", help="only train seeds 0 to N - 1 from both starts, and count"
    )
    options = parser.parse_args()
    if options.study:
        return study(options.study)
    make_folder(parser, options.out)
    steps, points, repeats = (1000, 100, 5) if options.quick else (2000, 400, 20)

    model = train(options.seed, steps)
    rng = np.random.default_rng([options.seed, 1])  # for points that training has not drawn
    x, z = draw_data(points, rng)
    log_p, kl = quadrature(model, x)
    finer, _ = quadrature(model, x, limit=10.0, nodes=6001)
    estimates, errors = bounds(model, x, repeats, rng)
    means, mean_errors = estimates.mean(axis=1), np.sqrt((errors**2).sum(axis=1)) / points
    off = np.abs(log_p - estimates[0] - kl) / errors[0]
    above = (estimates[:3] > log_p + 4 * errors[:3]).any(axis=0)  # L_1000 has too few estimates a point for this
    *grid, inside = density(model)

    mu, _ = encode(model, x)
    sigma = np.sqrt(decode(model, mu)[1].prod(axis=1))  # geometric mean of both coordinates
    across, along = (np.polyfit(0.1 * z**2, noise, 1)[0] for noise in learned_noise(model, mu))

    rows = [
        ("log p(x), change on a finer, wider grid", "below 1e-10", f"{np.abs(finer - log_p).max():.1e}"),
        ("p(x) summed over the figure", "0.99 to 1", f"{inside:.4f}"),
        ("mean ELBO = L_1", "below L_10", f"{means[0]:.4f}"),
        ("mean L_10", "below L_100", f"{means[1]:.4f}"),
        ("mean L_100", "below L_1000", f"{means[2]:.4f}"),
        ("mean L_1000", "at most log p(x)", f"{means[3]:.4f}"),
        ("standard error of mean L_1000", "small", f"{mean_errors[3]:.4f}"),
        ("mean log p(x), by quadrature", "about 2", f"{log_p.mean():.4f}"),
        ("mean KL(q(z|x) || p(z|x)), by quadrature", "log p(x) - ELBO", f"{kl.mean():.4f}"),
        ("mean log p(x) - ELBO, sampled", "the KL above", f"{log_p.mean() - means[0]:.4f}"),
        ("standard errors between the two, at a point", "at most 5", f"{off.max():.1f}"),
        ("points with L_1, L_10 or L_100 > log p(x)", "0", f"{above.sum()}"),
        ("|rank correlation| of mu(x) with z", "above 0.9", f"{abs(rank_correlation(mu, z)):.3f}"),
        ("rank correlation of sigma with z", "above 0.9", f"{rank_correlation(sigma, z):.3f}"),
        ("sigma across the curve on 0.1 z², slope", "0.4 to 1" if options.quick else "0.7 to 1", f"{across:.2f}"),
        ("sigma along the curve on 0.1 z², slope", "not determined", f"{along:.2f}"),
    ]
    print()
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<43} | {expected:<16} | {got}")

    figure = Figure(figsize=(12, 6), dpi=150, layout="constrained")
    panels = figure.subplot_mosaic([["density", "noise"], ["density", "bounds"]], width_ratios=[1.15, 1])
    draw_density(panels["density"], model, x, *grid)
    draw_noise(panels["noise"], model, x, z)
    draw_bounds(panels["bounds"], means, mean_errors, log_p)
    path = options.out / "vae_two_dimensional.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
