# %% [markdown]
# # Wrong on purpose
#
# Fourteen places where the lecture is wrong or loose, and the three commonest faults of public code. Each entry says
# what is written and what is right, and computes a small case where the two differ, for you to change and run again.
# Most are slips of notation, which cost a reader an hour; a program that follows them literally is wrong. For the three
# faults there is also the symptom that they show in training, and the check that finds them.
#
# The columns of each table: the quantity, its value as it is written, its value in the right form.

# %%
import argparse
import itertools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.figure import Figure

from scratchgen import VAE, Adam, RandomStream, Tensor, VAEConfig, draw_strokes, no_grad, ops
from scratchgen.evaluation.likelihood import active_units, importance_nll
from scratchgen.init import he_normal
from scratchgen.models.gan import discriminator_loss, generator_loss
from scratchgen.nn import Dense, Sequential, mlp
from scratchgen.options import make_folder

parser = argparse.ArgumentParser(description="Where the lecture is loose: counterexamples in numbers.")
parser.add_argument("--out", type=Path, default=Path("runs/demo-wrong"), help="folder for the figure")
parser.add_argument("--quick", action="store_true", help="train the three faults for a shorter time")
options = parser.parse_args(None if __name__ == "__main__" else ["--quick"])
if __name__ == "__main__":
    make_folder(parser, options.out)

Row = tuple[str, float | str, float]  # what it is, its value as written, its value in the right form


def entry(compute: Callable[[], list[Row]]) -> Callable[[], list[Row]]:
    """Print the table of an entry, if this file is run and not imported."""
    if __name__ == "__main__":
        for what, *values in (("", "as written", "right"), *compute()):
            cells = (value if isinstance(value, str) else f"{value:.4g}" for value in values)
            print(f"{what:<56}", *(f"{cell:>10}" for cell in cells), sep=" | ")
    return compute


# %% [markdown]
# Many entries need nothing but a code z of two values and data x of three, with a prior and a likelihood as tables. All
# sums can then be taken, and nothing has to be estimated.

# %%
PRIOR = np.array([[1 / 3], [2 / 3]])  # p(z)
LIKELIHOOD = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # p(x|z), a row for each z
EVIDENCE = (PRIOR * LIKELIHOOD).sum(axis=0)  # p(x)
POSTERIOR = PRIOR * LIKELIHOOD / EVIDENCE  # p(z|x), a column for each x


def bound(q):
    """E_q[log p(x|z)] - KL(q(z|x) || p(z)) (3,) of a table q (2, 3) (L15)."""
    return (q * (np.log(LIKELIHOOD) - np.log(q / PRIOR))).sum(axis=0)


# %% [markdown]
# ## 1. The encoder is q(z|x), not q(x|z)
#
# The lecture derives the bound from log p(x) = Σ_z q(x|z) log p(x). That holds for weights that add up to 1 over z: of
# a distribution over codes, q(z|x). A distribution over data, q(x|z), adds up to 1 over x. Here it is the posterior
# turned round, and the first step of the derivation already fails.


# %%
@entry
def the_encoder() -> list[Row]:
    turned = POSTERIOR / POSTERIOR.sum(axis=1, keepdims=True)  # adds up to 1 over x
    weights = turned[:, 0].sum(), POSTERIOR[:, 0].sum()
    return [
        ("sum over z of q, for the first x", *weights),
        ("sum over z of q log p(x)", *(weight * math.log(EVIDENCE[0]) for weight in weights)),
        ("log p(x), which that should be", math.log(EVIDENCE[0]), math.log(EVIDENCE[0])),
    ]


# %% [markdown]
# ## 2. Decoding draws from p(x|z), and the bound is one of log p(x)
#
# "Decoding x ~ q(x|z)": q is the encoder, and turned round it does not give the data's distribution. "A lower bound of
# p(x|z)": for some z the bound is above log p(x|z), but never above log p(x), whatever q is.


