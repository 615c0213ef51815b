"""From grey levels to the pixels a model sees."""

from typing import Any

import numpy as np

import kernels
from scratchgen.noise import uniform

BINARIZE = ("none", "static", "dynamic")


def describe(binarize: str, likelihood: str) -> str:
    """The pixels of a run in words. Losses compare only where they are the same."""
    pixels = {
        "none": "grey levels in [0, 1]",
        "static": "binarised once: each pixel drawn with its grey level as probability",
        "dynamic": "binarised anew for every batch: each pixel drawn with its grey level as probability",
    }[binarize]
    if likelihood != "bernoulli":
        return f"{pixels}, as real values (nats of a density)"
    return f"{pixels} as soft targets" if binarize == "none" else pixels


def binarized(images: np.ndarray, turn: Any, draw: int = 0) -> Any:
    """Draw every pixel of images (n, d) in [0, 1] as 0 or 1, with its grey level as the probability of 1.

    They may lie on a device, as the result does if kernels compute there. ``turn`` and ``draw`` as in ``noise``.
    Source: Salakhutdinov & Murray 2008; anew for every batch in Burda et al. 2015.
    """
    memory = kernels.active().memory
    grey = memory.to_device(images.reshape(-1))  # in C order, whatever theirs
    out = memory.empty(grey.shape, images.dtype)
    kernels.active().elementwise.bernoulli(out, grey, uniform(grey.shape, images.dtype, turn, draw))
    return out.reshape(images.shape)
