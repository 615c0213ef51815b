"""Annealed importance sampling: log p(x) of a decoder with a prior p(z) and an observation model p(x|z).

It needs no encoder, so VAEs and GANs can be compared. Chains start from the prior and go to the posterior through

    f_t(z) = p(z) p(x|z)^beta_t,    0 = beta_0 < beta_1 < ... < beta_T = 1.

The weight of a chain is the product of f_t(z) / f_{t-1}(z) over t, each factor at the z that it has before a transition
that leaves f_t invariant. Its mean is p(x), so that the log of a mean over chains is below log p(x) in expectation
(Neal 2001, "Annealed importance sampling"). The protocol is that of Wu et al. 2016, "On the quantitative analysis of
decoder-based generative models": a sigmoid schedule, 16 chains, Hamiltonian Monte Carlo with 10 leapfrog steps, and a
step size that adapts to an acceptance of 65 %.

The same loop from the posterior to the prior estimates 1 / p(x), so that minus its log is above log p(x) in
expectation. An exact posterior sample is known of an image that the model has drawn: the z that it was drawn with. The
two then bound the error (bidirectional Monte Carlo: Grosse et al. 2015, "Sandwiching the marginal likelihood").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from scratchgen.errors import UserError, require
from scratchgen.evaluation.decoder import Decoder
from scratchgen.nn import frozen
from scratchgen.tensor import Tensor

ROWS = 800  # chains at a time, so that their pixels stay in the cache
LEAPFROG_STEPS, ACCEPTANCE = 10, 0.65
FIRST_STEP_SIZE, ADAPTATION, JITTER = 0.1, 0.1, 0.2
SCHEDULE = 4.0  # the sigmoid's argument goes from -4 to 4
SIGMA_CHAINS, SIGMA_STEPS, MOST_ROUNDS = 4, 200, 20  # of ``best_sigma``


# ---- the algorithm ----


class Point(NamedTuple):
    """Where chains are: codes (r, J), -log p(z) and -log p(x|z) (2, r), and the gradients of both (2, r, J)."""

    codes: np.ndarray
    energies: np.ndarray
    gradients: np.ndarray

    def energy(self, beta: float) -> np.ndarray:
        """-log f (r,) of f(z) = p(z) p(x|z)^beta, up to a constant."""
        return self.energies[0] + beta * self.energies[1]

    def gradient(self, beta: float) -> np.ndarray:
        """Its gradient (r, J)."""
        return self.gradients[0] + beta * self.gradients[1]


Evaluate = Callable[[np.ndarray], Point]


def evaluator(decoder: Decoder, *given: np.ndarray) -> Evaluate:
    """The function that makes a ``Point`` of codes (r, J), for images (r, D) and, if they are taken, classes (r, C)."""
    observed = [Tensor(rows, dtype=decoder.dtype) for rows in given]

    def evaluate(codes: np.ndarray) -> Point:
        energies, gradients = np.empty((2, len(codes))), np.empty((2, *codes.shape))
        terms = decoder.neg_log_prior, lambda leaf: decoder.neg_log_likelihood(leaf, *observed)
        for i, term in enumerate(terms):
            leaf = Tensor(codes, requires_grad=True, dtype=decoder.dtype)
            energy = term(leaf)
            energy.backward(np.ones(energy.shape))
            energies[i], gradients[i] = energy.data, np.asarray(leaf.grad)
        return Point(codes, energies, gradients)

    return evaluate


def sigmoid_schedule(steps: int) -> np.ndarray:
    """beta_0 = 0 to beta_T = 1 (T + 1,), T = ``steps``, on a sigmoid, which is flat at both ends (Wu et al. 2016)."""
    require({"steps >= 1": steps >= 1})
    sigmoid = 1 / (1 + np.exp(-np.linspace(-SCHEDULE, SCHEDULE, steps + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def anneal(
    evaluate: Evaluate, codes: np.ndarray, chains: int, betas: np.ndarray, rng: np.random.Generator, bar: tqdm
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chains from codes (n * chains, J), draws from f at ``betas[0]``, to f at ``betas[-1]``.

    Returns
    -------
    log_weights : np.ndarray
        (n, chains); the weights' expectation is the ratio of the normalising constants, last to first.
    acceptance : np.ndarray
        (n,), the mean over chains and transitions.
    neg_log_likelihood : np.ndarray
        (n, chains), -log p(x|z) where the chains end.
    """
    point, log_weights = evaluate(codes), np.zeros(len(codes))
    step_size, total = np.full(len(codes) // chains, FIRST_STEP_SIZE), np.zeros(len(codes) // chains)
    for before, beta in pairwise(betas):
        log_weights -= (beta - before) * point.energies[1]
        point, accepted = transition(point, evaluate, beta, np.repeat(step_size, chains)[:, None], rng)
        acceptance = accepted.reshape(-1, chains).mean(axis=1)
        step_size *= np.exp(ADAPTATION * (acceptance - ACCEPTANCE))
        total += acceptance
        bar.update()
    return log_weights.reshape(-1, chains), total / (len(betas) - 1), point.energies[1].reshape(-1, chains)


# ---- Hamiltonian Monte Carlo ----


def leapfrog(
    point: Point, momentum: np.ndarray, evaluate: Evaluate, beta: float, step_size: np.ndarray
) -> tuple[Point, np.ndarray]:
    """The point and momentum (r, J) after ``LEAPFROG_STEPS`` of size ``step_size`` (r, 1), of Hamilton's equations.

    Source: Neal 2011, "MCMC using Hamiltonian dynamics", section 2.3.
    """
    for _ in range(LEAPFROG_STEPS):
        momentum = momentum - step_size / 2 * point.gradient(beta)
        point = evaluate(point.codes + step_size * momentum)
        momentum = momentum - step_size / 2 * point.gradient(beta)
    return point, momentum


def transition(
    point: Point, evaluate: Evaluate, beta: float, step_size: np.ndarray, rng: np.random.Generator
) -> tuple[Point, np.ndarray]:
    """A step of Hamiltonian Monte Carlo, and the probabilities (r,) with which it was accepted.

    It leaves p(z) p(x|z)^beta invariant, for a ``step_size`` (r, 1) that does not depend on the point. Each chain takes
    a size that differs from it by up to a fifth, at random: no trajectory can always end where it began (Neal 2011).
    """
    momentum = rng.standard_normal(point.codes.shape)
    step_size = step_size * rng.uniform(1 - JITTER, 1 + JITTER, step_size.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # too large a step may diverge, and is then rejected
        proposed, last = leapfrog(point, momentum, evaluate, beta, step_size)
        kinetic = ((last**2).sum(axis=1) - (momentum**2).sum(axis=1)) / 2
        increase = proposed.energy(beta) - point.energy(beta) + kinetic
    probability = np.exp(-np.maximum(np.where(np.isfinite(increase), increase, np.inf), 0))
    accepted = rng.random(len(probability)) < probability
    return Point(
        np.where(accepted[:, None], proposed.codes, point.codes),
        np.where(accepted, proposed.energies, point.energies),
        np.where(accepted[:, None], proposed.gradients, point.gradients),
    ), probability


# ---- estimates ----


@dataclass(frozen=True)
class Estimate:
    """What AIS says of n images.

    Attributes
    ----------
    log_p : np.ndarray
        (n,), in nats: the log of the mean weight.
    standard_error : np.ndarray
        (n,), of ``log_p``, from the spread of the weights. It is too small where one chain has most of the weight.
    effective_sample_size : np.ndarray
        (n,), (sum w)^2 / sum w^2: from 1, where a single chain counts, to the number of chains.
    acceptance : float
        The mean over all transitions.
    """

    log_p: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    acceptance: float


def annealed_importance(
    decoder: Decoder,
    images: np.ndarray,
    chains: int,
    steps: int,
    rng: np.random.Generator,
    classes: np.ndarray | None = None,
) -> Estimate:
    """log p(x) of images (n, D), or log p(x|y) with their classes (n, C), by AIS from the prior.

    Each image has ``chains`` chains of ``steps`` transitions, so that n * chains * steps * 10 codes go forward and
    backward through the decoder. ``log_p`` is a lower bound in expectation, up to what an image's step sizes owe to its
    own chains. ValueError unless chains >= 2 and steps >= 1.
    """
    log_weights, acceptance, _ = _all_chains(decoder, None, images, chains, sigmoid_schedule(steps), rng, classes)
    return _estimate(log_weights, acceptance)


def bidirectional_bounds(
    decoder: Decoder,
    codes: np.ndarray,
    images: np.ndarray,
    chains: int,
    steps: int,
    rng: np.random.Generator,
    classes: np.ndarray | None = None,
) -> tuple[Estimate, Estimate]:
    """A lower and an upper bound, in expectation, of log p(x) of images (n, D) that the decoder has drawn.

    For the upper one all chains of an image begin at the code (n, J) that it was drawn with, and go to the prior. Codes
    are those of ``Decoder.draw_codes``, other arguments as in ``annealed_importance``.
    """
    lower = annealed_importance(decoder, images, chains, steps, rng, classes)
    betas = sigmoid_schedule(steps)[::-1]
    log_weights, acceptance, _ = _all_chains(decoder, codes, images, chains, betas, rng, classes)
    inverse = _estimate(log_weights, acceptance)
    return lower, replace(inverse, log_p=-inverse.log_p)


def best_sigma(
    decoder: Decoder, images: np.ndarray, rng: np.random.Generator, classes: np.ndarray | None = None
) -> float:
    """The standard deviation of pixels with the highest likelihood of images (n, D), by EM.

    The M step is exact: sigma^2 is the mean of (x - output)^2 under the posterior. The E step is a short AIS, whose
    chains end near the posterior. It begins at ``decoder.sigma`` and ends when sigma changes by less than 1 %.
    """
    if decoder.sigma is None:
        raise ValueError("best_sigma: the decoder must have a sigma to begin with")
    betas = sigmoid_schedule(SIGMA_STEPS)
    for _ in range(MOST_ROUNDS):
        _, _, neg_log_likelihood = _all_chains(decoder, None, images, SIGMA_CHAINS, betas, rng, classes)
        variance = decoder.sigma**2
        mean = float(neg_log_likelihood.mean()) / images.shape[1]  # (x - output)^2 / 2 variance + log(...) / 2
        sigma = math.sqrt(variance * (2 * mean - math.log(2 * math.pi * variance)))
        change, decoder = abs(sigma / decoder.sigma - 1), replace(decoder, sigma=sigma)
        if change < 0.01:
            break
    return sigma


def _all_chains(
    decoder: Decoder,
    codes: np.ndarray | None,
    images: np.ndarray,
    chains: int,
    betas: np.ndarray,
    rng: np.random.Generator,
    classes: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What ``anneal`` gives for all images, a few at a time, from their codes (n, J) or from draws of the prior."""
    require({"chains >= 2": chains >= 2, "at least one image": len(images) > 0})
    given, size = [images] if classes is None else [images, classes], max(1, ROWS // chains)
    parts, found = [slice(start, start + size) for start in range(0, len(images), size)], []
    with tqdm(desc="ais", total=len(parts) * (len(betas) - 1), leave=False, disable=None) as bar, frozen(decoder.model):
        for part in parts:
            rows = [np.repeat(array[part], chains, axis=0) for array in given]
            begin = decoder.draw_codes(len(rows[0]), rng) if codes is None else np.repeat(codes[part], chains, axis=0)
            found.append(anneal(evaluator(decoder, *rows), begin, chains, betas, rng, bar))
    log_weights, acceptance, neg_log_likelihood = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return log_weights, acceptance, neg_log_likelihood


def _estimate(log_weights: np.ndarray, acceptance: np.ndarray) -> Estimate:
    """The estimate from weights (n, chains) and acceptance (n,). UserError for an image whose weights all are 0."""
    chains, largest = log_weights.shape[1], log_weights.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():  # log p(x|z) has overflown
        raise UserError("log p(x|z) is not finite: sigma is too small for these images, or parameters are not finite")
    weights = np.exp(log_weights - largest)
    mean = weights.mean(axis=1)
    return Estimate(
        log_p=largest[:, 0] + np.log(mean),
        standard_error=weights.std(axis=1, ddof=1) / math.sqrt(chains) / mean,  # that of a mean, over the mean
        effective_sample_size=weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1),
        acceptance=float(acceptance.mean()),
    )


# ---- for a trained run ----


@dataclass(frozen=True)
class Protocol:
    """How a run's likelihood is estimated.

    Attributes
    ----------
    images, chains, steps : int
        How many test images; chains for each, and transitions of a chain.
    sigma : float or "best", optional
        The standard deviation of pixels around the decoder's mean, on grey levels as they are, without the noise that
        fills the steps between them. "best" is the ``best_sigma`` of as many training images, the last ones. None: the
        model's own likelihood, on the pixels that it sees.
    simulate : int
        How many images are drawn from the model, to bound their log p from both sides.
    """

    images: int = 100
    chains: int = 16
    steps: int = 1_000
    sigma: float | str | None = None
    simulate: int = 0

    def __post_init__(self) -> None:
        require({"images >= 1": self.images >= 1, "chains >= 2": self.chains >= 2, "steps >= 1": self.steps >= 1})
        valid = self.sigma in (None, "best") or (not isinstance(self.sigma, str | None) and 0 < self.sigma < math.inf)
        require({"simulate >= 0": self.simulate >= 0, "sigma above 0, or best,": valid})


def evaluate_ais(
    decoder: Decoder,
    protocol: Protocol,
    images: np.ndarray,
    rng: np.random.Generator,
    classes: np.ndarray | None = None,
) -> dict[str, Any]:
    """The mean of log p over images (n, D), in nats, and how well it is known.

    ``standard_error`` is that of the mean over images, as of a sample of all images; ``ais_standard_error`` is what the
    chains contribute to it. ``simulated`` has the mean ``lower`` and ``upper`` bounds of drawn images.
    """
    found = annealed_importance(decoder, images, protocol.chains, protocol.steps, rng, classes)
    table: dict[str, Any] = {
        "log_p": float(found.log_p.mean()),
        "nll": -float(found.log_p.mean()),
        "standard_error": _error_of_mean(found.log_p),
        "ais_standard_error": math.sqrt(float((found.standard_error**2).sum())) / len(images),
        "effective_sample_size": float(found.effective_sample_size.mean()),
        "acceptance": found.acceptance,
        "images": len(images),
        "chains": protocol.chains,
        "steps": protocol.steps,
    }
    if protocol.simulate:
        given = [] if classes is None else [classes[rng.integers(len(classes), size=protocol.simulate)]]
        codes = decoder.draw_codes(protocol.simulate, rng)
        drawn = decoder.draw_images(codes, rng, *given)
        bounds = bidirectional_bounds(decoder, codes, drawn, protocol.chains, protocol.steps, rng, *given)
        lower, upper = (float(bound.log_p.mean()) for bound in bounds)
        table["simulated"] = {"images": protocol.simulate, "lower": lower, "upper": upper, "gap": upper - lower}
    return table


def _error_of_mean(values: np.ndarray) -> float | None:
    """The standard error of the mean of values (n,), None for one."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