# %%
@entry
def the_decoder() -> list[Row]:
    q = ops.softmax(Tensor(np.random.default_rng(0).normal(size=(1000, 3, 2)))).data.swapaxes(1, 2)  # (1000, 2, 3)
    bounds = np.array([bound(table) for table in q])
    turned = POSTERIOR / POSTERIOR.sum(axis=1, keepdims=True)
    decoded = [(PRIOR * table).sum(axis=0) for table in (turned, LIKELIHOOD)]
    return [
        ("|distribution of decoded x - p(x)|, largest", *(np.abs(x - EVIDENCE).max() for x in decoded)),
        (
            "bound - what it should be below, largest of 1,000 q",
            (bounds[:, None] - np.log(LIKELIHOOD)).max(),
            (bounds - np.log(EVIDENCE)).max(),
        ),
    ]


# %% [markdown]
# ## 3. The reconstruction term is E_q[log p(x|z)], with the logarithm
#
# The lecture's last line of the derivation drops it. E_q[p(x|z)] - KL is no bound of log p(x): already at q = p(z),
# where the KL is 0, it is a positive number, and the log of a probability is not. Nor is its best q the posterior:
# setting the derivative to zero gives q proportional to p(z) e^p(x|z) instead of p(z) p(x|z).


# %%
@entry
def the_logarithm() -> list[Row]:
    best = PRIOR * np.exp(LIKELIHOOD)
    best /= best.sum(axis=0)
    without = (best * (LIKELIHOOD - np.log(best / PRIOR))).sum(axis=0)
    return [
        (
            "bound at its best q - log p(x), largest",
            *((b - np.log(EVIDENCE)).max() for b in (without, bound(POSTERIOR))),
        ),
        ("|best q - p(z|x)|, largest", np.abs(best - POSTERIOR).max(), 0.0),
    ]


# %% [markdown]
# ## 4. The estimate of E_q[log p(x|z)] is a sum over the samples
#
# 1/M Σ_i log p(x|z^(i,l)): the sum runs over i, which numbers the images, and the sample index l stays free. Taken
# literally it adds one sample M times. Summed over l = 1..M, the variance falls as 1/M (L17).


# %%
@entry
def the_sample_index() -> list[Row]:
    samples, repeats = 10, 20_000
    z = np.random.default_rng(0).choice(2, (repeats, samples), p=POSTERIOR[:, 0])
    values = np.log(LIKELIHOOD[z, 0])
    one_sample = sum(values[:, 0] for _ in range(samples)) / samples
    return [
        ("mean of the estimate", one_sample.mean(), values.mean()),
        ("its variance with M = 10", one_sample.var(), values.mean(axis=1).var()),
    ]


# %% [markdown]
# ## 5. log p(x|z) is a sum over the D pixels, constant included
#
# "Σ_{i=1..M} ½ log σ² + (x_j - μ_j)² / 2σ²": the index is j, its end D, the number of pixels; M is the number of
# samples. Also missing is ½ log 2π a pixel. It moves no gradient, but without it e^-loss is not a density, and a
# reported likelihood is off by (D/2) log 2π, 720 nats for MNIST.


# %%
@entry
def the_pixels() -> list[Row]:
    rng = np.random.default_rng(0)
    x, mean, sigma, samples = rng.random(784), rng.random(784), 0.3, 5
    terms = math.log(sigma) + (x - mean) ** 2 / (2 * sigma**2)
    grid = np.linspace(-10, 10, 2001)[:, None]  # of one pixel with mean 0
    right = ops.gaussian_nll_fixed(Tensor(np.zeros_like(grid)), grid, sigma).data
    written = math.log(sigma) + grid[:, 0] ** 2 / (2 * sigma**2)
    return [
        (
            "-log p(x|z) of 784 pixels, M = 5",
            terms[:samples].sum(),
            ops.gaussian_nll_fixed(Tensor(mean), x, sigma).item(),
        ),
        ("integral of e^-loss over one pixel", *(np.exp(-loss).sum() * 0.01 for loss in (written, right))),
    ]


# %% [markdown]
# ## 6. N(μ, diag σ²), and one draw of noise for each image and each sample
#
# The second argument of N is a variance, and μ + σ ⊙ ε has the variance σ². Where a program takes N(μ, σ) at its word,
# it draws with variance σ. And in z^(i,l) = μ + σ ⊙ ε_i the noise has no index l: all M samples of an image would be
# the same. The prior of a vector is N(0, I), not N(0, 1).


