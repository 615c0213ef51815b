"""A computation recorded once and replayed: the same kernels on the same arrays, without the engine in between.

At every step of training the engine finds out anew which kernels to call, and on which arrays, though nothing has
changed but the numbers in them. So the kernels of one step are written down, with their arguments; from then on a step
copies its inputs to where the first ones lay and calls one kernel after the other. It is what other engines call a
graph: ``jax.jit`` traces one, CUDA captures one.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import kernels
from scratchgen.nn import FlatParameters, Parameter
from scratchgen.tensor import Tensor

KEPT = 4  # recordings, those used last: each holds all arrays of its computation
CALLED, UNFIT = "called once", "not replayed"  # what is known of a computation that has no recording
Calls = list[tuple[Callable[..., None], tuple]]


@dataclass
class Recording:
    """The kernels of one call: the arrays that its inputs lie in, what it returned, and the gradients it gave.

    It is ``trusted`` once a replay has been found equal to the computation.
    """

    inputs: list[Any]
    run: Callable[[], None]
    results: tuple[Tensor, ...]
    gradients: list[tuple[Parameter, Any]]
    trusted: bool = False

    def replay(self, inputs: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
        """The same computation on other inputs."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            kernels.active().memory.write(mine, new)
        self.run()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.results


class Recorded:
    """``function(*inputs, **constants)``, recorded at its second call, compared at its third, replayed ever after.

    The function takes and returns tensors, and gives ``parameters`` their gradients, which must be cleared before each
    call. It computes by operations alone and has no other effect: what Python or NumPy make of the inputs, running
    averages and gradients of other tensors would not happen again. Where a replay on other inputs differs from the
    computation, the function is run each time and never replayed.

    A recording serves for one kernel set, inputs of the same shapes and types, equal ``constants`` and the same
    parameters frozen; those used last are kept. Results hold until the next call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], parameters: FlatParameters) -> None:
        self.function, self.parameters = function, parameters
        self.known: dict[Hashable, Recording | str] = {}  # what was used last comes last

    def __reduce__(self) -> tuple:
        return Recorded, (self.function, self.parameters)  # a copy has other arrays, and records anew

    def __call__(self, *inputs: np.ndarray, **constants: Hashable) -> tuple[Tensor, ...]:
        parameters = self.parameters.parameters
        if any(p.grad is not None for p in parameters):
            raise RuntimeError("a recorded function begins without gradients: call zero_grad() before it")
        trained, kinds = tuple([p.requires_grad for p in parameters]), [(x.shape, x.dtype) for x in inputs]
        key = kernels.active(), trained, *constants.items(), *kinds
        known = self.known.pop(key, None)  # and away, should anything go wrong now
        if isinstance(known, Recording) and known.trusted:
            results = known.replay(inputs)
        elif isinstance(known, Recording):
            results, known = self._compare(known, inputs, constants)
        elif known == CALLED:
            known = self._record(inputs, constants)
            results = known.results
        else:
            results, known = self._run(inputs, constants), known or CALLED
        self.known[key] = known
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        return results

    def _run(self, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]) -> tuple[Tensor, ...]:
        return self.function(*[Tensor.wrap(x) for x in inputs], **constants)

    def _record(self, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]) -> Recording:
        memory, calls = kernels.active().memory, Calls()
        own = [memory.copied(memory.to_device(x)) for x in inputs]
        with kernels.use(noted(kernels.active(), calls)):
            results = self._run(tuple(own), constants)

        def run() -> None:
            for kernel, arguments in calls:
                kernel(*arguments)

        return Recording(own, run, results, [(p, p.grad) for p in self.parameters.parameters if p.grad is not None])

    def _compare(
        self, known: Recording, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], Recording | str]:
        if any(np.array_equal(mine, new) for mine, new in zip(known.inputs, inputs, strict=True)):
            return self._run(inputs, constants), known  # an input that is what it was would tell nothing
        known.run = kernels.active().memory.captured(known.run)
        replayed = self._numbers(known.replay(inputs))
        self.parameters.clear_gradients()
        results = self._run(inputs, constants)
        known.trusted = all(map(_equal, replayed, self._numbers(results)))
        return results, known if known.trusted else UNFIT

    def _numbers(self, results: tuple[Tensor, ...]) -> list[np.ndarray | None]:
        """Copies of the results, and of the gradients that there are."""
        gradients = [None if p.grad is None else np.array(p.grad) for p in self.parameters.parameters]
        return [*(np.array(result.data) for result in results), *gradients]


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
