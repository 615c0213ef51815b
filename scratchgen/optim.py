"""Optimizers and schedules. A step is one kernel call over the flat buffer of the parameters."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Generic, TypeVar

import numpy as np

import kernels
from scratchgen import ops
from scratchgen.capture import from_host
from scratchgen.nn import Buffer, FlatParameters, Module, Parameter, flatten
from scratchgen.tensor import Tensor, no_grad

Schedule = Callable[[int], float]
Parameters = Module | list[Parameter]
M = TypeVar("M", bound=Module)


class Optimizer:
    """What all optimizers share.

    ``lr`` is the learning rate, or a schedule: a function of the number of steps taken before. It may be set at any
    time. ``steps`` counts the steps taken, and ``state`` holds the arrays that the optimizer keeps, of the size of the
    parameters, under the names in ``slots``.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, parameters: Parameters, lr: float | Schedule) -> None:
        self.flat: FlatParameters = flatten(parameters.parameters() if isinstance(parameters, Module) else parameters)
        self.lr, self.steps = lr, 0
        self.state = {name: np.zeros_like(self.flat.data) for name in self.slots}
        self._always_finite = np.zeros_like(self.flat.data[:1])

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.flat.clear_gradients()

    def step(self, loss: Tensor | None = None) -> None:
        """Update the parameters from their gradients; one without a gradient counts as having a gradient of zero.

        If a ``loss`` is given and is not finite, neither parameters nor ``state`` change, but ``steps`` goes up. It is
        the kernel that looks at the loss, so a replay does the same.
        """
        guard = self._always_finite if loss is None else loss._data.reshape(-1)
        rates = from_host(self._next_rates, self.flat.data.dtype)
        self._update(self.flat.data, self.flat.complete_gradient(), rates, guard)
        self.flat.mark_written()

    def _next_rates(self) -> tuple[float, ...]:
        """Count a step; returns the scalars that its kernel reads."""
        lr = value_at(self.lr, self.steps)
        rates = self._rates(lr, self.steps)
        self.steps += 1
        return rates

    def _rates(self, lr: float, steps: int) -> tuple[float, ...]:
        return (lr,)

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        raise NotImplementedError

    def clip_gradient_norm(self, largest: float) -> float:
        """Scale the gradient to norm ``largest`` if it is longer (Pascanu et al. 2013); returns its norm before."""
        norm = self.gradient_norm().item()
        if norm > largest:
            self.flat.grad *= self.flat.grad.dtype.type(largest / norm)
        return norm

    def gradient_norm(self) -> Tensor:
        """The Euclidean norm (1,) of the whole gradient, float64."""
        active = kernels.active()
        squares, norm = (active.memory.empty((1,), np.dtype(np.float64)) for _ in range(2))
        active.reductions.sum_squares(squares, self.flat.complete_gradient())
        active.elementwise.sqrt(norm, squares)
        return Tensor.wrap(norm)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all that a resumed optimizer needs."""
        return {"steps": np.array([self.steps]), **{name: np.array(array) for name, array in self.state.items()}}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state_dict()``. ValueError, with nothing written, if it is another optimizer's."""
        kinds = {name: (array.shape, array.dtype) for name, array in self.state_dict().items()}
        if {name: (array.shape, array.dtype) for name, array in state.items()} != kinds:
            raise ValueError(f"{type(self).__name__} keeps {kinds}; the state has {sorted(state)}, or others")
        self.steps = int(state["steps"][0])
        for name, array in self.state.items():
            array[...] = state[name]


