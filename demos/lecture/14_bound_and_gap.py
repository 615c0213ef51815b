# %% [markdown]
# # The bound, the gap, and what closes it
#
# The lecture's derivation of the loss of a VAE ends in an identity (L14 of the ledger). For any distribution q(z|x)
# over codes,
#
#     log p(x)  =  L(q)  +  KL(q(z|x) || p(z|x))  >=  L(q),        L(q)  =  Σ_z q(z|x) log p(x, z) / q(z|x).
#
# L, which the lecture writes L^v, is the evidence lower bound (ELBO). The KL divergence is the gap: never negative, and
# 0 only when q is the posterior p(z|x). So there are two things to do with L. Raising it by q, the model held fixed,
# closes the gap; raising it by the model, q held fixed, raises the bound on log p(x), and log p(x) itself if the gap
# was closed before (EM, below). This lesson does both with codes that can be enumerated, where each term of the
# identity is a sum that one can take.
#
# Where the lecture is loose, and the right form:
#
# - The encoder is q(z|x), not q(x|z). The derivation multiplies log p(x) by Σ_z q(z|x) = 1; a q(x|z) adds up to 1
#   over x, not over z.
# - L bounds log p(x), not p(x|z), and its reconstruction term is E_q[log p(x|z)], with the logarithm inside.
# - "We cannot compute p(x|z)": that is what a decoder computes, in one pass. Out of reach in a VAE are p(x), a sum over
#   all codes, and with it p(z|x) = p(x|z) p(z) / p(x).
#
# [wrong_on_purpose.py](wrong_on_purpose.py) counts what these slips cost.

# %%
import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scratchgen import SGD, Adam, Tensor, no_grad, ops
from scratchgen.models.bernoulli_mixture import BernoulliMixture
from scratchgen.nn import Dense, Parameter
from scratchgen.optim import cosine
from scratchgen.options import make_folder, whole

# %% [markdown]
# ## A model as two tables
#
# z takes 4 values and x takes 6: p(z) is a list, p(x|z) a table, both drawn at random. A table of q(z|x) has a row for
# each x that adds up to 1. Every row is a case by itself, so each function below takes all of them at once.


# %%
def draw_model(rng, codes=4, values=6):
    """p(z) (codes,) and p(x|z) (values, codes): a row for each x, so that the columns add up to 1."""
    return rng.dirichlet(np.full(codes, 2)), rng.dirichlet(np.full(values, 2), codes).T


def evidence(prior, likelihood):
    """p(x) = Σ_z p(x|z) p(z), (values,)."""
    return likelihood @ prior


def posterior(prior, likelihood):
    """p(z|x) = p(x|z) p(z) / p(x), (values, codes), by Bayes' rule."""
    return likelihood * prior / evidence(prior, likelihood)[:, None]


def kl(q, p):
    """KL(q || p) = Σ_z q log q/p, with 0 log 0 = 0, over the last axis."""
    return (q * (np.log(np.maximum(q, np.finfo(float).tiny)) - np.log(p))).sum(axis=-1)


def bound(q, log_joint):
    """L(q) = Σ_z q(z|x) log p(x, z) / q(z|x), of q and log p(x, z), both (..., codes): minus the KL to p(x, z)."""
    return (q * (log_joint - np.log(np.maximum(q, np.finfo(float).tiny)))).sum(axis=-1)


# %% [markdown]
# ## The identity
#
# Each term is computed by its own formula, for 10,000 random q of each x, some of which give a code no probability at
# all:
#
#     log p(x)  =  log Σ_z p(x|z) p(z)
#     L(q)      =  Σ_z q log p(x, z)/q   =   E_q[log p(x|z)]  -  KL(q || p(z))                       (the second is L15)
#     the gap   =  Σ_z q log q/p(z|x)
#
# That the gap is 0 for q = p(z|x) *alone* is a claim about every other q. Pinsker's inequality makes it a number:
#
#     KL(q || p)  >=  (Σ_z |q - p|)² / 2,
#
# so a small gap means a q near the posterior, and a gap of 0 the posterior itself.


# %%
def draw_q(rng, count, values, codes):
    """Random q (count, values, codes), from flat to nearly certain, and the last ones of a single code."""
    q = rng.dirichlet(np.full(codes, 0.5), (count, values))
    q[-codes:] = np.eye(codes)[:, None]
    return q


