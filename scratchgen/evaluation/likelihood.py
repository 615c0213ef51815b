"""Likelihood-based metrics of a VAE, comparable across projects.

Those of a conditional VAE take labels (n,), and are bounds of log p(x|y): they compare with each other only, since
log p(x, y) is less than that, by log C for C equally probable classes (2.303 nats for ten).
"""

import math
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require
from scratchgen.inference import in_batches
from scratchgen.models.vae import VAE
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

ROWS = 1000  # latent draws decoded at a time, so that they and their pixels stay in the cache


def mean_bound(
    model: VAE,
    images: np.ndarray,
    rng: np.random.Generator,
    batch_size: int = 500,
    labels: np.ndarray | None = None,
) -> dict[str, float]:
    """The means of ``neg_elbo``, ``reconstruction`` and ``kl`` over images (n, D), in nats, one draw of z each."""
    size, dtype = model.config.latent_dim, model.dtype.type
    terms = in_batches(
        lambda x, y=None: model.negative_elbo(x, Tensor(rng.standard_normal((1, len(x), size), dtype=dtype)), y=y),
        *_with_classes(model, images, labels),
        size=batch_size,
        dtype=model.dtype,
    )
    reconstruction, kl = (float(term.mean(dtype=np.float64)) for term in terms)
    return {"neg_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def importance_nll(
    model: VAE, images: np.ndarray, samples: int, rng: np.random.Generator, labels: np.ndarray | None = None
) -> float:
    """-L_K, in nats an image, over images (n, D), with K = ``samples`` (Burda et al. 2015; L12).

    An upper bound on -log p(x) in expectation, nearly tight for large K (5,000 in the paper).
    """
    require({"samples >= 1": samples >= 1})
    stream, parts = RandomStream(rng), [min(ROWS, samples - begun) for begun in range(0, samples, ROWS)]

    def bound(x: Tensor, y: Tensor | None = None) -> tuple[Tensor]:
        """L_K (b,) of images (b, D), from a part of the draws at a time."""
        noises = (stream.normal((part, len(x), model.config.latent_dim), model.dtype) for part in parts)
        log_w = np.concatenate([model.log_weights(x, noise, y).data for noise in noises])
        return (ops.logsumexp(Tensor(log_w), axis=0) - math.log(samples),)

    size = max(1, ROWS // samples)
    (bounds,) = in_batches(bound, *_with_classes(model, images, labels), size=size, dtype=model.dtype)
    return -float(bounds.mean(dtype=np.float64))


def _with_classes(model: VAE, images: np.ndarray, labels: np.ndarray | None) -> list[np.ndarray]:
    """The images (n, D), and the classes (n, C) if the networks take them."""
    y = model.labels_given(labels)
    return [images] if y is None else [images, y]


def posteriors(model: VAE, images: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """mu and logvar (n, J) of q(z|x) of images (n, D)."""
    mu, logvar = in_batches(model.encode, *_with_classes(model, images, labels), size=ROWS, dtype=model.dtype)
    return mu, logvar


def active_units(model: VAE, images: np.ndarray, labels: np.ndarray | None = None) -> int:
    """How many latent dimensions have Var_x(E_q z) > 0.01 over images (n, D) (Burda et al. 2015, section 5)."""
    return int(np.sum(posteriors(model, images, labels)[0].var(axis=0) > 0.01))


def evaluate_vae(
    model: VAE,
    images: np.ndarray,
    rng: np.random.Generator,
    iw_samples: int,
    nll_images: int,
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """A VAE's test metrics on images (n, D) with pixels as the model sees them, in nats an image.

    ``nll`` is -L_K with K = ``iw_samples`` over the first ``nll_images`` images, the rest is over all images.
    """
    first = None if labels is None else labels[:nll_images]
    return {
        **mean_bound(model, images, rng, labels=labels),
        "nll": importance_nll(model, images[:nll_images], iw_samples, rng, first),
        "iw_samples": iw_samples,
        "nll_images": min(nll_images, len(images)),
        "active_units": active_units(model, images, labels),
    }