class SGD(Optimizer):
    """SGD with momentum (Polyak 1964), or Nesterov's (Sutskever et al. 2013). ``momentum`` may be a schedule too."""

    slots = ("velocity",)

    def __init__(
        self,
        parameters: Parameters,
        lr: float | Schedule,
        momentum: float | Schedule = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum, self.nesterov = momentum, nesterov

    def _rates(self, lr: float, steps: int) -> tuple[float, ...]:
        return lr, value_at(self.momentum, steps)

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        kernels.active().optimizers.sgd_step(param, self.state["velocity"], grad, rates, guard, self.nesterov)


class RMSProp(Optimizer):
    """Steps divided by a moving root mean square of the gradient (Tieleman & Hinton 2012)."""

    slots = ("mean_square",)

    def __init__(
        self,
        parameters: Parameters,
        lr: float | Schedule = 1e-3,
        decay: float = 0.9,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr)
        self.decay, self.epsilon = decay, epsilon

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        mean_square = self.state["mean_square"]
        kernels.active().optimizers.rmsprop_step(param, mean_square, grad, rates, guard, self.decay, self.epsilon)


class Adagrad(Optimizer):
    """Steps divided by the root of all squared gradients so far (Duchi et al. 2011)."""

    slots = ("sum_square",)

    def __init__(self, parameters: Parameters, lr: float | Schedule = 1e-2, epsilon: float = 1e-10) -> None:
        super().__init__(parameters, lr)
        self.epsilon = epsilon

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        kernels.active().optimizers.adagrad_step(param, self.state["sum_square"], grad, rates, guard, self.epsilon)


class Adam(Optimizer):
    """Moving averages of gradient and squared gradient, both bias-corrected (Kingma & Ba 2014, algorithm 1)."""

    slots = ("m", "v")

    def __init__(
        self,
        parameters: Parameters,
        lr: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, lr)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _rates(self, lr: float, steps: int) -> tuple[float, ...]:
        return lr / (1 - self.beta1 ** (steps + 1)), 1 / (1 - self.beta2 ** (steps + 1))

    def _update(self, param: Any, grad: Any, rates: Any, guard: Any) -> None:
        constants = self.beta1, self.beta2, self.epsilon
        kernels.active().optimizers.adam_step(param, *self.state.values(), grad, rates, guard, *constants)


class ExponentialMovingAverage(Generic[M]):
    """A copy ``module`` of a module, whose parameters and buffers are moving averages of the original's.

    Updated after every training step (Polyak & Juditsky 1992): a generator averaged like this draws better samples than
    the last one (Yazıcı et al. 2018). ``decay()`` says how much of the old average stays at the next step.
    """

    def __init__(self, original: M, decay: Callable[[], float]) -> None:
        self.module, self.decay = deepcopy(original), decay
        self.flat, self.original = (flatten(m.parameters()) for m in (self.module, original))
        mine, theirs = (m.named_tensors().values() for m in (self.module, original))
        self.buffers = [pair for pair in zip(mine, theirs, strict=True) if isinstance(pair[0], Buffer)]

    def step(self) -> None:
        """average = decay average + (1 - decay) original."""
        average_step = kernels.active().optimizers.average_step
        decay = from_host(lambda: [self.decay()], self.flat.data.dtype)
        average_step(self.flat.data, self.original.data, decay)
        self.flat.mark_written()
        for mine, theirs in self.buffers:
            average_step(mine._data.reshape(-1), theirs._data.reshape(-1), decay)
            mine.version += 1


def limit_norms(parameters: Parameters, most: float) -> None:
    """Scale down the incoming weights of each unit, a column of its layer's (inputs, outputs), to norm ``most``.

    Shorter columns stay, and so do biases. Source: Srivastava et al. 2014, section 5.1 (max-norm regularization).
    """
    for weight in parameters.parameters() if isinstance(parameters, Module) else parameters:
        if weight.ndim == 2:
            with no_grad():
                norms = (weight * weight).sum(axis=0, keepdims=True) ** 0.5
                weight.write(weight * (most / (most + ops.relu(norms - most))))


# ---- schedules: functions from the number of steps taken to the learning rate of the next ----


def value_at(value: float | Schedule, step: int) -> float:
    """A number, or what a schedule says after so many steps."""
    return value(step) if callable(value) else value


def constant(lr: float) -> Schedule:
    """``lr`` throughout."""
    return lambda step: lr


def linear(first: float, last: float, steps: float) -> Schedule:
    """Linear from ``first`` to ``last`` over the first ``steps``, and ``last`` from then on."""
    return lambda step: first + min(1.0, step / steps if steps else 1.0) * (last - first)


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
    """``lr`` for the first half of the steps, then half a cosine to 0."""
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
    "goodfellow": lambda lr, total: geometric(lr, 1 / 1.000004),  # as in the code of Goodfellow et al. 2014
}
