"""How good a trained model is, by measures that compare across projects."""

from typing import Any

import numpy as np

from scratchgen.models.vae import VAE, mean_bound
from scratchgen.tensor import Tensor, no_grad

ROWS = 2000  # latent draws decoded at a time: they and their pixels should stay in the cache


def importance_nll(model: VAE, images: np.ndarray, samples: int, rng: np.random.Generator) -> float:
    """-L_K, in nats an image, over images (n, D), with K = ``samples`` (Burda et al. 2015; L12).

    An upper bound of -log p(x) in expectation, which K = 5,000 brings near.
    """
    total, at_once = 0.0, max(1, ROWS // samples)
    with no_grad():
        for start in range(0, len(images), at_once):
            x = Tensor(images[start : start + at_once], dtype=model.dtype)
            noise = rng.standard_normal((samples, len(x), model.config.latent_dim), dtype=model.dtype.type)
            total -= float(model.importance_bound(x, Tensor.wrap(noise)).data.sum(dtype=np.float64))
    return total / len(images)


def latent_means(model: VAE, images: np.ndarray) -> np.ndarray:
    """mu (n, J) of images (n, D)."""
    with no_grad():
        batches = [images[start : start + ROWS] for start in range(0, len(images), ROWS)]
        return np.concatenate([model.encode(Tensor(batch, dtype=model.dtype))[0].data for batch in batches])


def active_units(model: VAE, images: np.ndarray) -> int:
    """How many latent dimensions have Var_x(E_q z) > 0.01 over images (n, D) (Burda et al. 2015, section 5)."""
    return int(np.sum(latent_means(model, images).var(axis=0) > 0.01))


def evaluate_vae(
    model: VAE, images: np.ndarray, rng: np.random.Generator, iw_samples: int, nll_images: int
) -> dict[str, Any]:
    """The table of a VAE over images (n, D) as it sees pixels, in nats an image.

    ``nll`` is -L_K with K = ``iw_samples`` over the first ``nll_images`` images, all else is over all of them.
    """
    return {
        **mean_bound(model, images, rng),
        "nll": importance_nll(model, images[:nll_images], iw_samples, rng),
        "iw_samples": iw_samples,
        "nll_images": min(nll_images, len(images)),
        "active_units": active_units(model, images),
    }
