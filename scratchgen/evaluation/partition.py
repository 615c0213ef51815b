"""log Z of restricted Boltzmann machines, in nats: by enumeration, or by annealed importance sampling (L03).

The chains of Salakhutdinov & Murray 2008 begin at a machine whose Z is known, with weights of 0 and visible biases c,
best those of the data's means, and go by Gibbs sampling through the machines between it and the trained one:

    -F_beta(v) = ((1 - beta) c + beta a) v + sum_j softplus(beta (v W + b)_j),     beta = 0 ... 1

Gaussian visible units have -((1 - beta) |v - c|^2 + beta |v - a|^2) / 2 s^2 as the first term. A chain's weight is the
product of p*_beta'(v) / p*_beta(v) over all steps from beta to beta', where p* = e^-F. The mean weight is an unbiased
estimate of Z / Z_0, so its logarithm is a lower bound of log Z / Z_0 in expectation. Chains that go back from samples
of the trained machine give an upper bound.

Where the top RBM of a deep belief network began as the one below upside down, chains reach it by way of that one, whose
Z is the same, but for a factor of 2 for each further hidden unit, and which is usually near.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tqdm import tqdm

from scratchgen import ops
from scratchgen.errors import require
from scratchgen.models.dbn import DBN
from scratchgen.models.rbm import RBM, times_transposed
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad

LARGEST = 20  # units of a layer whose states can be enumerated, a million
STATES = 2**14  # enumerated at a time


def exact_log_partition(rbm: RBM) -> float:
    """log Z by enumerating the states of the smaller layer, of at most 20 units, in float64. Else ValueError."""
    weight, a, b = (p.data.astype(np.float64) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    if len(a) < len(b) and not rbm.gaussian:
        weight, a, b = weight.T, b, a  # from here on b is the layer that is enumerated
    require({f"at most {LARGEST} units to be enumerated": len(b) <= LARGEST})
    parts = []
    for start in range(0, 2 ** len(b), STATES):
        h = all_states(len(b), start, min(start + STATES, 2 ** len(b)))
        inputs = h @ weight.T
        if rbm.gaussian:
            other = rbm.precision * (inputs @ a + (inputs**2).sum(axis=1) / 2) + _log_normalizer(rbm)
        else:
            other = np.logaddexp(0, inputs + a).sum(axis=1)
        parts.append(np.logaddexp.reduce(h @ b + other))
    return float(np.logaddexp.reduce(parts))


def all_states(units: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The binary states (n, units) of the numbers from ``start`` up to ``stop``, all 2^units by default."""
    numbers = np.arange(start, 2**units if stop is None else stop)
    return (numbers[:, None] >> np.arange(units) & 1).astype(np.float64)


@dataclass(frozen=True)
class LogPartition:
    """What annealed importance sampling says of log Z.

    Attributes
    ----------
    log_z : float
        In nats.
    standard_error : float
        Of ``log_z``, from the spread of the weights. It is too small where one chain has most of the weight.
    effective_sample_size : float
        (sum w)^2 / sum w^2: from 1, where a single chain counts, to the number of chains.
    chains, steps : int
        How many chains, and how many transitions each makes from the base machine to the first trained one.
    """

    log_z: float
    standard_error: float
    effective_sample_size: float
    chains: int
    steps: int


def inverse_temperatures(steps: int) -> np.ndarray:
    """beta (steps + 1,), 0 to 1, of 3 steps or more: 1/29 of them go up to 1/2, 8/29 from there to 9/10, the rest to 1.

    They are the shares of Salakhutdinov & Murray 2008, who have 500, 4,000 and 10,000 of them.
    """
    require({"3 steps or more": steps >= 3})
    first, second = max(1, round(steps / 29)), max(1, round(steps * 8 / 29))
    last = max(1, steps - first - second)
    return np.concatenate(
        [
            np.linspace(0, 0.5, first, endpoint=False),
            np.linspace(0.5, 0.9, second, endpoint=False),
            np.linspace(0.9, 1, last + 1),
        ]
    )


def annealed_log_partition(rbm: RBM, chains: int, steps: int, random: RandomStream) -> LogPartition:
    """log Z by two chains or more from the base machine, without hidden units: a lower bound in expectation."""
    log_weights, _ = anneal(rbm, draw_base(rbm, chains, random), inverse_temperatures(steps), random)
    return _estimate(log_weights, base_log_partition(rbm), steps)


def reverse_log_partition(rbm: RBM, samples: np.ndarray, steps: int, random: RandomStream) -> LogPartition:
    """log Z from chains that go back from ``samples`` (n, D) of the machine: an upper bound in expectation.

    It is one if they are exact samples; those of a long Markov chain are nearly so.
    """
    betas = inverse_temperatures(steps)[::-1]
    log_weights, _ = anneal(rbm, Tensor(samples, dtype=rbm.dtype), betas, random)
    found = _estimate(log_weights, 0.0, steps)
    return replace(found, log_z=base_log_partition(rbm) - found.log_z)


