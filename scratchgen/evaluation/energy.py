"""Likelihoods of energy-based models and their bounds, in nats an image, by an estimate of log Z (L03).

Estimates of log Z by annealed chains are rather too low than too high, and so is what is added to them here.
"""

import math
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.evaluation.partition import LogPartition, annealed_log_partition, annealed_log_partition_of_top
from scratchgen.inference import in_batches
from scratchgen.models.dbm import DBM
from scratchgen.models.dbn import DBN
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

ROWS = 1_000  # images at a time


def evaluate_rbm(rbm: RBM, images: np.ndarray, random: RandomStream, chains: int, steps: int) -> dict[str, Any]:
    """``nll``, the mean of F(v) + log Z over images (n, D), with pixels as the model sees them.

    ``log_z`` and what it rests on (``LogPartition``), under the names ``log_z_error``, ``effective_sample_size``,
    ``annealed_chains`` and ``annealing_steps``; and ``reconstruction``, the squared error of a pixel of E[v | E[h|v]].
    """
    free_energies, errors = in_batches(
        lambda v: (rbm.free_energy(v), ops.squared_error(rbm.reconstruct(v), v)), images, size=ROWS, dtype=rbm.dtype
    )
    log_z = annealed_log_partition(rbm, chains, steps, random)
    return {"nll": _mean(free_energies) + log_z.log_z, **_table(log_z), "reconstruction": _a_pixel(errors, images)}


def evaluate_dbn(
    dbn: DBN,
    images: np.ndarray,
    random: RandomStream,
    chains: int,
    steps: int,
    samples: int,
) -> dict[str, Any]:
    """``neg_bound`` over images (n, D), and ``nll``, an importance-weighted bound by so many ``samples`` of q.

    Of a network of one RBM both are the negative log-likelihood. Else as ``evaluate_rbm``.
    """

    def weights(v: Tensor) -> tuple[Tensor, Tensor]:
        drawn = ops.stack([dbn.log_weights(v, random) for _ in range(samples)], axis=0)
        return drawn.mean(axis=0), ops.logsumexp(drawn, axis=0) - math.log(samples)

    bounds, importance_bounds = in_batches(weights, images, size=ROWS, dtype=dbn.dtype)
    (errors,) = in_batches(lambda v: (ops.squared_error(dbn.reconstruct(v), v),), images, size=ROWS, dtype=dbn.dtype)
    log_z = annealed_log_partition_of_top(dbn, chains, steps, random)
    return {
        "nll": log_z.log_z - _mean(importance_bounds),
        "neg_bound": log_z.log_z - _mean(bounds),
        "samples": samples,
        **_table(log_z),
        "reconstruction": _a_pixel(errors, images),
    }


def evaluate_dbm(
    dbm: DBM, images: np.ndarray, random: RandomStream, chains: int, steps: int, mean_field_steps: int
) -> dict[str, Any]:
    """``neg_bound``, the mean of the variational free energy + log Z over images (n, D). Else as ``evaluate_rbm``."""

    def terms(v: Tensor) -> tuple[Tensor, Tensor]:
        layers = dbm.mean_field(v, mean_field_steps)
        return dbm.variational_free_energy(layers), ops.squared_error(dbm.bottom.visible_means(layers.h1), v)

    free_energies, errors = in_batches(terms, images, size=ROWS, dtype=dbm.dtype)
    log_z = annealed_log_partition(dbm.as_rbm(), chains, steps, random)
    return {
        "neg_bound": _mean(free_energies) + log_z.log_z,
        **_table(log_z),
        "reconstruction": _a_pixel(errors, images),
    }


def _table(log_z: LogPartition) -> dict[str, Any]:
    return {
        "log_z": log_z.log_z,
        "log_z_error": log_z.standard_error,
        "effective_sample_size": log_z.effective_sample_size,
        "annealed_chains": log_z.chains,
        "annealing_steps": log_z.steps,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))


def _a_pixel(errors: np.ndarray, images: np.ndarray) -> float:
    return _mean(errors) / images.shape[1]