def check_identity(prior, likelihood, rng, count):
    """The rows of the table about L14, for ``count`` random q of each x."""
    q, p = draw_q(rng, count, *likelihood.shape), posterior(prior, likelihood)
    log_p, log_joint = np.log(evidence(prior, likelihood)), np.log(likelihood * prior)
    lower, gap = bound(q, log_joint), kl(q, p)
    other_form = (q * np.log(likelihood)).sum(axis=-1) - kl(q, prior)
    distance = np.abs(q - p).sum(axis=-1)
    return [
        ("|log p(x) - L - KL(q || p(z|x))|, largest", "below 1e-12", f"{np.abs(log_p - lower - gap).max():.1e}"),
        ("|L - (E_q[log p(x|z)] - KL(q || p(z)))|", "below 1e-12", f"{np.abs(lower - other_form).max():.1e}"),
        ("smallest gap of these q", "above 0", f"{gap.min():.1e}"),
        ("smallest gap / its lower limit by Pinsker", "at least 1", f"{(gap / (distance**2 / 2)).min():.4f}"),
        ("|log p(x) - L(p(z|x))|, largest", "below 1e-12", f"{np.abs(log_p - bound(p, log_joint)).max():.1e}"),
    ]


# %% [markdown]
# ## Closing the gap by gradient
#
# Bayes' rule gives the posterior here, but only because p(x) can be summed. L needs no p(x): log p(x, z) is prior plus
# decoder. So let q be a softmax of free numbers, one for each x and z, and follow the gradient of L with the engine.
# With the logits a, dL/da_z = q_z (log p(x, z)/q_z - L), which is 0 where log p(x, z)/q is the same for all z of q: at
# the posterior. Nobody tells the ascent what p(z|x) is; it is where it ends.


# %%
def ascend(log_joint, steps, lr=2.0):
    """q (values, codes) after gradient ascent of the bound, and the bounds (steps, values) on the way."""
    logits = Parameter(np.zeros(log_joint.shape))
    optimizer, bounds = SGD([logits], lr), []
    for _ in range(steps):
        lower = (ops.softmax(logits) * (log_joint - ops.log_softmax(logits))).sum(axis=-1)
        optimizer.zero_grad()
        (-lower).sum().backward()
        optimizer.step()
        bounds.append(lower.data)
    return ops.softmax(logits).data, np.array(bounds)


# %% [markdown]
# ## EM: both halves, in turn
#
# Now there is a model to learn: a mixture of three products of Bernoulli distributions, z the component, x twelve
# binary pixels. Expectation-maximisation climbs L in two half steps (Neal & Hinton 1998):
#
#     E-step:  q(z|x) = p(z|x)                               the best q of this model: the gap is 0, and L = log p(x)
#     M-step:  p(z) = mean of q,  p(x_d = 1|z) = mean of x_d weighted by q            the best model for this q
#
# The E-step leaves log p(x) as it is. The M-step raises L from log p(x), so log p(x), which is above L, must rise at
# least as much. More: q is now the posterior of the model before, and a new gap opens, which the next E-step closes.
# That is the proof that EM never lowers the likelihood.


# %%
COMPONENTS, PIXELS = 3, 12


def draw_images(n, rng):
    """Binary images (n, PIXELS) of a mixture whose templates are on with probability 0.2 or 0.8."""
    truth = BernoulliMixture(COMPONENTS)
    truth.log_weights = np.log([0.5, 0.3, 0.2])
    truth.templates = rng.choice([0.2, 0.8], (COMPONENTS, PIXELS))
    return truth.sample(n, rng)[0]


def first_mixture(x, rng):
    """Where ``BernoulliMixture.fit`` starts EM from."""
    return BernoulliMixture(COMPONENTS, smoothing=1e-9).fit(x, rng=rng, iterations=0)


def e_step(mixture, x):
    """q(z|x) (n, COMPONENTS): the posterior."""
    return mixture.posterior(x)


def m_step(mixture, x, q):
    """The mixture's parameters that maximise the bound, for q (n, COMPONENTS)."""
    mixture.log_weights = np.log(q.mean(axis=0))
    mixture.templates = q.T @ x / q.sum(axis=0)[:, None]


def run_em(mixture, x, iterations):
    """EM in place; mean bound and mean log p(x) after each half step, and before the first, (1 + 2 iterations, 2)."""

    def look(q):
        return bound(q, mixture.log_joint(x)).mean(), mixture.log_prob(x).mean()

    seen = [look(np.full((len(x), COMPONENTS), 1 / COMPONENTS))]
    for _ in range(iterations):
        q = e_step(mixture, x)
        seen.append(look(q))
        m_step(mixture, x, q)
        seen.append(look(q))
    return np.array(seen)