# %%
@entry
def the_normal() -> list[Row]:
    images, samples, sigma = 20_000, 10, 0.3
    mu, logvar = Tensor(np.zeros((images, 1))), Tensor(np.full((images, 1), 2 * math.log(sigma)))
    noise = np.random.default_rng(0).standard_normal((samples, images, 1))
    z = ops.reparameterize(mu, logvar, Tensor(noise)).data
    literal = math.sqrt(sigma) * noise[:1].repeat(samples, axis=0)
    return [
        ("variance of z, sigma² = 0.09", literal.var(), z.var()),
        ("different codes among M = 10 of an image", *(len(np.unique(code[:, 0])) for code in (literal, z))),
    ]


# %% [markdown]
# ## 7. A perfect reconstruction has log p(x|z) = log 1 for binary pixels only
#
# A density has no largest value. With σ = 0.1, 784 perfectly reconstructed grey levels have a log-likelihood of +1085
# nats, with σ = 1 one of -720. So the likelihoods of a Gaussian and a Bernoulli decoder cannot be compared, and a
# positive log p(x) is no error.


# %%
@entry
def the_perfect_reconstruction() -> list[Row]:
    x = np.random.default_rng(0).integers(0, 2, 784).astype(float)
    certain = Tensor(1000 * (2 * x - 1))  # logits
    densities = (-ops.gaussian_nll_fixed(Tensor(x), x, sigma).item() for sigma in (0.1, 1.0))
    return [
        ("log p(x|z) of a perfect reconstruction, Bernoulli", 0.0, -ops.bce_with_logits(certain, x).item() + 0.0),
        *(
            (f"the same, Gaussian with sigma {sigma}", 0.0, value)
            for sigma, value in zip((0.1, 1.0), densities, strict=True)
        ),
    ]


# %% [markdown]
# ## 8. What is conditional and what is not
#
# The second table of the four points (0,0), (0,0), (1,0), (1,1) is headed p(x y) and is p(y|x): each row adds up to 1,
# so that the whole adds up to 2. "P(z) = 1, surely a cat" is P(z=1|x) = 1: that x is a cat. P(z=1) stays 1/3, the
# share of cats among all pictures, and is what the conditional probabilities average to.


# %%
@entry
def the_condition() -> list[Row]:
    joint = np.array([[1 / 2, 0], [1 / 4, 1 / 4]])
    conditional = joint / joint.sum(axis=1, keepdims=True)
    return [
        ("sum of the second table; of p(x, y)", conditional.sum(), joint.sum()),
        ("P(z=1): read off a picture; the mean of P(z=1|x)", 1.0, (EVIDENCE * POSTERIOR[0]).sum()),
    ]


# %% [markdown]
# ## 9. p(x|z) is easy; p(x) and p(z|x) are not
#
# "We cannot compute p(x|z)": it is one pass through the decoder. What needs all codes is p(x), and with it the
# posterior p(z|x) = p(x|z) p(z) / p(x). Here z has 12 bits, so that all 4,096 can be decoded, and the decoder is a
# random network with 784 pixels. Ten draws of z from the prior miss the few codes that matter.


# %%
@entry
def the_intractable() -> list[Row]:
    rng = np.random.default_rng(0)
    decoder = Sequential(mlp((12, 50), "tanh", rng, np.float64), Dense(50, 784, rng, "identity", he_normal, np.float64))
    codes = np.array(list(itertools.product([-1.0, 1.0], repeat=12)))
    with no_grad():
        logits = decoder(Tensor(codes))
        x = (rng.random(784) < 1 / (1 + np.exp(-logits.data[0]))).astype(float)
        log_likelihood = -ops.bce_with_logits(logits, np.tile(x, (len(codes), 1))).data  # log p(x|z) of each z
    log_p = ops.logsumexp(Tensor(log_likelihood)).item() - math.log(len(codes))
    few = log_likelihood[rng.choice(len(codes), 10)]
    return [
        ("codes to decode for p(x|z)", "too many", 1),
        ("codes to decode for p(x), and for p(z|x)", "not said", len(codes)),
        ("log p(x) from 10 codes; from all", ops.logsumexp(Tensor(few)).item() - math.log(len(few)), log_p),
    ]


