"""Optimizers and learning-rate schedules. A step is one kernel call over the flat buffer of the parameters."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Generic, TypeVar

import numpy as np

import kernels
from scratchgen.nn import Buffer, FlatParameters, Module, Parameter, flatten

Schedule = Callable[[int], float]
M = TypeVar("M", bound=Module)


class Optimizer:
    """What all optimizers share. ``lr`` may be set at any time; ``steps`` counts the steps taken.

    ``slots`` names the arrays that an optimizer keeps for itself, of the size of the parameters. A step is ``step()``;
    where steps are replayed (``recorded``), it is ``next_rates()`` each time, and ``update`` in what is replayed.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, parameters: Module | list[Parameter], lr: float) -> None:
        self.flat: FlatParameters = flatten(parameters.parameters() if isinstance(parameters, Module) else parameters)
        self.lr, self.steps = lr, 0
        self.moments = {name: np.zeros_like(self.flat.data) for name in self.slots}

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.flat.clear_gradients()

    def step(self) -> None:
        """Update the parameters from their gradients; one without a gradient counts as having a gradient of zero."""
        arrays = np.array(self.next_rates(), self.flat.data.dtype), np.zeros(1)  # a guard that lets all pass
        self.update(*map(kernels.active().memory.to_device, arrays))

    def next_rates(self) -> tuple[float, ...]:
        """Count a step. Returns what changes from step to step, for ``update``."""
        self.steps += 1
        return self._rates()

    def update(self, rates: Any, guard: Any) -> None:
        """Update the parameters from their gradients, by ``rates``, if all numbers of ``guard`` (k) are finite.

        Both lie where kernels compute; rates are of the parameters' float type, a guard is float64.
        """
        self._update(self.flat.data, self.flat.complete_gradient(), rates, guard)
        self.flat.mark_written()

    def _rates(self) -> tuple[float, ...]:
        return (self.lr,)

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        raise NotImplementedError

    def clip_gradient_norm(self, largest: float) -> float:
        """Scale the gradient to norm ``largest`` if it is longer (Pascanu et al. 2013); returns its norm before."""
        norm = self.gradient_norm()
        if norm > largest:
            self.flat.grad *= self.flat.grad.dtype.type(largest / norm)
        return norm

    def gradient_norm(self) -> float:
        """The Euclidean norm of the whole gradient."""
        return math.sqrt(self.squared_norm().item())

    def squared_norm(self) -> Any:
        """The sum (1,) of the squares of the whole gradient, float64, where kernels compute."""
        total = kernels.active().memory.empty((1,), np.dtype(np.float64))
        kernels.active().reductions.sum_squares(total, self.flat.complete_gradient())
        return total

    def state(self) -> dict[str, np.ndarray]:
        """Copies of all that a resumed optimizer needs."""
        return {"steps": np.array([self.steps]), **{name: np.array(m) for name, m in self.moments.items()}}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state()``. ValueError, with nothing written, if it is another optimizer's."""
        kinds = {name: (array.shape, array.dtype) for name, array in self.state().items()}
        if {name: (array.shape, array.dtype) for name, array in state.items()} != kinds:
            raise ValueError(f"{type(self).__name__} keeps {kinds}; the state has {sorted(state)}, or others")
        self.steps = int(state["steps"][0])
        for name, moment in self.moments.items():
            moment[...] = state[name]


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak 1964), or Nesterov's (Sutskever et al. 2013)."""

    slots = ("velocity",)

    def __init__(
        self, parameters: Module | list[Parameter], lr: float, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.nesterov = momentum, nesterov

    def _rates(self) -> tuple[float, ...]:
        return self.lr, self.momentum

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        kernels.active().optimizers.sgd_step(param, self.moments["velocity"], grad, rates, guard, self.nesterov)


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradient (Tieleman & Hinton 2012)."""

    slots = ("mean_square",)

    def __init__(
        self, parameters: Module | list[Parameter], lr: float = 1e-3, decay: float = 0.9, epsilon: float = 1e-8
    ) -> None:
        super().__init__(parameters, lr)
        self.decay, self.epsilon = decay, epsilon

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        mean_square = self.moments["mean_square"]
        kernels.active().optimizers.rmsprop_step(param, mean_square, grad, rates, guard, self.decay, self.epsilon)


class Adagrad(Optimizer):
    """Steps divided by the root of all squared gradients so far (Duchi et al. 2011)."""

    slots = ("sum_square",)

    def __init__(self, parameters: Module | list[Parameter], lr: float = 1e-2, epsilon: float = 1e-10) -> None:
        super().__init__(parameters, lr)
        self.epsilon = epsilon

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        kernels.active().optimizers.adagrad_step(param, self.moments["sum_square"], grad, rates, guard, self.epsilon)


class Adam(Optimizer):
    """Running means of gradient and squared gradient, both bias-corrected (Kingma & Ba 2014, algorithm 1)."""

    slots = ("m", "v")

    def __init__(
        self,
        parameters: Module | list[Parameter],
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _rates(self) -> tuple[float, ...]:
        return self.lr / (1 - self.beta1**self.steps), 1 / (1 - self.beta2**self.steps)

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        constants = self.beta1, self.beta2, self.epsilon
        kernels.active().optimizers.adam_step(param, *self.moments.values(), grad, rates, guard, *constants)


class RunningAverage(Generic[M]):
    """A copy ``module`` of a module, whose parameters and buffers follow those of the original.

    Moved after every step of training it holds a running average (Polyak & Juditsky 1992), from which a generator draws
    better than from where it happens to be (Yazıcı et al. 2018).
    """

    def __init__(self, original: M) -> None:
        self.module = deepcopy(original)
        self.flat, self.original = (flatten(m.parameters()) for m in (self.module, original))
        mine, theirs = (m.named_tensors().values() for m in (self.module, original))
        self.buffers = [pair for pair in zip(mine, theirs, strict=True) if isinstance(pair[0], Buffer)]

    def step(self, decay: Any) -> None:
        """Move towards the original. ``decay`` (1,), where kernels compute, says how much of the old numbers stays."""
        average_step = kernels.active().optimizers.average_step
        average_step(self.flat.data, self.original.data, decay)
        self.flat.mark_written()
        for mine, theirs in self.buffers:
            average_step(mine._data.reshape(-1), theirs._data.reshape(-1), decay)
            mine.version += 1


# ---- schedules: functions from the number of steps taken to the learning rate of the next ----


def constant(lr: float) -> Schedule:
    """``lr`` throughout."""
    return lambda step: lr


def staircase(lr: float, factor: float, every: int) -> Schedule:
    """``lr`` times ``factor`` for every ``every`` steps taken."""
    return lambda step: lr * factor ** (step // every)


def geometric(lr: float, factor: float) -> Schedule:
    """``lr`` times ``factor`` for every step taken."""
    return lambda step: lr * factor**step


def cosine(lr: float, total: int, warmup: int = 0) -> Schedule:
    """Rises linearly to ``lr`` over ``warmup`` steps, then falls as half a cosine to 0 (Loshchilov & Hutter 2016)."""

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return lr * (1 + math.cos(math.pi * progress)) / 2

    return rate


def late_cosine(lr: float, total: int) -> Schedule:
    """``lr`` for the first half of the steps, then half a cosine to 0: settle when there is something to settle."""
    fall = cosine(lr, total - total // 2)
    return lambda step: fall(max(step - total // 2, 0))


def tripling_stages(lr: float, total: int, stages: int = 8) -> Schedule:
    """Two or more stages i = 0, 1, ... each three times as long as the one before, at lr 10^(-i / (stages - 1)).

    Source: Burda et al. 2015, section 5, where the stages last 3^i passes over the data.
    """
    whole = (3**stages - 1) / 2

    def rate(step: int) -> float:
        done = whole * min(step / total, 1.0)  # in units of the first stage
        stage = min(int(math.log(2 * done + 1, 3) + 1e-9), stages - 1)
        return lr * 10 ** (-stage / (stages - 1))

    return rate


STRETCHED = ("cosine", "late-cosine", "tripling")  # those that depend on how long the whole training is
# Those a configuration can name, as functions of ``lr`` and of the number of steps in the whole training.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, total: constant(lr),
    "cosine": cosine,
    "late-cosine": late_cosine,
    "tripling": tripling_stages,
    "goodfellow": lambda lr, total: geometric(lr, 1 / 1.000004),  # of Goodfellow et al. 2014, by their code
}
