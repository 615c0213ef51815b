"""Modules with named parameters, and the flat buffer that optimizers update."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import kernels
from scratchgen.op import OutputBuffer
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad


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
        """Let every layer that draws random numbers, such as dropout, take them from this stream."""
        for module in self.modules():
            if "random" in vars(module):
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