# %% [markdown]
# ## 10. D maximises E log D(x) + E log(1 - D(G(z)))
#
# The lecture's product D(x) (1 - D(G(z))), in expectation over independent draws, is A (1 - B), with A = E_x D(x) and
# B = E_z D(G(z)). A little more D(x) changes it by p(x) (1 - B) - p_g(x) A. So the best D is 1 where p(x)/p_g(x) is
# above A/(1 - B) and 0 where it is below: a threshold, which says nothing of how much more likely an x is as data than
# as a sample. (An x exactly at the threshold may get a value in between; here none does.) The best D of the logarithms
# is p / (p + p_g). Here x has five values, and D is found by trying all 11⁵ tables in steps of 0.1, then, for the
# logarithms, each x by itself in finer steps.


# %%
P, P_G = np.array([0.1, 0.2, 0.4, 0.2, 0.1]), np.array([0.4, 0.3, 0.15, 0.1, 0.05])


@entry
def the_discriminator() -> list[Row]:
    tables = np.array(list(itertools.product(np.linspace(0, 1, 11), repeat=5)))
    by_product = tables[((tables @ P) * ((1 - tables) @ P_G)).argmax()]
    fine = np.linspace(0, 1, 10_001)[1:-1, None]
    by_logarithms = fine[(P * np.log(fine) + P_G * np.log1p(-fine)).argmax(axis=0), 0]
    pairs = zip(by_product, by_logarithms, P / (P + P_G), strict=True)
    return [(f"best D at x = {x}; p / (p + p_g) is {ratio:.4f}", a, b) for x, (a, b, ratio) in enumerate(pairs)]


# %% [markdown]
# ## 11. G maximises log D(G(z)), or minimises log(1 - D(G(z)))
#
# "G maximises D(G(z))": all three have the same goal, and differ in how much gradient they pass on. With
# s = D(G(z)), the derivative with respect to D's logit is s (1 - s) for the lecture's, 1 - s for -log s. At the
# beginning of training, when D rejects every sample, one vanishes and the other is near 1 (L22).


# %%
@entry
def the_generator() -> list[Row]:
    rows = []
    for s in (0.01, 0.5, 0.99):
        slopes = []
        for objective in ("literal", "non-saturating"):
            logit = Tensor([[math.log(s / (1 - s))]], requires_grad=True, dtype=np.float64)
            generator_loss(logit, objective).backward()
            slopes.append(abs(logit.grad.item()))
        rows.append((f"|gradient| on the logit where D(G(z)) = {s}", *slopes))
    return rows


# %% [markdown]
# ## 12. At the end of the game both are left, and neither wins
#
# "Only one survives": if D won, its value V would be 0. With the best D at every step, V = -log 4 + 2 JSD(p, p_g),
# and following its gradient G arrives at p_g = p, V = -log 4, D = 1/2. Here G is a table of five probabilities,
# the softmax of five numbers.


# %%
@cache
def equilibrium():
    """p_g (5,) after gradient descent on E log(1 - D(G(z))) with the best D at each step."""
    scores = Tensor(np.log(P_G), requires_grad=True)
    for _ in range(3000):
        p_g = ops.softmax(scores)
        best = P / (P + p_g.data)
        scores.grad = None
        (p_g * Tensor(np.log1p(-best))).sum().backward()
        with no_grad():
            scores -= 2.0 * Tensor(scores.grad)
    return ops.softmax(scores).data


@entry
def the_end_of_the_game() -> list[Row]:
    p_g = equilibrium()
    best = P / (P + p_g)
    return [
        ("value of the game", 0.0, P @ np.log(best) + p_g @ np.log1p(-best)),
        ("|p_g - p|, largest; as written, that at the start", np.abs(P_G - P).max(), np.abs(p_g - P).max()),
        ("D farthest from 1/2", 1.0, best[np.abs(best - 0.5).argmax()]),
    ]


# %% [markdown]
# ## 13. The best discriminator's "large error" is 50 %, with a cross-entropy of ln 2
#
# No D has an error below Σ min(p, p_g) / 2, which is 1/2 at p_g = p. There D = 1/2 has the lowest cross-entropy, ln 2;
# a confident D has a larger one. So a cross-entropy above ln 2 tells of a bad discriminator, not of a good generator.


