"""Likelihoods of energy-based models, in nats an image, by an estimate of log Z (L03)."""

from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.evaluation.partition import annealed_log_partition
from scratchgen.inference import in_batches
from scratchgen.models.rbm import RBM
from scratchgen.random import RandomStream

ROWS = 1_000  # images at a time


def evaluate_rbm(rbm: RBM, images: np.ndarray, random: RandomStream, chains: int, steps: int) -> dict[str, Any]:
    """Test metrics on images (n, D), with pixels as the model sees them.

    ``nll`` is the mean of F(v) + log Z, in nats; since log Z is rather too low than too high, so is nll.
    ``log_z_error`` is the standard error of log Z, ``effective_sample_size`` how many of the ``chains`` it rests on.
    ``reconstruction`` is the squared error of a pixel of E[v | E[h|v]].
    """
    free_energies, errors = in_batches(
        lambda v: (rbm.free_energy(v), ops.squared_error(rbm.reconstruct(v), v)), images, size=ROWS, dtype=rbm.dtype
    )
    log_z = annealed_log_partition(rbm, chains, steps, random)
    return {
        "nll": float(free_energies.mean(dtype=np.float64)) + log_z.log_z,
        "log_z": log_z.log_z,
        "log_z_error": log_z.standard_error,
        "effective_sample_size": log_z.effective_sample_size,
        "chains": chains,
        "steps": steps,
        "reconstruction": float(errors.mean(dtype=np.float64)) / images.shape[1],
    }
