"""Recipes of models whose pixels may be drawn as 0 or 1."""

from dataclasses import replace

import numpy as np

from scratchgen.data import Dataset
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.recipe import Recipe, RunConfig
from scratchgen.tensor import Tensor


class BinarizingRecipe(Recipe):
    """A recipe whose ``training`` has ``binarize``: "none", "static" or "dynamic" (see ``data.pixels``)."""

    def seen(self, config: RunConfig, data: Dataset) -> Dataset:
        """The data, binarised if ``binarize`` is "static"."""
        if config.training.binarize != "static":
            return data
        train, test = (
            replace(part, images=self.as_seen(config, part.images, name))
            for name, part in (("train", data.train), ("test", data.test))
        )
        return replace(data, train=train, test=test)

    def as_seen(self, config: RunConfig, images: np.ndarray, split: str | None) -> np.ndarray:
        """Images (n, D) as the model sees pixels; those already binarised stay as they are.

        Where pixels are binarised, those of "train" and "test" are drawn, once. Those of other pictures are rounded,
        so that a picture has one code.
        """
        if config.training.binarize == "none":
            return images
        if split is None:
            return (images >= 0.5).astype(images.dtype)
        rng = stream(config.seed, "pixels", ("train", "test").index(split))
        return RandomStream(rng).bernoulli(Tensor(images)).data
