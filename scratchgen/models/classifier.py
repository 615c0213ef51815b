"""A classifier of images, which judges the samples of generative models."""

import numpy as np

from scratchgen.nn import Dense, Dropout, Module, Sequential
from scratchgen.tensor import Tensor


class Classifier(Module):
    """A 512-256 relu network from pixels (n, D) to the logits (n, C) of C classes, in float32."""

    def __init__(self, input_dim: int, rng: np.random.Generator, classes: int = 10) -> None:
        self.network = Sequential(
            Dense(input_dim, 512, rng, "relu"),
            Dropout(0.3),
            Dense(512, 256, rng, "relu"),
            Dropout(0.3),
            Dense(256, classes, rng),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
