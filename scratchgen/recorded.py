"""A computation recorded once and replayed: the same kernels on the same arrays, without the engine in between.

At every step of training the engine finds out anew which kernels to call, and on which arrays, though nothing has
changed but the numbers in them. So the kernels of one step are written down, with their arguments; from then on a step
copies its inputs to where the first ones lay and calls one kernel after the other. It is what other engines call a
graph: ``jax.jit`` traces one, CUDA captures one.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

import kernels
from scratchgen.nn import Buffer, Module, Parameter
from scratchgen.tensor import Tensor

KEPT = 8  # recordings, those used last: each holds all arrays of its computation
CALLED, UNFIT = "called once", "not replayed"  # what is known of a computation that has no recording
Calls = list[tuple[Callable[..., None], tuple]]


@dataclass
class Part:
    """What a computation does up to a ``yield``: its kernels, what it yields, and the gradients that are there then."""

    run: Callable[[], None]
    results: tuple[Tensor, ...]
    gradients: list[Any]

    def replay(self, parameters: list[Parameter]) -> tuple[Tensor, ...]:
        """Once more, on what the arrays hold now."""
        self.run()
        for parameter, gradient in zip(parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.results


@dataclass
class Recording:
    """The parts of a computation, and the arrays that its inputs lie in.

    A replay has been found equal to the computation for other numbers in those inputs that are ``tried``, and for the
    same as ever in the others.
    """

    inputs: list[Any]
    parts: list[Part]
    tried: set[int] = field(default_factory=set)

    def untried(self, inputs: list[Any]) -> set[int]:
        """The inputs that are for the first time not what they were."""
        pairs = enumerate(zip(self.inputs, inputs, strict=True))
        return {i for i, (mine, new) in pairs if i not in self.tried and not _same(mine, new)}

    def write(self, inputs: list[Any]) -> None:
        """Have the next replay compute from these."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            if new is not None:
                kernels.active().memory.write(mine, new)