# %% [markdown]
# ## One network for every x: amortisation
#
# Free logits are a table with a row for each x. With 60,000 images that is an optimisation for each one in every step,
# and nothing for an image not seen before. A VAE *amortises* it: one network, the encoder, gives q(z|x) for every x,
# and its parameters ascend the mean of L.
#
# It can be as good, if the network can be the posterior. Of this mixture, log p(x, z) is linear in x, so the posterior
# is a softmax of a linear function: one dense layer suffices. It is trained on some images with the model held fixed.
# If it has become the posterior, the gap is also closed on images that it has never seen. A second encoder sees but
# half of the pixels: its gap stays open, and L stays below log p(x) by that much. What a VAE's encoder cannot express
# or has not learned is lost in the same way.
#
# A VAE differs from EM in one more way: its M-step has no closed form either, so it raises L by both networks at once.


# %%
def train_encoder(mixture, x, held_out, rng, steps, visible=PIXELS, lr=0.1):
    """Mean gap log p(x) - L of images x and of held-out ones, (steps, 2), while an encoder learns to raise L of x.

    The encoder is one dense layer from the first ``visible`` pixels to the logits of q.
    """
    encoder, gaps = Dense(visible, COMPONENTS, rng, "identity", dtype=np.float64), []
    optimizer, images = Adam(encoder, cosine(lr, steps)), np.concatenate([x, held_out])
    log_joint, log_p = mixture.log_joint(images), mixture.log_prob(images)
    for _ in range(steps):
        logits = encoder(Tensor(x[:, :visible]))
        lower = (ops.softmax(logits) * (log_joint[: len(x)] - ops.log_softmax(logits))).sum(axis=-1)
        optimizer.zero_grad()
        (-lower).mean().backward()
        optimizer.step()
        with no_grad():
            q = ops.softmax(encoder(Tensor(images[:, :visible]))).data
        gap = log_p - bound(q, log_joint)
        gaps.append((gap[: len(x)].mean(), gap[len(x) :].mean()))
    return np.array(gaps)


# %% [markdown]
# ## The figure
#
# In the first panel z has two values, so that q is one number: the cat of the lecture, with p(z=1) = 1/3, and an x with
# p(x|z=1) = 0.7 and p(x|z=0) = 0.1. The bound touches log p(x) once, at the posterior. Without the logarithm it is
# above log p(x) for every q, and its maximum is somewhere else.

# %%
BLUE, ORANGE = "#3f90da", "#e76300"


def draw_two_codes(panel):
    """The bound over q(z=1|x), and the same without the logarithm."""
    prior, likelihood, first = np.array([2 / 3, 1 / 3]), np.array([[0.1, 0.7]]), np.linspace(0, 1, 401)
    q = np.stack([1 - first, first], axis=-1)
    log_p, best = math.log(evidence(prior, likelihood)[0]), posterior(prior, likelihood)[0, 1]
    lower = bound(q, np.log(likelihood * prior))
    panel.axhline(log_p, color="black", linestyle="--", label="log p(x)")
    panel.fill_between(first, lower, log_p, color=BLUE, alpha=0.15, linewidth=0, label="gap = KL(q ‖ p(z|x))")
    panel.plot(first, lower, color=BLUE, label="bound L")
    without = (q * likelihood).sum(axis=-1) - kl(q, prior)
    panel.plot(first, without, color=ORANGE, linestyle="-.", label="L without the logarithm")
    panel.axvline(best, color="gray", linestyle=":", linewidth=1)
    panel.annotate(f"p(z=1|x) = {best:.2f}", (best - 0.02, -2.6), ha="right", color="dimgray", fontsize=9)
    panel.set(title="Two codes: L touches log p(x) at the posterior", xlabel="q(z=1|x)", ylabel="nats")
    panel.set(xlim=(0, 1), ylim=(-2.75, 1.5))
    panel.legend(loc="upper left", frameon=False, fontsize=9, ncols=2)


def draw_ascent(panel, gaps):
    """The gap of every x during gradient ascent, (steps, values); below 1e-15 it is rounding."""
    lines = panel.semilogy(np.arange(len(gaps)), np.maximum(gaps, 1e-15), color=BLUE, linewidth=1.2)
    lines[0].set_label("one line for each x, down to rounding")
    panel.set(title="Gradient ascent of q closes the gap", xlabel="step", ylabel="log p(x) − L, nats")
    panel.legend(frameon=False, fontsize=9)


def draw_em(panel, seen, half_steps=11):
    """Bound and log p(x) after each half step from the first M-step on; the rise to it would dwarf the others."""
    seen = seen[2 : 2 + half_steps]
    half = np.arange(len(seen))
    panel.plot(half, seen[:, 1], color="black", marker="o", markersize=4, label="log p(x)")
    panel.plot(half, seen[:, 0], color=BLUE, marker="s", markersize=4, label="bound L")
    panel.fill_between(half, *seen.T, color=BLUE, alpha=0.15, linewidth=0)
    panel.set_xticks(half, [f"{'ME'[step % 2]}{1 + (step + 1) // 2}" for step in half])
    panel.set(
        title="EM on a Bernoulli mixture", xlabel="E-step or M-step, its number", ylabel="nats, mean of all images"
    )
    panel.legend(loc="lower right", frameon=False, fontsize=9)


