"""A small GAN."""

import numpy as np
import pytest

from scratchgen.models.gan import DISCRIMINATORS, GAN, GANConfig

PIXELS = 6
every_discriminator = pytest.mark.parametrize("discriminator", DISCRIMINATORS)


def small_gan(dtype=np.float32, seed=0, **options):
    """A GAN of 6 pixels and 3 dimensions of noise, with dropout in its discriminator."""
    shape = {"generator_hidden": (5, 7), "discriminator_hidden": (7, 5), "pieces": 3, "hidden_dropout": 0.3}
    config = GANConfig(PIXELS, 3, **(shape | options))
    return GAN(config, np.random.default_rng(seed), dtype)
