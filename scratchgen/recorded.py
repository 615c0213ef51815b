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

KEPT = 4  # recordings, the latest: each holds all arrays of its computation
Calls = list[tuple[Callable[..., None], tuple]]


@dataclass
class Recording:
    """The kernels of one call: the arrays that its inputs lie in, what it returned, and the gradients it gave.

    ``trusted`` is whether a replay has been found equal to the computation; None before they were compared.
    """

    inputs: list[Any]
    run: Callable[[], None]
    results: tuple[Tensor, ...]
    gradients: list[tuple[Parameter, Any]]
    trusted: bool | None = None

    def replay(self, inputs: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
        """The same computation on other inputs."""
        for mine, new in zip(self.inputs, inputs, strict=True):
            kernels.active().memory.write(mine, new)
        self.run()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.results


class Recorded:
    """``function(*inputs, **constants)``, recorded at its first call and replayed from the third on.

    The function takes and returns tensors, and gives ``parameters`` their gradients, which must be cleared before each
    call. It is to compute by operations alone: what Python or NumPy make of the inputs would not happen again. The
    second call therefore does both, and if they differ in a bit, the function is run each time and never replayed.

    A recording serves for one kernel set, inputs of the same shapes and types, and equal ``constants``; the latest
    few are kept. Results hold until the next call.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], parameters: FlatParameters) -> None:
        self.function, self.parameters = function, parameters
        self.recordings: dict[Hashable, Recording] = {}  # the one used last comes last

    def __call__(self, *inputs: np.ndarray, **constants: Hashable) -> tuple[Tensor, ...]:
        if any(p.grad is not None for p in self.parameters.parameters):
            raise RuntimeError("a recorded function begins without gradients: call zero_grad() before it")
        key = kernels.active(), *constants.items(), *[(x.shape, x.dtype) for x in inputs]
        found = self.recordings.pop(key, None)
        known = found or self._record(inputs, constants)
        self.recordings[key] = known
        if len(self.recordings) > KEPT:
            del self.recordings[next(iter(self.recordings))]
        if found is None:
            return known.results
        if known.trusted is None:
            return self._compare(known, inputs, constants)
        return known.replay(inputs) if known.trusted else self._run(inputs, constants)

    def _run(self, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]) -> tuple[Tensor, ...]:
        return self.function(*[Tensor.wrap(x) for x in inputs], **constants)

    def _record(self, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]) -> Recording:
        memory, calls = kernels.active().memory, Calls()
        own = [memory.copied(memory.to_device(x)) for x in inputs]
        with kernels.use(recording(kernels.active(), calls)):
            results = self._run(tuple(own), constants)
        gradients = [(p, p.grad) for p in self.parameters.parameters if p.grad is not None]

        def run() -> None:
            for kernel, arguments in calls:
                kernel(*arguments)

        return Recording(own, memory.captured(run), results, gradients)

    def _compare(
        self, known: Recording, inputs: tuple[np.ndarray, ...], constants: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        replayed = self._numbers(known.replay(inputs))
        self.parameters.clear_gradients()
        results = self._run(inputs, constants)
        pairs = zip(replayed, self._numbers(results), strict=True)
        known.trusted = all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        return results

    def _numbers(self, results: tuple[Tensor, ...]) -> list[np.ndarray]:
        return [np.array(x) for x in (*(result.data for result in results), self.parameters.grad)]


def recording(kernel_set: ModuleType, calls: Calls) -> ModuleType:
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
