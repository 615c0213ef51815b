"""Linear classifiers, which model p(y | x) or a boundary, but not x (L02): logistic regression and the linear SVM.

Both score class k by x W_k + b_k and choose the largest score. They lower, over n examples,

    1/n sum_i loss(scores_i, y_i) + l2/2 |W|^2,

which is convex. The biases are not penalised. With l2 = 1 / (n C) it is, divided by n C, that of scikit-learn's
LogisticRegression(C=C) and, but for a bias that is penalised there, of LinearSVC(C=C, loss='hinge') one against the
rest.
"""

import math
from typing import Any, Self

import numpy as np

from scratchgen import ops
from scratchgen.errors import checked_labels
from scratchgen.fitting import minimize
from scratchgen.nn import Dense, Module
from scratchgen.optim import Adam, cosine
from scratchgen.tensor import Tensor, no_grad


class LinearClassifier(Module):
    """Scores x W + b (n, K) of x (n, D), and their training; subclasses define the loss.

    Parameters
    ----------
    inputs, classes : int
        D and K.
    l2 : float
        The weight of the penalty, 0 or above.
    """

    def __init__(self, inputs: int, classes: int, l2: float = 0.0, dtype: Any = np.float32) -> None:
        if not (l2 >= 0 and math.isfinite(l2)):
            raise ValueError(f"l2 must be 0 or above, got {l2}")
        self.inputs, self.classes, self.l2 = inputs, classes, l2
        self.linear = Dense(inputs, classes, np.random.default_rng(0), initializer=_zeros, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def example_losses(self, scores: Tensor, labels: np.ndarray) -> Tensor:
        """The loss (n,) of scores (n, K) and labels (n,) in 0..K-1."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def loss(self, x: Tensor, labels: np.ndarray) -> Tensor:
        """What training lowers: the mean of ``example_losses``, and the penalty."""
        penalty = self.l2 / 2 * ops.square(self.linear.weight).sum()
        return self.example_losses(self(x), labels).mean() + penalty

    def fit(
        self,
        x: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,
        steps: int = 2000,
        batch_size: int = 256,
        lr: float = 0.01,
    ) -> Self:
        """Train from W = 0 and b = 0 on x (n, D) and labels (n,) in 0..K-1; returns itself.

        ``steps`` minibatches, by Adam, whose rate falls from ``lr`` to 0. ValueError for other shapes or labels, or
        for x that is not finite.
        """
        x, labels = self._check(x), checked_labels(labels, len(x), self.classes)
        if len(x) == 0:
            raise ValueError("there is nothing to fit")
        for parameter in self.parameters():
            parameter.write(np.zeros(parameter.shape))
        optimizer = Adam(self, lr=cosine(lr, steps))
        minimize(
            lambda x, labels: self.loss(Tensor.wrap(x), labels),
            optimizer,
            x,
            labels,
            rng=rng,
            steps=steps,
            batch_size=batch_size,
            name=type(self).__name__,
        )
        return self

    def scores(self, x: np.ndarray) -> np.ndarray:
        """x W + b (n, K) of an array x (n, D)."""
        with no_grad():
            return self(Tensor.wrap(self._check(x))).data

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class with the largest score (n,), int64, of x (n, D)."""
        return self.scores(x).argmax(axis=1)

    def _check(self, x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, self.linear.weight.dtype)
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"x must have the shape (n, {self.inputs}), got {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError("x must be finite")
        return x


class LogisticRegression(LinearClassifier):
    """p(y | x) = softmax(x W + b), by maximum likelihood: the loss is -log p(y | x)."""

    def example_losses(self, scores: Tensor, labels: np.ndarray) -> Tensor:
        """-log p(y | x) (n,) of scores (n, K) and labels (n,) in 0..K-1."""
        return ops.softmax_cross_entropy(scores, labels)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """p(y | x) (n, K) of x (n, D)."""
        with no_grad():
            return ops.softmax(Tensor.wrap(self.scores(x))).data


class LinearSVM(LinearClassifier):
    """K linear support vector machines, each for one class against the rest; their scores are no probabilities.

    The loss is the sum over k of the hinge loss max(0, 1 - t_k score_k), with t_k = 1 for k = y, else -1
    (Cortes & Vapnik 1995; one against the rest as in Rifkin & Klautau 2004).
    """

    def example_losses(self, scores: Tensor, labels: np.ndarray) -> Tensor:
        """The hinge losses (n,), summed over the classes, of scores (n, K) and labels (n,) in 0..K-1."""
        labels = checked_labels(labels, scores.shape[0], self.classes)
        signs = 2 * np.eye(self.classes, dtype=scores.dtype)[labels] - 1
        return ops.relu(1 - Tensor.wrap(signs) * scores).sum(axis=1)


def _zeros(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    return np.zeros((inputs, outputs))
