"""Restricted Boltzmann machines small enough to enumerate."""

import numpy as np

from scratchgen.evaluation.partition import all_states
from scratchgen.models.rbm import RBM, RBMConfig
from scratchgen.tensor import Tensor


def small_rbm(d=4, h=3, visible="bernoulli", seed=0, scale=1.0, dtype=np.float64):
    """A machine of 4 visible and 3 hidden units, whose states can be enumerated, with weights of this size."""
    rng, rbm = np.random.default_rng(seed), RBM(RBMConfig(d, h, visible, sigma=0.7), 0, dtype)
    for parameter in rbm.parameters():
        parameter.write(scale * rng.standard_normal(parameter.shape).astype(dtype))
    rbm.means.write(rng.uniform(0.1, 0.9, d).astype(dtype))
    return rbm


def enumerated(rbm):
    """All states v (2^D, D) and h (2^H, H) of a machine of binary units, and p(v, h) (2^D, 2^H) by its definition."""
    v, h = all_states(rbm.config.input_dim), all_states(rbm.config.hidden)
    w, a, b = (p.data.astype(np.float64) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    joint = np.exp(v @ w @ h.T + (v @ a)[:, None] + h @ b)
    return v, h, joint / joint.sum()


def exact_gradients(rbm, data):
    """The gradients of -mean log p over data (n, D): those of the mean of F less its mean under p."""
    v, _, joint = enumerated(rbm)
    loss = rbm.free_energy(Tensor(data)).mean() - (rbm.free_energy(Tensor(v)) * Tensor(joint.sum(axis=1))).sum()
    loss.backward()
    found = [parameter.grad.copy() for parameter in rbm.parameters()]
    for parameter in rbm.parameters():
        parameter.grad = None
    return found
