"""A classifier of images, which judges the samples of generative models."""

import numpy as np

from scratchgen.nn import BatchNorm, Conv2d, Dense, Dropout, Module, Reshape, Sequential, dense_layers
from scratchgen.tensor import Tensor

CONVOLUTIONS = 2  # each halves the sides of images
FEATURES = 128  # units of the hidden dense layer


class Classifier(Module):
    """Two convolutions and two dense layers from pixels (n, h · w) to the logits (n, C) of C classes, in float32.

    Images of fewer than four pixels a side have the dense layers only.
    """

    def __init__(self, image_shape: tuple[int, int], rng: np.random.Generator, classes: int = 10) -> None:
        height, width = image_shape
        layers, numbers = list[Module](), height * width
        if min(image_shape) >> CONVOLUTIONS:
            layers = [
                Reshape(height, width, 1),
                Conv2d(1, 32, 4, rng, "relu", stride=2, padding=1),
                Conv2d(32, 64, 4, rng, stride=2, padding=1, bias=False),
                BatchNorm(64, "relu"),
                Reshape(-1),
            ]
            numbers = 64 * (height >> CONVOLUTIONS) * (width >> CONVOLUTIONS)
        layers += [*dense_layers(numbers, FEATURES, rng, "relu", batch_norm=True), Dropout(0.3)]
        self.network = Sequential(*layers, Dense(FEATURES, classes, rng))

    def features(self, x: Tensor) -> Tensor:
        """What the last layer takes (n, FEATURES), of pixels x (n, h · w)."""
        return Sequential(*self.network.layers[:-1])(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