# %%
@entry
def the_large_error() -> list[Row]:
    def cross_entropy(d):
        logits = Tensor(np.full((1000, 1), math.log(d / (1 - d))))
        return (discriminator_loss(logits, 1.0).item() + discriminator_loss(logits, 0.0).item()) / 2

    p_g = equilibrium()
    return [
        ("error of the best D at p_g = p", "large", np.minimum(P, p_g).sum() / 2),
        ("cross-entropy of D = 0.9 everywhere; of D = 1/2", cross_entropy(0.9), cross_entropy(0.5)),
    ]


# %% [markdown]
# ## 14. In the adversarial autoencoder, the prior is 1 and the code 0, in all three events
#
# The lecture does not say which is which. Its third event, which updates the encoder as if its codes came from the
# prior, needs the labels of the second. Take codes of N(m, 1), the prior N(0, 1), and in each step the best D. With
# the same labels in both events m goes to 0; with the other label in the third, the encoder flees from the prior.


# %%
@entry
def the_label() -> list[Row]:
    noise = np.random.default_rng(0).standard_normal((1000, 1))

    def mean_after(label):
        m = Tensor([[1.0]], requires_grad=True, dtype=np.float64)
        for _ in range(100):
            now = m.item()
            logits = now**2 / 2 - now * (m + Tensor(noise))  # of the best D: log N(z; 0, 1) - log N(z; m, 1)
            m.grad = None
            discriminator_loss(logits, label).backward()
            with no_grad():
                m -= 0.1 * Tensor(m.grad)
        return m.item()

    return [("mean of the codes after 100 steps from 1", mean_after(0.0), mean_after(1.0))]


# %% [markdown]
# ## The first fault: a variance used as a standard deviation
#
# The encoder gives log σ², and the code samples z = μ + exp(logvar) ε: with variance σ⁴ (L18).
#
# - Symptom: none in the curves, which look even better than the right ones. The decoder gets codes with less noise
#   than the KL term pays for, so the reported -ELBO is too low: below -log p(x), which a bound cannot be. With the
#   right sampler it is higher. It is q that comes out wrong, much too wide; the decoder need not suffer.
# - Check: the variance of many draws of z is e^logvar, for a logvar that is not 0 (at 0 the fault is invisible).
#   `tests/scratchgen/test_ops.py::test_reparameterize_draws_have_the_given_mean_and_variance`
#
# Here and in the second fault a VAE 784-100-8 learns digits drawn by a program, binarised.

# %%
STEPS = 400 if options.quick else 1500


@cache
def digits():
    """Binary images to train with (3000, 784) and to test (300, 784), float32."""
    return tuple((draw_strokes(n, rng=seed).images > 0.5).astype(np.float32) for seed, n in enumerate((3000, 300)))


def terms(model, x, noise, power=0.5):
    """reconstruction (b,) and kl (b,) with codes mu + e^(power logvar) noise: power is 1/2 in the right form."""
    mu, logvar = model.encode(x)
    z = mu + ops.exp(power * logvar) * noise
    return model.reconstruction(z, x), ops.kl_standard_normal(mu, logvar)


