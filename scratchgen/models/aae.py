"""The adversarial autoencoder (Makhzani et al. 2015): an autoencoder whose codes are matched to a prior by a GAN.

The encoder draws z from q(z|x). Averaged over the data, this is the aggregated posterior q(z) = E_x q(z|x), which a
discriminator D on codes matches to the prior p(z) (L25). Each batch is used for three updates (L26, where they are
called events 1 to 3), each of its own parameters by its own optimizer:

    1. reconstruction phase    encoder and decoder minimise the reconstruction error
    2. regularisation phase    D learns to tell p(z), with label 1, from q(z), with label 0
    3.                         the generator, which is the encoder, learns to fool D

The prior has label 1 and codes have label 0, here and everywhere.

Labels can help in three ways. If D takes them, beside the code, each class gets its own region of the prior. If the
decoder takes them, the code need not represent the class, only the style. Or the encoder itself predicts the class: a
second, categorical code with its own prior and discriminator, which labelled images train in a

    4. semi-supervised phase   the encoder minimises the cross-entropy of the labels

These updates are in ``tasks.aae``.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scratchgen import ops
from scratchgen.errors import require, require_one_of
from scratchgen.models.images import check_sides, decoder_layers, decoder_output, encoder_layers
from scratchgen.models.labels import one_hot
from scratchgen.nn import GaussianNoise, Module, Parameter, Sequential, dense_layers, mlp
from scratchgen.priors import PRIORS, REGIONS, make_prior
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

POSTERIORS = ("deterministic", "gaussian", "universal")
LABELS_FOR = ("discriminator", "decoder", "encoder")


@dataclass(frozen=True)
class AAEConfig:
    """The networks of an adversarial autoencoder.

    Attributes
    ----------
    input_dim, latent_dim : int
        D pixels, J dimensions of the code.
    encoder_hidden, decoder_hidden, discriminator_hidden : tuple of int
        Sizes of the hidden layers, each with relu.
    encoder_channels, decoder_channels : tuple of int
        Of the encoder: what each convolution gives, before the hidden layers. Of the decoder: what each transposed
        convolution takes, after the hidden layers. See ``models.images``.
    posterior : str
        q(z|x): "deterministic", one code an image; "gaussian", with a mean and a variance for each image; "universal",
        an encoder whose hidden layers take ``noise_dim`` numbers of noise beside the pixels, or what convolutions make
        of them, so that q(z|x) may be any distribution.
    prior : str
        p(z): a name in ``priors.PRIORS``.
    labels_for : str
        The network that takes the labels: "discriminator", if the prior has a region for each class; "decoder", for
        codes of style; "encoder", which then classifies.
    classes : int
        C, the number of classes.
    batch_norm : bool
        Whether the encoder's layers are batch-normalised, all but a first convolution: the hidden ones, z or its mean,
        and the class logits.
    hidden_noise : float
        Standard deviation of the noise that is added, in training, to what the encoder's hidden layers give.
    head_distance : float
        Above 0, the decoder takes the sum of the code and of its class's head (see ``ClusterHeads``), a representation
        of J dimensions, instead of the code and the class; training penalises heads that are nearer to each other.
    """

    input_dim: int = 784
    latent_dim: int = 2
    encoder_hidden: tuple[int, ...] = (256, 256)
    decoder_hidden: tuple[int, ...] = (256, 256)
    discriminator_hidden: tuple[int, ...] = (256, 256)
    posterior: str = "deterministic"
    noise_dim: int = 10
    prior: str = "gaussian"
    labels_for: str = "discriminator"
    encoder_channels: tuple[int, ...] = ()
    decoder_channels: tuple[int, ...] = ()
    classes: int = 10
    batch_norm: bool = False
    hidden_noise: float = 0.0
    head_distance: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("posterior", self.posterior, POSTERIORS)
        require_one_of("prior", self.prior, PRIORS)
        require_one_of("labels_for", self.labels_for, LABELS_FOR)
        hidden = (*self.encoder_hidden, *self.decoder_hidden, *self.discriminator_hidden)
        if min(self.input_dim, self.latent_dim, self.noise_dim, *hidden) < 1:
            raise ValueError("every layer, the latent code, the noise and the input must have at least one dimension")
        check_sides(self.input_dim, self.encoder_channels, self.decoder_channels)
        require(
            {
                "classes >= 1": self.classes >= 1,
                "hidden_noise >= 0": self.hidden_noise >= 0,
                "head_distance >= 0": self.head_distance >= 0,
                "head_distance = 0, or labels_for decoder or encoder": not self.head_distance
                or self.labels_for != "discriminator",
            }
        )
        make_prior(self.prior, self.latent_dim, self.classes)


class Encoder(Module):
    """q(z|x), and also q(y|x) if the encoder classifies."""

    def __init__(self, config: AAEConfig, rng: np.random.Generator, dtype: Any) -> None:
        universal, normalized = config.posterior == "universal", config.batch_norm
        layers, width = encoder_layers(
            config.input_dim, config.encoder_channels, rng, "relu", dtype=dtype, batch_norm=normalized
        )
        self.images = Sequential(*layers)
        sizes, layers = (width + universal * config.noise_dim, *config.encoder_hidden), list[Module]()
        for i, o in pairwise(sizes):
            layers += dense_layers(i, o, rng, "relu", dtype=dtype, batch_norm=normalized)
            if config.hidden_noise:
                layers.append(GaussianNoise(config.hidden_noise))
        self.body = Sequential(*layers)

        def output(outputs: int, batch_norm: bool = normalized) -> Module:
            layers = dense_layers(sizes[-1], outputs, rng, "identity", dtype=dtype, batch_norm=batch_norm)
            return Sequential(*layers) if batch_norm else layers[0]

        self.code = output(config.latent_dim)  # z, or its mean
        if config.posterior == "gaussian":
            self.logvar = output(config.latent_dim, batch_norm=False)
        if config.labels_for == "encoder":
            self.classes = output(config.classes)


class ClusterHeads(Module):
    """z + y W, of codes z and classes y side by side: (b, J + C) -> (b, J).

    Row c of W, the ``embedding`` (C, J), is the head of class c. Classes form clusters around their heads, and the
    style moves a picture within its cluster. Source: Makhzani et al. 2015, section 7.
    """

    activation, bias = "identity", None  # as a dense layer has them

    def __init__(self, latent_dim: int, classes: int, rng: np.random.Generator, dtype: Any) -> None:
        self.embedding = Parameter(rng.standard_normal((classes, latent_dim)), dtype)

    @property
    def weight(self) -> Tensor:
        """The matrix (J + C, J) by which the layer multiplies: the identity above W."""
        identity = Tensor(np.eye(self.embedding.shape[1]), dtype=self.embedding.dtype)
        return ops.concatenate([identity, self.embedding], axis=0)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight

    def penalty(self, distance: float) -> Tensor:
        """The sum, over pairs of heads, of max(0, distance - |difference|)."""
        first, second = np.triu_indices(len(self.embedding), 1)
        rows = np.eye(len(self.embedding))
        differences = Tensor(rows[first] - rows[second], dtype=self.embedding.dtype) @ self.embedding
        lengths = ops.sqrt((differences * differences).sum(axis=1) + 1e-12)  # two heads may coincide
        return ops.relu(distance - lengths).sum()


class AAE(Module):
    """Encoder, decoder and discriminators. ``dtype`` is float32 to train and float64 to check."""

    def __init__(self, config: AAEConfig, rng: int | np.random.Generator, dtype: Any = np.float32) -> None:
        self.config, self.dtype, rng = config, np.dtype(dtype), np.random.default_rng(rng)
        self.prior = make_prior(config.prior, config.latent_dim, config.classes)
        # With labels D also takes the class, one of C + 1, the last of which is unlabelled.
        self.regional = config.labels_for == "discriminator" and config.prior in REGIONS

        def network(inputs: int, hidden: tuple[int, ...], outputs: int, channels: tuple[int, ...] = ()) -> Sequential:
            sizes = (inputs, *hidden)
            body = mlp(sizes, "relu", rng, dtype).layers
            convolutions, width = decoder_layers(sizes[-1], outputs, channels, rng, "relu", dtype=dtype)
            return Sequential(*body, *convolutions, decoder_output(width, outputs, channels, rng, dtype=dtype))

        self.encoder = Encoder(config, rng, dtype)
        self.decodes_classes = config.labels_for != "discriminator"
        to_decoder = config.latent_dim + config.classes * self.decodes_classes
        inputs = config.latent_dim if config.head_distance else to_decoder
        self.decoder = network(inputs, config.decoder_hidden, config.input_dim, config.decoder_channels)
        if config.head_distance:
            self.decoder.layers.insert(0, ClusterHeads(config.latent_dim, config.classes, rng, dtype))
        to_discriminator = config.latent_dim + (config.classes + 1) * self.regional
        self.discriminator = network(to_discriminator, config.discriminator_hidden, 1)
        if config.labels_for == "encoder":
            self.class_discriminator = network(config.classes, config.discriminator_hidden, 1)

    def draw_noise(self, n: int, random: RandomStream) -> Tensor | None:
        """The noise that ``encode`` takes for n images: None if q(z|x) is deterministic, else (n, ·) from N(0, I)."""
        if self.config.posterior == "deterministic":
            return None
        size = self.config.latent_dim if self.config.posterior == "gaussian" else self.config.noise_dim
        return random.normal((n, size), self.dtype)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """A draw z (n, J) from q(z|x), and the logits (n, C) of q(y|x) if the encoder classifies."""
        universal, gaussian = (self.config.posterior == kind for kind in ("universal", "gaussian"))
        h = self.encoder.images(x)
        h = self.encoder.body(ops.concatenate([h, noise], axis=1) if universal and noise is not None else h)
        z = self.encoder.code(h)
        if gaussian:
            z = ops.reparameterize(z, self.encoder.logvar(h), noise)
        return z, self.encoder.classes(h) if self.config.labels_for == "encoder" else None

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits (n, D) of pixels, from codes z (n, J) and, if the decoder takes them, classes y (n, C)."""
        return self.decoder(z if y is None else ops.concatenate([z, y], axis=1))

    @property
    def heads(self) -> ClusterHeads | None:
        """The decoder's first layer, if it has cluster heads."""
        first = self.decoder.layers[0]
        return first if isinstance(first, ClusterHeads) else None

    def labels_given(self, labels: np.ndarray) -> np.ndarray | None:
        """The labels (n,) as rows for the network that takes them, (n, C) for the decoder, (n, C+1) for D, or None."""
        if self.config.labels_for == "decoder":
            return one_hot(labels, self.config.classes, self.dtype)
        return one_hot(labels, self.config.classes, self.dtype, unlabelled=True) if self.regional else None

    def mean(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The pictures (n, D) of codes z (n, J) and, if the decoder takes them, classes y (n, C)."""
        return ops.sigmoid(self.decode(z, y))

    def decoder_classes(self, class_logits: Tensor | None, y: Tensor | None) -> Tensor | None:
        """The classes (n, C) for the decoder: the encoder's predictions, or ``labels_given`` y, or None."""
        if class_logits is not None:
            return ops.softmax(class_logits)
        return y if self.config.labels_for == "decoder" else None

    def beside_labels(self, z: Tensor, y: Tensor | None) -> Tensor:
        """D's input for codes z (n, J): with ``labels_given`` y if each class has its own region of the prior."""
        return ops.concatenate([z, y], axis=1) if self.regional and y is not None else z
