"""Small adversarial autoencoders, of every kind."""

import numpy as np
import pytest

from scratchgen.models.aae import AAE, AAEConfig

PIXELS = 6
KINDS = {
    "deterministic": {},
    "gaussian": {"posterior": "gaussian"},
    "universal": {"posterior": "universal"},
    "regions": {"prior": "mixture"},
    "supervised": {"labels_for": "decoder", "latent_dim": 3, "posterior": "gaussian"},
    "semi-supervised": {"labels_for": "encoder", "latent_dim": 3},
    "batch norm": {"labels_for": "encoder", "latent_dim": 3, "batch_norm": True},
    "heads": {"labels_for": "encoder", "latent_dim": 3, "head_distance": 2.5},
    "heads of labels": {"labels_for": "decoder", "head_distance": 1.0},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def small_aae(kind="deterministic", dtype=np.float32, seed=0):
    """An adversarial autoencoder of 6 pixels, whose biases are not 0."""
    sizes = {"encoder_hidden": (5, 6), "decoder_hidden": (6, 5), "discriminator_hidden": (9, 8), "noise_dim": 2}
    rng = np.random.default_rng(seed)
    model = AAE(AAEConfig(PIXELS, **(sizes | KINDS[kind])), rng, dtype)
    for name, parameter in model.named_parameters().items():
        if name.endswith("bias"):  # they begin at 0, where a relu behind dead units has its kink
            parameter.write(rng.uniform(-0.5, 0.5, parameter.shape))
    return model