class Recorded:
    """``function(*inputs, **constants)``, recorded at its second call, compared at its third, replayed ever after.

    The function takes tensors (or None) and yields tensors, after each of its parts: there its caller may update
    parameters. It gives those of the ``modules`` their gradients, which must be cleared before each call, computes by
    operations alone, and has no other effect but on the modules' buffers: what Python or NumPy make of the inputs,
    random numbers and gradients of other tensors would not happen again. Where a replay on other inputs differs from
    the computation, the function is run each time and never replayed.

    A recording serves for one kernel set, inputs of the same shapes and types, equal ``constants`` and the same
    parameters frozen; those used last are kept. Results hold until the next call, and a call counts once it is run to
    its end.
    """

    def __init__(self, function: Callable[..., Iterator[tuple[Tensor, ...]]], *modules: Module) -> None:
        self.function, self.modules = function, modules
        tensors = [tensor for module in modules for tensor in module.named_tensors().values()]
        self.parameters = [tensor for tensor in tensors if isinstance(tensor, Parameter)]
        self.buffers = [tensor for tensor in tensors if isinstance(tensor, Buffer)]
        self.known: dict[Hashable, Recording | str] = {}  # what was used last comes last

    def __reduce__(self) -> tuple:
        return Recorded, (self.function, *self.modules)  # a copy has other arrays, and records anew

    def __call__(self, *inputs: Any, **constants: Hashable) -> Iterator[tuple[Tensor, ...]]:
        if any(p.grad is not None for p in self.parameters):
            raise RuntimeError("a recorded function begins without gradients: call zero_grad() before it")
        arrays = [x._data if isinstance(x, Tensor) else x for x in inputs]
        trained = tuple([p.requires_grad for p in self.parameters])
        kinds = [None if x is None else (x.shape, x.dtype) for x in arrays]
        return self._parts((kernels.active(), trained, *constants.items(), *kinds), arrays, constants)

    def _parts(self, key: Hashable, inputs: list[Any], constants: dict[str, Any]) -> Iterator[tuple[Tensor, ...]]:
        known = self.known.pop(key, None)  # and away, should anything go wrong now
        if isinstance(known, Recording) and known.tried and not known.untried(inputs):
            known.write(inputs)
            for part in known.parts:
                yield part.replay(self.parameters)
                for buffer in self.buffers:
                    buffer.version += 1
        elif isinstance(known, Recording):
            known = yield from self._compare(known, inputs, constants)
        elif known == CALLED:
            known = yield from self._record(inputs, constants)
        else:
            yield from self._run(inputs, constants)
            known = known or CALLED
        self.known[key] = known
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]

    def _run(self, inputs: list[Any], constants: dict[str, Any]) -> Iterator[tuple[Tensor, ...]]:
        return self.function(*[None if x is None else Tensor.wrap(x) for x in inputs], **constants)

    def _record(self, inputs: list[Any], constants: dict[str, Any]) -> Generator[tuple[Tensor, ...], None, Recording]:
        memory = kernels.active().memory
        own = [None if x is None else memory.copied(memory.to_device(x)) for x in inputs]
        recording, function = Recording(own, []), self._run(own, constants)
        while True:
            calls = Calls()
            with kernels.use(noted(kernels.active(), calls)):  # not while the caller updates
                results = next(function, None)
            if results is None:
                return recording
            recording.parts.append(Part(partial(_call_all, calls), results, [p.grad for p in self.parameters]))
            yield results

    def _compare(
        self, known: Recording, inputs: list[Any], constants: dict[str, Any]
    ) -> Generator[tuple[Tensor, ...], None, Recording | str]:
        function = self._run(inputs, constants)
        changed, equal = known.untried(inputs), True
        if not changed:  # inputs that are what they were tell nothing
            yield from function
            return known
        known.write(inputs)
        for part in known.parts:
            before = self._state()
            if not known.tried:
                part.run = kernels.active().memory.captured(part.run)
                self._set_state(before)
            replayed = _numbers(part.replay(self.parameters)) + self._state()
            self._set_state(before)
            results = next(function, None)
            if results is None:
                return UNFIT
            equal = equal and all(map(_equal, replayed, _numbers(results) + self._state()))
            yield results
        for results in function:
            equal = False
            yield results
        known.tried |= changed
        return known if equal else UNFIT

    def _state(self) -> list[np.ndarray | None]:
        """Copies of the gradients that there are, and of the buffers."""
        gradients = [None if p.grad is None else np.array(p.grad) for p in self.parameters]
        return gradients + _numbers(self.buffers)

    def _set_state(self, state: list[np.ndarray | None]) -> None:
        write, count = kernels.active().memory.write, len(self.parameters)
        for parameter, gradient in zip(self.parameters, state[:count], strict=True):
            if gradient is None:
                parameter.grad = None
            else:
                write(parameter.grad, gradient)
        for buffer, numbers in zip(self.buffers, state[count:], strict=True):
            write(buffer._data, numbers)


def _call_all(calls: Calls) -> None:
    for kernel, arguments in calls:
        kernel(*arguments)


def _numbers(tensors: Iterable[Tensor]) -> list[np.ndarray | None]:
    return [np.array(tensor.data) for tensor in tensors]


def _same(a: Any, b: Any) -> bool:
    return a is b or np.array_equal(a, b)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)


def noted(kernel_set: ModuleType, calls: Calls) -> ModuleType:
    """The same kernels, each of whose calls is entered in ``calls``."""

    def wrap(name: str, kernel: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            kernel(*arguments)
            calls.append((kernel, arguments))

        return call

    def copied(x: Any) -> Any:
        out = kernel_set.memory.empty(x.shape, x.dtype)
        result.memory.write(out, x)
        return out

    result = kernels.wrapped(kernel_set, wrap)
    result.memory.copied = copied
    return result