def annealed_log_partition_of_top(dbn: DBN, chains: int, steps: int, random: RandomStream) -> LogPartition:
    """log Z of a network's top RBM: as ``annealed_log_partition``, by way of the RBMs below.

    The chains take so many steps to the first RBM, and a tenth of them from each to the next. Where a layer has too few
    units to begin upside down, those below count for nothing: the chains begin at this layer's own base machine.
    """
    first, log_z = _way_to_top(dbn)
    rbm = dbn.rbms[first]
    log_weights, v = anneal(rbm, draw_base(rbm, chains, random), inverse_temperatures(steps), random)
    for layer in range(first + 1, dbn.depth):
        h = dbn.rbms[layer - 1].hidden(v, random).states
        more, v = anneal_between(dbn.upside_down(layer), dbn.rbms[layer], h, max(1, steps // 10), random)
        log_weights += more
    return _estimate(log_weights, log_z, steps)


def reverse_log_partition_of_top(dbn: DBN, samples: np.ndarray, steps: int, random: RandomStream) -> LogPartition:
    """log Z of a network's top RBM from its ``samples`` (n, ·): as ``reverse_log_partition``, on the same way back."""
    first, log_z = _way_to_top(dbn)
    log_weights, v = np.zeros(len(samples)), Tensor(samples, dtype=dbn.dtype)
    for layer in range(dbn.depth - 1, first, -1):
        more, h = anneal_between(dbn.rbms[layer], dbn.upside_down(layer), v, max(1, steps // 10), random)
        v, log_weights = dbn.rbms[layer - 1].visible(h, random).states, log_weights + more
    more, _ = anneal(dbn.rbms[first], v, inverse_temperatures(steps)[::-1], random)
    found = _estimate(log_weights + more, 0.0, steps)
    return replace(found, log_z=log_z - found.log_z)


def _way_to_top(dbn: DBN) -> tuple[int, float]:
    """The layer at whose base machine annealing to the top begins, and log Z there, with that of further units."""
    first = max(i for i in range(dbn.depth) if i == 0 or not dbn.fits_upside_down(i))
    layers = range(first + 1, dbn.depth)
    further = sum(dbn.rbms[i].config.hidden - dbn.rbms[i - 1].config.input_dim for i in layers)
    return first, base_log_partition(dbn.rbms[first]) + further * math.log(2)


def base_log_partition(rbm: RBM) -> float:
    """log Z of the machine with the visible biases ``base_bias()``, weights of 0 and hidden biases of 0."""
    bias = rbm.base_bias().astype(np.float64)
    visible = _log_normalizer(rbm) if rbm.gaussian else np.logaddexp(0, bias).sum()
    return float(visible) + rbm.config.hidden * math.log(2)


def draw_base(rbm: RBM, chains: int, random: RandomStream) -> Tensor:
    """Visible states (chains, D) of the base machine."""
    return _visible(rbm, Tensor(np.zeros((chains, rbm.config.input_dim)), dtype=rbm.dtype), rbm.base_bias(), random)


def anneal(rbm: RBM, v: Tensor, betas: Sequence[float] | np.ndarray, random: RandomStream) -> tuple[np.ndarray, Tensor]:
    """The logarithms (n,) of the weights of chains that begin at v (n, D), and the states (n, D) where they end."""
    log_weights, no_bias = np.zeros(len(v)), Tensor(np.zeros(rbm.config.hidden), dtype=rbm.dtype)
    a, c = rbm.visible_bias.data, rbm.base_bias()
    constant = (c @ c - a @ a) / 2 if rbm.gaussian else 0.0
    difference = Tensor(a - c).reshape(-1, 1)
    with no_grad():
        for before, beta in tqdm(list(pairwise(betas)), desc="log Z", leave=False, disable=None):
            inputs = rbm.inputs(v)
            hidden = (ops.softplus(inputs * beta) - ops.softplus(inputs * before)).sum(axis=1)
            visible = (v @ difference).reshape(-1) + constant
            log_weights += (visible * (rbm.precision * (beta - before)) + hidden).data
            h, _ = random.binary_units(inputs * beta, no_bias)
            v = _visible(rbm, times_transposed(h, rbm.weight) * beta, (1 - beta) * c + beta * a, random)
    return log_weights, v


def anneal_between(before: RBM, after: RBM, v: Tensor, steps: int, random: RandomStream) -> tuple[np.ndarray, Tensor]:
    """As ``anneal``, from samples v (n, D) of one RBM to another of as many binary units, by equal steps.

    A machine between has the energy (1 - beta) E + beta E', and so the parameters in between.
    """
    log_weights, here = np.zeros(len(v)), RBM(after.config, 0, after.dtype)
    ends = [(one.data, other.data) for one, other in zip(before.parameters(), after.parameters(), strict=True)]
    here.load_state_dict(before.state_dict())
    with no_grad():
        for step in tqdm(range(1, steps + 1), desc="log Z", leave=False, disable=None):
            free_energy, beta = here.free_energy(v), step / steps
            for parameter, (one, other) in zip(here.parameters(), ends, strict=True):
                parameter.write((1 - beta) * one + beta * other)
            log_weights += (free_energy - here.free_energy(v)).data
            v = here.visible(here.hidden(v, random).states, random).states
    return log_weights, v


def _visible(rbm: RBM, inputs: Tensor, bias: np.ndarray, random: RandomStream) -> Tensor:
    """A draw of visible units with these inputs (n, D) and biases (D,)."""
    biases = Tensor(bias, dtype=rbm.dtype)
    with no_grad():
        if rbm.gaussian:
            return inputs + biases + rbm.config.sigma * random.normal(inputs.shape, inputs.dtype)
        return random.binary_units(inputs, biases)[0]


def _log_normalizer(rbm: RBM) -> float:
    """log of the integral of e^(-|v|^2 / 2 s^2)."""
    return rbm.config.input_dim * (math.log(2 * math.pi) - math.log(rbm.precision)) / 2


def _estimate(log_weights: np.ndarray, log_z_base: float, steps: int) -> LogPartition:
    require({"2 chains or more": len(log_weights) >= 2})
    largest, chains = log_weights.max(), len(log_weights)
    weights = np.exp(log_weights - largest)
    mean = weights.mean()
    return LogPartition(
        log_z=float(log_z_base + largest + math.log(mean)),
        standard_error=float(weights.std(ddof=1) / math.sqrt(chains) / mean),
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
        chains=chains,
        steps=steps,
    )