@cache
def train_vae(power=0.5, pixels=1):
    """A VAE that lowers reconstruction / pixels + kl, its reported losses on test images, and their KL terms."""
    images, test = digits()
    model = VAE(VAEConfig(latent_dim=8, encoder_hidden=(100,), decoder_hidden=(100,)), rng=2)
    random, optimizer, losses, kls = RandomStream(1), Adam(model, lr=2e-3), [], []
    for step in range(STEPS):
        if step % 20 == 0:
            with no_grad():
                reconstruction, kl = terms(model, Tensor(test), random.normal((300, 8)), power)
            losses.append((reconstruction + kl).mean().item())
            kls.append(kl.mean().item())
        x = Tensor(images[100 * (step % 30) :][:100])
        reconstruction, kl = terms(model, x, random.normal((100, 8)), power)
        loss = (reconstruction / pixels + kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(loss)
    return model, losses, kls


def negative_elbo(model, power=0.5):
    """The mean of reconstruction + kl over the test images, with 20 draws of z each."""
    random, test = RandomStream(3), Tensor(digits()[1])
    with no_grad():
        draws = [
            sum(term.mean().item() for term in terms(model, test, random.normal((300, 8)), power)) for _ in range(20)
        ]
    return float(np.mean(draws))


@entry
def a_variance_as_standard_deviation() -> list[Row]:
    noise = np.random.default_rng(0).standard_normal(100_000)
    ratios = [[np.exp(power * v) * noise for v in (-2.0, 0.0)] for power in (1.0, 0.5)]
    wrong, right = train_vae(power=1.0)[0], train_vae()[0]
    rng = np.random.default_rng(4)
    return [
        ("Var[z] / e^logvar at logvar = -2", *(z[0].var() / np.exp(-2) for z in ratios)),
        ("Var[z] / e^logvar at logvar = 0", *(z[1].var() for z in ratios)),
        ("-ELBO as its own training reports it", negative_elbo(wrong, power=1.0), negative_elbo(right)),
        ("-ELBO with the right sampler", negative_elbo(wrong), negative_elbo(right)),
        ("-log p(x), by 200 importance samples", *(importance_nll(m, digits()[1], 200, rng) for m in (wrong, right))),
    ]


# %% [markdown]
# ## The second fault: a mean over pixels beside a sum over latent dimensions
#
# `F.binary_cross_entropy(...)` with its default reduction, beside a KL term that is summed: the reconstruction counts
# 784 times too little (L15).
#
# - Symptom: the KL goes to 0 within the first epoch and stays there, all samples are the same grey average, and the
#   loss looks small, 0.2 instead of 100.
# - Check: the loss equals -ELBO computed independently, in nats an image.
#   `tests/scratchgen/models/test_vae.py::test_negative_elbo_and_importance_bound_match_numpy`


# %%
@entry
def a_mean_beside_a_sum() -> list[Row]:
    models = train_vae(pixels=784), train_vae()
    z = Tensor(np.random.default_rng(5).standard_normal((200, 8)).astype(np.float32))
    with no_grad():
        spreads = [model.mean(z).data.std(axis=0).mean() for model, *_ in models]
    return [
        ("KL at the end, nats", *(kls[-1] for *_, kls in models)),
        ("active latent dimensions, of 8", *(active_units(model, digits()[1]) for model, *_ in models)),
        ("standard deviation of a pixel over 200 samples", *spreads),
        ("-ELBO, nats", *(negative_elbo(model) for model, *_ in models)),
    ]


# %% [markdown]
# ## The third fault: the discriminator's gradient leaks into the generator's step
#
# D's loss on G(z) is differentiated all the way into G, for lack of `detach()`, and G's gradients are not cleared
# before its own backward pass. Then G follows the sum of its own gradient and of one that *helps D*: on the logit of a
# sample s - (1 - s) = 2s - 1 instead of -(1 - s), with s = D(G(z)). Where D is undecided nothing is left, and where D
# is fooled, G is pushed back.
#
# - Symptom: training looks stable, and G stays short of the data: narrower, or beside it.
# - Check: a step of D leaves every parameter of G, and its gradients, as they were.
#   `tests/scratchgen/tasks/test_gan_task.py::test_train_step_updates_each_network_alone`
#
# The data is N(-1, 1), as in lesson 22, and both networks have two hidden layers of 32.


# %%
def network(inputs, activation, rng):
    return Sequential(mlp((inputs, 32, 32), activation, rng), Dense(32, 1, rng))


@cache
def train_gan(leak, seed):
    """10,000 samples of a trained generator, sorted, and the norm of what D's last step left in G's gradients."""
    rng, random = np.random.default_rng(seed), RandomStream(seed)
    generator, discriminator = network(4, "relu", rng), network(1, "leaky_relu", rng)
    optimizers = [Adam(part, lr=1e-3, beta1=0.5) for part in (generator, discriminator)]
    for _ in range(600 if options.quick else 2000):
        for optimizer in optimizers:
            optimizer.zero_grad()
        x, fake = random.normal((128, 1)) - 1.0, generator(random.normal((128, 4)))
        on_data, on_samples = discriminator(x), discriminator(fake if leak else fake.detach())
        (discriminator_loss(on_data, 1.0) + discriminator_loss(on_samples, 0.0)).backward()
        optimizers[1].step()
        left = [np.square(p.grad).sum() for p in generator.parameters() if p.grad is not None]
        generator_loss(discriminator(generator(random.normal((128, 4)))), "non-saturating").backward()
        optimizers[0].step()
    with no_grad():
        samples = generator(random.normal((10_000, 4))).data[:, 0]
    return np.sort(samples), math.sqrt(sum(left))


QUANTILES = np.array([NormalDist(-1, 1).inv_cdf((i + 0.5) / 10_000) for i in range(10_000)])  # of the data
SEEDS = range(2 if options.quick else 3)


@entry
def a_leaking_gradient() -> list[Row]:
    runs = [[train_gan(leak, seed) for seed in SEEDS] for leak in (True, False)]
    distances = [[np.abs(samples - QUANTILES).mean() for samples, _ in seeds] for seeds in runs]
    deviations = [[samples.std() for samples, _ in seeds] for seeds in runs]

    def on_logit(leak):
        logit = Tensor([[0.0]], requires_grad=True, dtype=np.float64)
        if leak:
            discriminator_loss(logit, 0.0).backward()
        generator_loss(logit, "non-saturating").backward()
        return logit.grad.item()

    return [
        ("|gradient of G| after D's step, largest of all seeds", *(max(left for _, left in seeds) for seeds in runs)),
        ("gradient on the logit of a sample with D = 1/2", on_logit(leak=True), on_logit(leak=False)),
        ("Wasserstein-1 to the data, median of all seeds", *map(np.median, distances)),
        ("standard deviation of samples, median; of data: 1", *map(np.median, deviations)),
    ]


# %% [markdown]
# ## The symptoms
#
# Left: with the first fault the reported -ELBO falls below -log p(x) of the trained model (dashed), which a bound
# cannot do. Middle: with the second the KL falls to 0. Right: with the third the samples are too narrow, and beside
# the data.

# %%
BLUE, ORANGE = "#3f90da", "#e76300"


def draw_losses(panel):
    steps = np.arange(0, STEPS, 20)
    for colour, name, power in ((ORANGE, "e^logvar ε", 1.0), (BLUE, "σ ε", 0.5)):
        model, losses, _ = train_vae(power=power)
        nll = importance_nll(model, digits()[1], 200, np.random.default_rng(4))
        panel.plot(steps, losses, color=colour, label=f"reported with {name}")
        label = "−log p(x)" if colour == ORANGE else None  # once
        panel.axhline(nll, color=colour, linestyle="--", linewidth=1, label=label)
    panel.set(title="Variance as standard deviation", xlabel="step", ylabel="−ELBO, nats", ylim=(75, 160))
    panel.legend(frameon=False)


def draw_kl(panel):
    steps = np.arange(0, STEPS, 20)
    panel.plot(steps, train_vae(pixels=784)[2], color=ORANGE, label="mean over pixels")
    panel.plot(steps, train_vae()[2], color=BLUE, label="sum over pixels")
    panel.set(title="Mean beside a sum", xlabel="step", ylabel="KL, nats")
    panel.legend(frameon=False)


def draw_samples(panel):
    edges = np.linspace(-5, 3, 81)
    for colour, name, leak in ((ORANGE, "samples, leaking", True), (BLUE, "samples", False)):
        panel.hist(train_gan(leak, 0)[0], edges, density=True, color=colour, alpha=0.6, label=name)
    panel.plot(edges, [NormalDist(-1, 1).pdf(x) for x in edges], color="black", label="data, N(−1, 1)")
    panel.set(title="A leaking gradient", xlabel="x", ylabel="density", ylim=(0, 1.2))
    panel.legend(frameon=False)


def draw(path):
    figure = Figure(figsize=(12, 4), dpi=150, layout="constrained")
    for draw_one, panel in zip((draw_losses, draw_kl, draw_samples), figure.subplots(1, 3), strict=True):
        draw_one(panel)
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    draw(options.out / "symptoms.png")
