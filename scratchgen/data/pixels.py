"""From grey levels to the pixels a model sees."""

import numpy as np

import kernels

BINARIZE = ("none", "static", "dynamic")
DESCRIPTIONS = {
    "none": "grey levels in [0, 1] as soft targets",
    "static": "binarised once: each pixel drawn with its grey level as probability",
    "dynamic": "binarised anew for every batch: each pixel drawn with its grey level as probability",
}


def binarized(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw every pixel of images (n, d) in [0, 1] as 0 or 1, with its grey level as the probability of 1.

    Source: Salakhutdinov & Murray 2008; anew for every batch in Burda et al. 2015.
    """
    out = np.empty(images.shape, images.dtype)  # in C order, whatever that of the images
    uniform = rng.random(images.shape, dtype=np.float32).astype(images.dtype, copy=False)
    kernels.active().elementwise.bernoulli(out.reshape(-1), images.reshape(-1), uniform.reshape(-1))
    return out
