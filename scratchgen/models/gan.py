"""The generative adversarial network (Goodfellow et al. 2014): two networks and their losses.

The generator G turns noise z into pictures G(z). The discriminator gives a logit a for each picture, and
D = sigmoid(a) is the probability that it is real. They play the game (L22, L23)

    D maximises  V = E_x log D(x) + E_z log(1 - D(G(z))),      G wants D(G(z)) to be high.

For any G the optimal D is p / (p + p_g), with V = -log 4 + 2 JSD(p, p_g). The minimum over G, -log 4, is reached at
p_g = p, where D = 1/2 everywhere.

In a conditional GAN both networks take the class y too: G(z, y), and D judges pairs of a picture and its class, (x, y)
and (G(z, y), y). All of the above then holds of p(x|y), for each y (Mirza & Osindero 2014, equation 2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require, require_one_of
from scratchgen.init import INITIALIZERS
from scratchgen.models.images import check_sides, decoder_layers, decoder_output, encoder_layers
from scratchgen.models.labels import beside_classes, beside_planes, one_hot
from scratchgen.nn import Dense, Dropout, Maxout, Module, Sequential, dense_layers
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor


def discriminator_loss(logits: Tensor, label: float) -> Tensor:
    """-[label log D + (1 - label) log(1 - D)], the mean over the batch, of logits (b, 1) (L23).

    ``label`` is 1 for data and 0 for samples. One-sided label smoothing uses 0.9 for data, which keeps D from
    becoming overconfident (Salimans et al. 2016, section 3.4). The label of samples stays 0, since smoothing it would
    reinforce G's current samples.
    """
    return ops.bce_with_logits(logits, np.full(logits.shape, label, logits.dtype)).mean()


# What G minimises, as a function of the logits a (b, 1) of its samples, with s = sigmoid(a) = D(G(z)) (L22).
GENERATOR_OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    # log(1 - s) = -softplus(a); its derivative is -s, which vanishes while D rejects every sample.
    "minimax": lambda logits: -ops.softplus(logits).mean(),
    # -log s = softplus(-a), with derivative -(1 - s), which is largest where D rejects samples.
    "non-saturating": lambda logits: ops.softplus(-logits).mean(),
    # The lecture's: G maximises s itself, with derivative -s (1 - s), which vanishes for s near 0 and near 1.
    "literal": lambda logits: -ops.sigmoid(logits).mean(),
}


def generator_loss(logits: Tensor, objective: str) -> Tensor:
    """G's loss, the mean over the batch, of the logits (b, 1) of samples: one of ``GENERATOR_OBJECTIVES``.

    Or "wasserstein", for a critic, whose outputs are no logits: G raises them (see ``models.wgan``).
    """
    return -logits.mean() if objective == "wasserstein" else GENERATOR_OBJECTIVES[objective](logits)


# ---- the networks ----

NOISES = ("normal", "uniform")
DISCRIMINATORS = ("leaky_relu", "maxout")


@dataclass(frozen=True)
class GANConfig:
    """The networks of a GAN.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J dimensions of noise.
    noise : str
        p(z): "normal" is N(0, I), "uniform" is uniform in [-sqrt 3, sqrt 3]^J, with the same variance.
    generator_hidden : tuple of int
        Sizes of the hidden layers, each with relu; the output is the sigmoid of a linear layer, so pixels in [0, 1].
    generator_channels, discriminator_channels : tuple of int
        Of G: what each transposed convolution takes, after the hidden layers. Of D: what each convolution gives, before
        the hidden layers. See ``models.images``.
    batch_norm, discriminator_batch_norm : bool
        Whether the generator's hidden layers are batch-normalised, and the discriminator's convolutions, except for the
        first.
    discriminator_hidden : tuple of int
        Sizes of the hidden layers, each followed by dropout.
    discriminator : str
        Its hidden layers: "leaky_relu", or "maxout" with ``pieces`` linear pieces a unit.
    pack : int
        How many pictures, all real or all samples, the discriminator judges together, concatenated. Two reveal a
        generator that repeats itself, which one alone cannot (PacGAN, Lin et al. 2018).
    input_dropout, hidden_dropout : float
        Dropout rates of the discriminator's input, classes included, and hidden layers.
    initializer, discriminator_initializer : str
        Weight initialisation of G and D: "by_activation", each layer's own default, or a name in ``init.INITIALIZERS``.
    conditional : bool
        Whether both networks take the class: G beside the noise, D beside the pixels, which for convolutions have C
        more channels, each 0 or 1 throughout.
    classes : int
        C, the number of classes.
    """

    input_dim: int = 784
    latent_dim: int = 64
    noise: str = "normal"
    generator_hidden: tuple[int, ...] = (512, 1024)
    batch_norm: bool = True
    discriminator_hidden: tuple[int, ...] = (512, 256)
    discriminator: str = "leaky_relu"
    pieces: int = 5
    pack: int = 2
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    initializer: str = "by_activation"
    discriminator_initializer: str = "by_activation"
    generator_channels: tuple[int, ...] = ()
    discriminator_channels: tuple[int, ...] = ()
    discriminator_batch_norm: bool = True
    conditional: bool = False
    classes: int = 10

    def __post_init__(self) -> None:
        require_one_of("noise", self.noise, NOISES)
        require_one_of("discriminator", self.discriminator, DISCRIMINATORS)
        for name in ("initializer", "discriminator_initializer"):
            require_one_of(name, getattr(self, name), ("by_activation", *INITIALIZERS))
        require({"pack >= 1": self.pack >= 1, "classes >= 1": self.classes >= 1})
        if min(self.input_dim, self.latent_dim, self.pieces, *self.generator_hidden, *self.discriminator_hidden) < 1:
            raise ValueError("every layer, the noise and the input must have at least one dimension")
        check_sides(self.input_dim, self.generator_channels, self.discriminator_channels)


class GAN(Module):
    """Generator and discriminator. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: GANConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype, rng = config, np.dtype(dtype), np.random.default_rng(rng)
        kind: dict[str, Any] = {"initializer": INITIALIZERS.get(config.initializer), "dtype": dtype}
        pixels, channels = config.input_dim, config.generator_channels
        classes = config.classes * config.conditional
        sizes, layers = (config.latent_dim + classes, *config.generator_hidden), list[Module]()
        for i, o in pairwise(sizes):
            layers += dense_layers(i, o, rng, "relu", batch_norm=config.batch_norm, **kind)
        convolutions, width = decoder_layers(
            sizes[-1], pixels, channels, rng, "relu", batch_norm=config.batch_norm, **kind
        )
        output = decoder_output(width, pixels, channels, rng, "sigmoid", **kind)
        self.generator = Sequential(*layers, *convolutions, output)

        kind["initializer"] = INITIALIZERS.get(config.discriminator_initializer)
        channels, normalized = config.discriminator_channels, config.discriminator_batch_norm
        packed: dict[str, Any] = {"pack": config.pack, "classes": classes}
        convolutions, width = encoder_layers(
            pixels, channels, rng, "leaky_relu", batch_norm=normalized, **packed, **kind
        )
        layers, sizes = [Dropout(config.input_dropout), *convolutions], (width, *config.discriminator_hidden)
        for i, o in pairwise(sizes):
            hidden = (
                Maxout(i, o, config.pieces, rng, **kind)
                if config.discriminator == "maxout"
                else Dense(i, o, rng, "leaky_relu", **kind)
            )
            layers += [hidden, Dropout(config.hidden_dropout)]
        self.discriminator = Sequential(*layers, Dense(sizes[-1], 1, rng, "identity", **kind))

    def draw_noise(self, n: int, random: RandomStream) -> Tensor:
        """n draws z (n, J) from p(z)."""
        shape = n, self.config.latent_dim
        if self.config.noise == "normal":
            return random.normal(shape, self.dtype)
        return math.sqrt(3) * (2 * random.uniform(shape, self.dtype) - 1)

    def labels_given(self, labels: np.ndarray | None) -> np.ndarray | None:
        """The labels (n,) as classes (n, C) for both networks, or None if they take none."""
        if labels is None or not self.config.conditional:
            return None
        return one_hot(labels, self.config.classes, self.dtype)

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z): pictures (n, D) in [0, 1], of noise z (n, J); or G(z, y), of classes y (n, C) too."""
        return self.generator(beside_classes(z, y, self.config.conditional))

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits (n / pack, 1) of D(x), the probability that x (n, D) is real; or of D(x, y), of y (n, C) too.

        An incomplete last pack is left out.
        """
        return self.discriminator(self.discriminator_input(x, y))

    def discriminator_input(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What D takes (n / pack, ·) of pictures x (n, D) and classes y (n, C), as ``images.encoder_layers`` says."""
        pack, (n, pixels), channels = self.config.pack, x.shape, self.config.discriminator_channels
        beside = beside_planes if channels else beside_classes
        x = beside(x, y, self.config.conditional)
        width = x.shape[1]
        whole = x if n % pack == 0 else x[: n - n % pack]
        if pack > 1 and channels:  # pixel by pixel
            whole = whole.reshape(n // pack, pack, pixels, width // pixels).transpose(0, 2, 1, 3)
        return whole if pack == 1 else whole.reshape(n // pack, pack * width)

    @property
    def pixels(self) -> slice:
        """Which columns of ``discriminator_input`` are pixels, where D judges one picture at a time."""
        if not self.config.discriminator_channels:
            return slice(self.config.input_dim)
        return slice(None, None, 1 + self.config.classes * self.config.conditional)
