"""How well the codes of an autoencoder match their prior (L25)."""

import math

import numpy as np

from scratchgen.models.gan import discriminator_loss
from scratchgen.nn import Dense, Module, Sequential
from scratchgen.optim import Adam, cosine
from scratchgen.tensor import Tensor, no_grad

ROWS = 100  # rows of the kernel matrix at a time: with 10,000 columns they fit in a cache
STEPS, HALF_BATCH = 3_000, 250  # a batch is half codes, half prior
CHECK = 100  # steps between two validations


def kernel_scale(prior_samples: np.ndarray) -> float:
    """The scale c of ``mmd``'s kernel: twice the variance of samples (n, d), summed over the dimensions.

    It is the mean squared distance of two draws. Source: Tolstikhin et al. 2018, section 4, whose 2 d sigma^2 is its
    value for N(0, sigma^2 I).
    """
    return 2 * float(prior_samples.var(axis=0, dtype=np.float64).sum())


def mmd(x: np.ndarray, y: np.ndarray, scale: float) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy of samples x (n, d) and y (m, d).

        mean over i != j of k(x_i, x_j)  +  mean over i != j of k(y_i, y_j)  -  2 mean over all i, j of k(x_i, y_j)

    with the inverse multiquadric kernel k(x, y) = c / (c + |x - y|^2), c = ``scale``. Its expectation is 0 if the
    distributions are equal, so an estimate may be negative. ValueError for fewer than two samples of either. Source:
    Gretton et al. 2012, eq. 3.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"mmd needs at least two samples of each, got {n} and {m}")
    x, y = x.astype(np.float64), y.astype(np.float64)
    within_x = (_kernel_sum(x, x, scale) - n) / (n * (n - 1))  # k(x_i, x_i) = 1
    within_y = (_kernel_sum(y, y, scale) - m) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, scale) / (n * m)


def _kernel_sum(x: np.ndarray, y: np.ndarray, scale: float) -> float:
    """The sum of k(x_i, y_j) over all i and j."""
    total, x_squares, y_squares = 0.0, (x**2).sum(axis=1), (y**2).sum(axis=1) + scale
    for start in range(0, len(x), ROWS):
        block = slice(start, start + ROWS)
        denominator = (-2 * x[block]) @ y.T  # becomes c + |x|^2 + |y|^2 - 2 x y
        denominator += x_squares[block, None]
        denominator += y_squares
        total += scale * float(np.reciprocal(denominator, out=denominator).sum())
    return total


def fresh_discriminator_bce(
    codes: np.ndarray, prior: np.ndarray, held_out: np.ndarray, prior_held_out: np.ndarray, rng: np.random.Generator
) -> float:
    """The test cross-entropy of a new discriminator, trained only to tell codes from draws of the prior.

    It is trained on ``codes`` (n, d) and ``prior`` (m, d); a tenth of each is a validation set for early stopping,
    against overfitting. Its cross-entropy on ``held_out`` (k, d) and ``prior_held_out`` (l, d) is in nats, with equal
    weight for both. The minimum for any discriminator is log 2 - JSD(p, q), which is log 2 = 0.693 if the distributions
    are equal (L23). ValueError for fewer than ten codes or draws to train on.
    """
    mean, sd = prior.mean(axis=0), prior.std(axis=0)
    (codes, codes_aside), (prior, prior_aside), (held_out, prior_held_out) = (
        [((z - mean) / sd).astype(np.float32) for z in pair]
        for pair in (_split(codes, rng), _split(prior, rng), (held_out, prior_held_out))
    )
    last = Dense(128, 1, rng)
    last.weight.write(np.zeros((128, 1)))  # D starts at 1/2 everywhere, the baseline that it has to beat
    model = Sequential(Dense(codes.shape[1], 128, rng, "relu"), Dense(128, 128, rng, "relu"), last)
    optimizer, least, best = Adam(model, lr=cosine(3e-3, STEPS)), math.log(2), model.state_dict()
    for step in range(STEPS):
        optimizer.zero_grad()
        _cross_entropy(model, *(z[rng.integers(0, len(z), HALF_BATCH)] for z in (prior, codes))).backward()
        optimizer.step()
        if (step + 1) % CHECK == 0:
            with no_grad():
                loss = _cross_entropy(model, prior_aside, codes_aside).item()
            if loss < least:
                least, best = loss, model.state_dict()
    model.load_state_dict(best)
    with no_grad():
        return _cross_entropy(model, prior_held_out, held_out).item()


def _split(z: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random split of z (n, d) into nine tenths and one tenth."""
    if len(z) < 10:
        raise ValueError(f"the discriminator needs at least ten codes and ten draws of the prior, got {len(z)}")
    order = rng.permutation(len(z))
    return z[order[len(z) // 10 :]], z[order[: len(z) // 10]]


def _cross_entropy(model: Module, prior: np.ndarray, codes: np.ndarray) -> Tensor:
    """The mean of the losses on the prior, with label 1, and on codes, with label 0."""
    of_prior, of_codes = model(Tensor.wrap(prior)), model(Tensor.wrap(codes))
    return (discriminator_loss(of_prior, 1.0) + discriminator_loss(of_codes, 0.0)) / 2
