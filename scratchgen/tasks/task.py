"""What the trainer asks of a model in training."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from scratchgen.capture import from_host
from scratchgen.data.dataset import Dataset
from scratchgen.nn import Module
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor

Metrics = dict[str, float]


class Task(ABC):
    """A model in training: its optimizers, its random numbers, and ``train_step``, which follows the paper's algorithm.

    >>> for images, labels in batches:  # doctest: +SKIP
    ...     metrics = task.train_step(Tensor(images), labels)

    trains it. The trainer does the same through ``capture.Capture``, with the same results to the last bit.
    """

    model: Any
    random: RandomStream

    @abstractmethod
    def train_step(self, x: Tensor, labels: np.ndarray) -> dict[str, Tensor]:
        """One step of training on a batch x (b, D) with labels (b,); returns its metrics, means over the batch.

        No parameters are updated from a loss that is not finite.
        """

    @abstractmethod
    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """Metrics on held-out images."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """All that has a ``state_dict``, by name: modules, and optimizers."""

    def one_hot_labels(self, labels: np.ndarray | None) -> Tensor | None:
        """The labels (b,) as ``labels_given`` of the model encodes them for the network that takes them, if one does.

        In a captured step each replay encodes its own labels.
        """
        if self.model.labels_given(labels) is None:
            return None
        return Tensor.wrap(from_host(lambda: self.model.labels_given(labels), self.model.dtype))

    def step_options(self) -> dict[str, Hashable]:
        """Keyword arguments of the next ``train_step``, where not every step does the same."""
        return {}

    def modules(self) -> list[Module]:
        """The modules among the parts."""
        return [part for part in self.parts().values() if isinstance(part, Module)]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Every array that a resumed run needs, such as ``model.encoder.weight`` and ``optimizer.m``."""
        return {
            f"{part}.{name}": array
            for part, owner in self.parts().items()
            for name, array in owner.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state_dict()``. ValueError, with nothing written, if it is another task's."""
        mine, theirs = ({n: (a.shape, a.dtype) for n, a in arrays.items()} for arrays in (self.state_dict(), state))
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                kinds = ["{} {}".format(*kinds[name]) if name in kinds else "missing" for kinds in (mine, theirs)]
                raise ValueError(f"load_state_dict: {name} is {kinds[0]} in the task, but {kinds[1]} in the state")
        for part, owner in self.parts().items():
            owner.load_state_dict(under(f"{part}.", state))


def under(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a task's state whose names begin with ``prefix``, which is taken off."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
