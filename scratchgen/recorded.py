"""A computation recorded once and replayed: the same kernels on the same arrays, without the engine in between.

At every step of training the engine finds out anew which kernels to call, and on which arrays, though nothing has
changed but the numbers in them. So the kernels of one step are written down, with their arguments; from then on a step
copies its inputs to where the first ones lay and calls one kernel after the other. It is what other engines call a
graph: ``jax.jit`` traces one, CUDA captures one.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

import kernels
from scratchgen.nn import Module, Parameter
from scratchgen.tensor import Tensor

KEPT = 8  # recordings, those used last: each holds all arrays of its computation
CALLED, UNFIT = "called once", "not replayed"  # what is known of a computation that has no recording
Arrays = tuple[Any, ...]
Calls = list[tuple[Callable[..., None], tuple]]


@dataclass
class Recording:
    """The kernels of a computation, the arrays that its inputs lie in, its results, and the gradients it leaves.

    A replay has been found equal to the computation for other numbers in those inputs that are ``tried``, and for the
    same as ever in the others: those that they were ``given`` first. What is given on a device counts as tried once the
    two were compared: to see whether it has changed would be to wait for the device at each step.
    """

    inputs: list[Any]
    given: list[Any]
    run: Callable[[], None]
    results: Arrays
    gradients: list[Any]
    tried: set[int] = field(default_factory=set)

    def untried(self, inputs: list[Any]) -> set[int]:
        """The inputs that are for the first time not what they were."""
        pairs = enumerate(zip(self.given, inputs, strict=True))
        return {i for i, (first, new) in pairs if i not in self.tried and not _same(first, new)}

    def replay(self, inputs: list[Any], tensors: list[Tensor]) -> Arrays:
        """The computation once more, from these inputs and what ``tensors`` hold now."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            if new is not None:
                kernels.active().memory.write(mine, new)
        self.run()
        for tensor, gradient in zip(tensors, self.gradients, strict=True):
            tensor.grad = gradient
            tensor.version += 1
        return self.results


class Recorded:
    """``function(*inputs, **constants)``, recorded at its second call, compared at its third, replayed ever after.

    The function takes arrays (or None) and returns arrays, where kernels compute, and finds no gradients in the
    ``modules``. It computes by operations and kernels alone, and has no other effect but on the tensors of the modules,
    their gradients, and the arrays ``moments``: what Python or NumPy make of the inputs, random numbers and gradients
    of other tensors would not happen again. Where a replay on other inputs differs from the computation, the function
    is run each time and never replayed.

    A recording serves for one kernel set, inputs of the same shapes and types, equal ``constants`` and the same
    parameters frozen; those used last are kept. Results hold until the next call. Without ``replays`` the function is
    run each time.
    """

    def __init__(
        self, function: Callable[..., Arrays], modules: list[Module], moments: list[Any], replays: bool = True
    ) -> None:
        self.function, self.modules, self.moments, self.replays = function, modules, moments, replays
        self.tensors: list[Tensor] = [tensor for module in modules for tensor in module.named_tensors().values()]
        self.known: dict[Hashable, Recording | str] = {}  # what was used last comes last

    def __reduce__(self) -> tuple:
        return Recorded, (self.function, self.modules, self.moments, self.replays)  # a copy records anew

    def __call__(self, *inputs: Any, **constants: Hashable) -> Arrays:
        for tensor in self.tensors:
            tensor.grad = None
        if not self.replays:
            return self._run(*inputs, **constants)
        trained = tuple([p.requires_grad for p in self.tensors if isinstance(p, Parameter)])
        kinds = [None if x is None else (x.shape, x.dtype) for x in inputs]
        key = kernels.active(), trained, *constants.items(), *kinds
        known = self.known.pop(key, None)  # and away, should anything go wrong now
        if isinstance(known, Recording) and known.tried and not known.untried([*inputs]):
            results = known.replay([*inputs], self.tensors)
        elif isinstance(known, Recording):
            known, results = self._compare(known, [*inputs], constants)
        elif known == CALLED:
            known, results = self._record([*inputs], constants)
        else:
            known, results = known or CALLED, self._run(*inputs, **constants)
        self.known[key] = known
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        return results

    def _run(self, *inputs: Any, **constants: Hashable) -> Arrays:
        to_device = kernels.active().memory.to_device
        return self.function(*[None if x is None else to_device(x) for x in inputs], **constants)

    def _record(self, inputs: list[Any], constants: dict[str, Any]) -> tuple[Recording, Arrays]:
        memory, calls = kernels.active().memory, Calls()
        own = [None if x is None else memory.copied(memory.to_device(x)) for x in inputs]
        # What comes from the host is compared there: to read from a device is to wait for it.
        given = [x.copy() if isinstance(x, np.ndarray) else mine for x, mine in zip(inputs, own, strict=True)]
        with kernels.use(noted(kernels.active(), calls)):
            results = self._run(*own, **constants)
        run = partial(_call_all, calls)
        return Recording(own, given, run, results, [tensor.grad for tensor in self.tensors]), results

    def _compare(
        self, known: Recording, inputs: list[Any], constants: dict[str, Any]
    ) -> tuple[Recording | str, Arrays]:
        changed = known.untried(inputs)
        if not changed:  # inputs that are what they were tell nothing
            return known, self._run(*inputs, **constants)
        before = self._state()
        if not known.tried:
            known.run = kernels.active().memory.captured(known.run)  # may run it
            self._set_state(before)
        replayed = _numbers(known.replay(inputs, self.tensors)) + self._state() + self._gradients()
        self._set_state(before)
        for tensor in self.tensors:
            tensor.grad = None
        results = self._run(*inputs, **constants)
        known.tried |= changed | {i for i, x in enumerate(inputs) if not isinstance(x, np.ndarray | None)}
        found = _numbers(results) + self._state() + self._gradients()
        fits = len(found) == len(replayed) and all(map(_equal, replayed, found))
        return known if fits else UNFIT, results

    def _state(self) -> list[np.ndarray | None]:
        """Copies of all that the function may change."""
        return _numbers([tensor._data for tensor in self.tensors] + self.moments)

    def _set_state(self, state: list[np.ndarray | None]) -> None:
        for array, numbers in zip([tensor._data for tensor in self.tensors] + self.moments, state, strict=True):
            kernels.active().memory.write(array, numbers)

    def _gradients(self) -> list[np.ndarray | None]:
        return _numbers([tensor.grad for tensor in self.tensors])


def _call_all(calls: Calls) -> None:
    for kernel, arguments in calls:
        kernel(*arguments)


def _numbers(arrays: Iterable[Any]) -> list[np.ndarray | None]:
    return [None if x is None else np.array(x) for x in arrays]


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