def draw_encoders(panel, full, poor):
    """The mean gaps of both encoders during training, each (steps, 2)."""
    steps = np.arange(1, len(full) + 1)
    panel.semilogy(steps, poor[:, 1], color=ORANGE, label="sees half of the pixels, held-out images")
    panel.semilogy(steps, full[:, 1], color=BLUE, label="sees all pixels, held-out images")
    panel.semilogy(steps, full[:, 0], color="black", linestyle=":", label="sees all pixels, images trained on")
    panel.set(title="Encoders of one dense layer", xlabel="step", ylabel="log p(x) − L, nats, mean")
    panel.legend(frameon=False, fontsize=9)


# %% [markdown]
# ## Expected beside got
#
# What is expected follows from the text above. Identities hold to rounding, for which 1e-12 is a generous limit, and so
# do inequalities that may be equalities. The comparison with `BernoulliMixture.fit` allows for its pseudo-counts of
# 1e-9. How far the encoders get, and EM, is no theorem: these limits were set after runs with seeds 0 to 7.


# %%
def main():
    parser = argparse.ArgumentParser(description="log p(x) = bound + gap with every term enumerated; EM; amortisation.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-14"), help="folder for the figure")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the random q, 300 of the encoders' 1,000 steps"
    )
    parser.add_argument("--seed", type=whole, default=0)
    options = parser.parse_args()
    make_folder(parser, options.out)
    count, steps = (1_000, 300) if options.quick else (10_000, 1_000)
    rng = np.random.default_rng(options.seed)

    prior, likelihood = draw_model(rng)
    log_p, log_joint = np.log(evidence(prior, likelihood)), np.log(likelihood * prior)
    ascended, bounds = ascend(log_joint, 1_500)
    gap = np.abs(log_p - bound(ascended, log_joint)).max()

    x = draw_images(1_000, rng)
    train, held_out = x[:500], x[500:]
    mixture = first_mixture(train, np.random.default_rng(options.seed))
    seen = run_em(mixture, train, 30)
    fitted = BernoulliMixture(COMPONENTS, smoothing=1e-9).fit(
        train, rng=np.random.default_rng(options.seed), iterations=30
    )
    rises, e_steps, m_steps = np.diff(seen, axis=0), seen[1::2], seen[2::2]
    in_m_steps = rises[1::2]

    full, poor = (train_encoder(mixture, train, held_out, rng, steps, visible) for visible in (PIXELS, PIXELS // 2))

    least = "below 0.05" if options.quick else "below 0.01"
    rows = [
        *check_identity(prior, likelihood, rng, count),
        ("ascent of q: gap at its end, largest", "below 1e-12", f"{gap:.1e}"),
        (
            "|q - p(z|x)| at its end, largest",
            "below 1e-6",
            f"{np.abs(ascended - posterior(prior, likelihood)).max():.1e}",
        ),
        ("EM: |log p(x) - L| after an E-step, largest", "below 1e-12", f"{np.abs(np.diff(e_steps)).max():.1e}"),
        ("EM: log p(x) - L after the first M-step", "above 0", f"{-np.subtract(*m_steps[0]):.4f}"),
        ("EM: smallest rise of L in a half step", "above -1e-12", f"{rises[:, 0].min():.1e}"),
        ("EM: smallest rise of log p(x) in an M-step", "above -1e-12", f"{in_m_steps[:, 1].min():.1e}"),
        ("EM: that rise - the rise of L, smallest", "above -1e-12", f"{np.diff(in_m_steps).min():.1e}"),
        ("EM: rise of log p(x) in all", "above 0.1", f"{seen[-1, 1] - seen[0, 1]:.3f}"),
        (
            "|templates - BernoulliMixture.fit's|, largest",
            "below 1e-6",
            f"{np.abs(mixture.templates - fitted.templates).max():.1e}",
        ),
        ("encoder: mean gap, images trained on", least, f"{full[-1, 0]:.1e}"),
        ("encoder: mean gap, held-out images", least, f"{full[-1, 1]:.1e}"),
        ("the same where it sees half of the pixels", "above 0.1", f"{poor[-1, 1]:.2f}"),
    ]
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<46} | {expected:<13} | {got}")

    figure = Figure(figsize=(12, 8), dpi=150, layout="constrained")
    (two_codes, ascent), (em, encoders) = figure.subplots(2, 2)
    draw_two_codes(two_codes)
    draw_ascent(ascent, log_p - bounds[:120])
    draw_em(em, seen)
    draw_encoders(encoders, full, poor)
    path = options.out / "bound_and_gap.png"
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    main()
