"""Layers: modules with named parameters, and the flat buffer that optimizers update."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import kernels
from scratchgen import init, ops
from scratchgen.op import OutputBuffer
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": ops.relu,
    "leaky_relu": partial(ops.leaky_relu, slope=0.2),  # of Radford et al. 2015, for discriminators
    "elu": ops.elu,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "softplus": ops.softplus,
    "gelu": ops.gelu,
}


class Parameter(Tensor):
    """A leaf that optimizers update. Once flattened, its data and gradient are views of the flat buffers."""

    __slots__ = ("_buffer", "flat")

    def __init__(self, data: Any, dtype: Any = None) -> None:
        super().__init__(data, requires_grad=True, dtype=dtype)

    def _set(self, array: np.ndarray, requires_grad: bool) -> None:
        super()._set(array, requires_grad)
        self.flat: FlatParameters | None = None  # copies and pickles are outside the flat buffer
        self._buffer: OutputBuffer | None = None

    @property
    def _gradient_buffer(self) -> OutputBuffer | None:
        return self._buffer if self._grad is None else None

    def _placed(self, active: Any, gradient: np.ndarray) -> np.ndarray:
        if self._buffer is None:
            return super()._placed(active, gradient)
        if gradient is not self._buffer.array:  # usually the backward has written it there
            active.memory.write(self._buffer.array, gradient)
        return self._buffer.array


class Buffer(Tensor):
    """Data that a module saves with its parameters, but that has no gradient."""

    __slots__ = ()


class FlatParameters:
    """Parameters stored contiguously in one array ``data`` (n,), their gradients in ``grad`` (n,)."""

    def __init__(self, parameters: Sequence[Parameter], data: np.ndarray, grad: np.ndarray) -> None:
        self.parameters, self.data, self.grad = list(parameters), data, grad

    def __reduce__(self) -> tuple:
        home = self.parameters[0].flat
        if home is None or home is self:
            return flatten, (self.parameters,)
        return _part, (home, [id(p) for p in home.parameters].index(id(self.parameters[0])), len(self.parameters))

    def clear_gradients(self) -> None:
        """Set all gradients to None."""
        for parameter in self.parameters:
            parameter.grad = None

    def complete_gradient(self) -> np.ndarray:
        """``grad``, with zeros for parameters without a gradient."""
        for parameter in self.parameters:
            if parameter._grad is None:
                assert parameter._buffer is not None  # flatten gave it one
                parameter._grad = parameter._buffer.array
                kernels.active().memory.write(parameter._grad, 0.0)
        return self.grad

    def mark_written(self) -> None:
        """Increment the version of every parameter."""
        for parameter in self.parameters:
            parameter.version += 1


def flatten(parameters: Sequence[Parameter]) -> FlatParameters:
    """Move parameters into one flat buffer, so that an optimizer step is one kernel call.

    Parameters that are already contiguous in a flat buffer stay there, and a slice of it is returned: flatten an
    autoencoder, and its encoder can have its own optimizer. ValueError if only some are in a flat buffer, if they are
    not contiguous in it, or if types are mixed.
    """
    if not parameters:
        raise ValueError("flatten: there are no parameters")
    if len({id(p) for p in parameters}) != len(parameters):
        raise ValueError("flatten: a parameter is given twice")
    home = parameters[0].flat
    if any(p.flat is not None for p in parameters):
        where = [id(p) for p in home.parameters] if home else []
        first = where.index(id(parameters[0])) if home else 0
        if home is None or where[first : first + len(parameters)] != [id(p) for p in parameters]:
            raise ValueError(
                "flatten: some parameters lie in another buffer; flatten the module that holds them all first"
            )
        start = sum(p.size for p in home.parameters[:first])
        end = start + sum(p.size for p in parameters)
        return FlatParameters(parameters, home.data[start:end], home.grad[start:end])
    if len({p.dtype for p in parameters}) > 1:
        raise ValueError("flatten: parameters must have one float type")
    memory = kernels.active().memory
    data = memory.empty((sum(p.size for p in parameters),), parameters[0].dtype)
    memory.concatenate(data, [p._data.reshape(-1) for p in parameters], 0)
    flat = FlatParameters(parameters, data, np.zeros_like(data))
    start = 0
    for p in parameters:
        end = start + p.size
        gradient, p.flat = p._grad, flat
        p._data, p._buffer = data[start:end].reshape(p.shape), OutputBuffer(flat.grad[start:end].reshape(p.shape))
        p._grad, start = None if gradient is None else p._placed(kernels.active(), gradient), end
    return flat


def _part(home: FlatParameters, first: int, count: int) -> FlatParameters:
    """A slice of a flat buffer that was copied or pickled with it."""
    return flatten(home.parameters[first : first + count])


class Module:
    """The base class of layers and models.

    Parameters and modules belong to it if they are attributes, or in a list, tuple or dict that is an attribute.
    """

    training = True

    def __setattr__(self, name: str, value: Any) -> None:
        held = vars(self).get(name)
        if isinstance(held, Parameter | Buffer) and not isinstance(value, type(held) | None):
            kind = type(held).__name__
            raise TypeError(
                f"{type(self).__name__}.{name} is a {kind} and stays one: assign a {kind}, or change its numbers with "
                f"write(), or with += and its like inside no_grad(); this is a {type(value).__name__}"
            )
        super().__setattr__(name, value)

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def forward(self, *inputs: Any) -> Any:
        """The module's result; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def named_parameters(self) -> dict[str, Parameter]:
        """Every parameter by name, such as ``encoder.layers.0.weight``, in the order of definition."""
        return {name: p for name, p in self.named_tensors().items() if isinstance(p, Parameter)}

    def parameters(self) -> list[Parameter]:
        """Every parameter, in the order of definition."""
        return list(self.named_parameters().values())

    def named_tensors(self) -> dict[str, Parameter | Buffer]:
        """Every parameter and buffer by name, in the order of definition."""
        found: dict[str, Parameter | Buffer] = {}
        for name, child in _children(vars(self)):
            own = child.named_tensors() if isinstance(child, Module) else {"": child}
            named = {f"{name}.{key}" if key else name: p for key, p in own.items()}
            if twice := found.keys() & named.keys():
                raise ValueError(f"{type(self).__name__} has two parameters named {', '.join(sorted(twice))}")
            found |= named
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and buffer by name."""
        return {name: np.array(p._data) for name, p in self.named_tensors().items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Overwrite parameters and buffers. ValueError, with nothing written, unless names, shapes and dtypes match."""
        mine = self.named_tensors()
        if mine.keys() != state.keys():
            missing, extra = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
            raise ValueError(f"load_state_dict: missing {missing}, unexpected {extra}")
        for name, p in mine.items():
            if (state[name].shape, state[name].dtype) != (p.shape, p.dtype):
                raise ValueError(
                    f"load_state_dict: {name} is {p.shape} {p.dtype}, not {state[name].shape} {state[name].dtype}"
                )
        for name, p in mine.items():
            p.write(state[name])

    def train(self, training: bool = True) -> None:
        """Set training mode, which affects dropout and batch normalisation."""
        self.training = training
        for _, child in _children(vars(self)):
            if isinstance(child, Module):
                child.train(training)

    def eval(self) -> None:
        """Set evaluation mode."""
        self.train(False)

    def modules(self) -> "list[Module]":
        """This module and all its submodules."""
        inside = [child.modules() for _, child in _children(vars(self)) if isinstance(child, Module)]
        return [self, *(module for modules in inside for module in modules)]

    def set_random(self, random: RandomStream) -> None:
        """Let every dropout layer draw its masks from this stream."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.random = random


@contextmanager
def frozen(module: Module) -> Iterator[None]:
    """Inside the ``with`` block, the module's parameters are constants: they get no gradient.

    Gradients still flow through the module to its input, and batch normalisation in training still moves its averages.
    """
    needed = [p for p in module.parameters() if p.requires_grad]
    for p in needed:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in needed:
            p.requires_grad = True


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Inside the ``with`` block the module is in evaluation mode and no graph is built; afterwards it is as before."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def _children(owned: Mapping[Any, Any]) -> Iterator[tuple[str, Parameter | Buffer | Module]]:
    """The tensors and modules among the values, and in the lists, tuples and dicts among them, with their names."""
    for name, value in owned.items():
        if isinstance(value, Parameter | Buffer | Module):
            yield str(name), value
        elif isinstance(value, list | tuple | dict):
            inside = value if isinstance(value, dict) else dict(enumerate(value))
            yield from ((f"{name}.{key}", child) for key, child in _children(inside))


class Dense(Module):
    """activation(x weight + bias): (..., inputs) -> (..., outputs).

    Parameters
    ----------
    activation : str
        "identity" or a name in ``ACTIVATIONS``.
    initializer : callable, optional
        Draws the weights (see ``init``); by default He for relu-like activations, else Glorot. Biases start at 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rng: np.random.Generator,
        activation: str = "identity",
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.activation, initializer = _checked(activation, initializer)
        self.weight = Parameter(initializer(rng, inputs, outputs), dtype)
        self.bias = Parameter(np.zeros(outputs), dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.activation in ops.FUSED_ACTIVATIONS:
            return ops.dense(x, self.weight, self.bias, self.activation)
        return ACTIVATIONS[self.activation](ops.dense(x, self.weight, self.bias))


def _checked(activation: str, initializer: init.Initializer | None) -> tuple[str, init.Initializer]:
    """The activation, if there is one of that name, and the initializer of the weights before it."""
    if activation != "identity" and activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not one of identity, {', '.join(ACTIVATIONS)}")
    like_relu = activation in ("relu", "leaky_relu", "elu", "gelu")
    return activation, initializer or (init.he_normal if like_relu else init.glorot_uniform)


class Maxout(Module):
    """max over j of x weight_j + bias_j, j = 1..pieces: (..., inputs) -> (..., outputs) (Goodfellow et al. 2013)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        pieces: int,
        rng: np.random.Generator,
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
    ) -> None:
        self.linear = Dense(inputs, outputs * pieces, rng, "identity", initializer, dtype)
        self.outputs, self.pieces = outputs, pieces

    def forward(self, x: Tensor) -> Tensor:
        return ops.max(self.linear(x).reshape(*x.shape[:-1], self.outputs, self.pieces), axis=-1)


class BatchNormDense(Module):
    """activation(gamma (x weight - mean) / sqrt(variance + epsilon) + beta): (b, inputs) -> (b, outputs).

    In training, mean and variance are those of the batch; evaluation uses moving averages of them, with the decay
    ``momentum``; a batch of one is a ValueError. There is no bias, since subtracting the mean would cancel it. Source:
    Ioffe & Szegedy 2015. Parameters as in ``Dense``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rng: np.random.Generator,
        activation: str = "identity",
        initializer: init.Initializer | None = None,
        dtype: Any = np.float32,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ) -> None:
        self.activation, initializer = _checked(activation, initializer)
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = Parameter(initializer(rng, inputs, outputs), dtype)
        self.gamma, self.beta = Parameter(np.ones(outputs), dtype), Parameter(np.zeros(outputs), dtype)
        self.mean, self.variance = Buffer(np.zeros(outputs), dtype=dtype), Buffer(np.ones(outputs), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        a = x @ self.weight
        if self.training:
            out = ops.batch_norm(a, self.gamma, self.beta, self.epsilon)
            self._average(a)
        else:
            out = (a - self.mean) * (self.gamma / ops.sqrt(self.variance + self.epsilon)) + self.beta
        return out if self.activation == "identity" else ACTIVATIONS[self.activation](out)

    def _average(self, a: Tensor) -> None:
        active = kernels.active()
        now = active.memory.empty_like(self.mean._data), active.memory.empty_like(self.mean._data)
        active.normalization.batch_moments(*now, a._data)
        decay = active.memory.empty((1,), a.dtype)
        active.memory.write(decay, self.momentum)
        for running, moment in zip((self.mean, self.variance), now, strict=True):
            active.optimizers.average_step(running._data, moment, decay)
            running.version += 1


class Dropout(Module):
    """In training, zeroes each element with probability ``rate`` and scales the others by 1 / (1 - rate).

    It draws from ``random``, which ``Module.set_random`` sets; RuntimeError in training without one.
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"the dropout rate must be in [0, 1), not {rate}")
        self.rate = rate
        self.random: RandomStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if self.random is None:
            raise RuntimeError(
                "dropout in training needs a random stream: call model.set_random(RandomStream(seed)) first"
            )
        return ops.dropout(x, self.random.dropout_mask(x.shape, x.dtype, self.rate))


class Sequential(Module):
    """Layers applied in order."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def mlp(
    sizes: Sequence[int],
    activation: str,
    rng: np.random.Generator,
    dtype: Any = np.float32,
    initializer: init.Initializer | None = None,
) -> Sequential:
    """Dense layers of the given sizes, every one followed by ``activation``."""
    return Sequential(*(Dense(i, o, rng, activation, initializer, dtype) for i, o in pairwise(sizes)))
