"""Capture and replay: the kernel calls of a training step are recorded once, and later steps only repeat them.

In each step of training the engine works out again which kernels to call on which arrays, though only the numbers in
them have changed. ``Capture`` wraps a step, records its kernel calls with their arguments, and replays them: what
``jax.jit`` does by tracing, and CUDA by capturing a graph. It knows nothing of models.

A few numbers are new in each step and come from the host: a learning rate, the key of a random draw, a batch's labels.
The step takes them by ``from_host``, which writes them into an array now and, in a replay, before its kernels run.
"""

import threading
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

import kernels
from scratchgen.tensor import Tensor, graphs_are_built

MOST = 8  # captures kept, the least recently used goes first: each holds all arrays of its step
READS = "it reads a number back (.data, .grad, .item() or NumPy on a tensor), which a replay would not do again"
DIFFERS = (
    "a replay on other inputs gave other results, so something else changes from call to call: a Python number, say, "
    "which is a constant of the capture; pass it as an input, or let a function compute it inside from_host"
)
NEW, WARM, REFUSED = "new", "warm", "refused"
Input = Tensor | np.ndarray | None


class ModuleLike(Protocol):
    """The methods that a capture needs of a module: its tensors, and all modules within it, itself included."""

    training: bool

    def named_tensors(self) -> dict[str, Any]: ...

    def modules(self) -> list[Any]: ...


class Key(NamedTuple):
    """All that may change which kernels a step calls, and on which arrays."""

    kernel_set: ModuleType
    builds_graphs: bool
    inputs: tuple[Any, ...]  # of each, its class, shape and dtype
    constants: tuple[tuple[str, Hashable], ...]
    training: tuple[bool, ...]  # of each module
    tensors: tuple[Any, ...]  # of each parameter and buffer: whether it is trainable, has no gradient; which array


class PendingMetrics:
    """The metrics of a step, still where kernels compute: to ``read`` them is to wait for the step."""

    def __init__(self, names: tuple[str, ...], values: Any) -> None:
        self.names, self.values = names, values

    def read(self) -> dict[str, float]:
        """The metrics as Python numbers."""
        return dict(zip(self.names, np.asarray(self.values).tolist(), strict=True))


class Capture:
    """``step(*inputs, **constants)``, captured and replayed with the same results, to the last bit.

    Parameters
    ----------
    step
        Takes tensors without a graph, NumPy arrays or None, and returns a dict of names to tensors of one element. A
        NumPy array stays on the host: the step may read it inside ``from_host`` only. All else that the step computes,
        it computes by operations. A Python number that it reads, and a branch that it takes, are constants of the
        capture. A tensor that it keeps for the next call is overwritten by replays.
    modules
        All whose parameters and buffers it uses.

    Calls with the same key share a state. The key is the kernel set, input shapes and types, constants, training flags,
    which parameters are trainable and which have a gradient:

    ========  ==================================================================  =================================
    state     what the call does                                                  the next state
    ========  ==================================================================  =================================
    new       run the step: its kernels compile                                   warm
    warm      run the step and record its kernel calls                            captured, or refused with a reason
    captured  run the step, then replay it on the same values, compare, restore   verified, or refused with a reason
    verified  replay; verify again the first time that an input changes           verified
    refused   run the step                                                        refused
    ========  ==================================================================  =================================

    The reason is given once, as a RuntimeWarning.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]], *modules: ModuleLike) -> None:
        self.step, self.given = step, modules
        self.modules = [part for module in modules for part in module.modules()]
        self.tensors: list[Tensor] = [tensor for module in modules for tensor in module.named_tensors().values()]
        self.states: dict[Key, Captured | str] = {}  # the last used comes last

    def __reduce__(self) -> tuple:
        return Capture, (self.step, *self.given)  # a copy captures anew

    def __call__(self, *inputs: Input, **constants: Hashable) -> PendingMetrics:
        key = self._key(inputs, constants)
        state = self.states.pop(key, NEW)  # removed, so that an exception leaves nothing half-done
        if isinstance(state, Captured) and state.verified and not state.unverified(inputs):
            metrics = state.replay(inputs, self.tensors)
        elif isinstance(state, Captured):
            state, metrics = self._verify(state, inputs, constants)
        elif state is WARM:
            state, metrics = self._capture(inputs, constants)
        else:
            state, metrics = WARM if state is NEW else state, self._run(inputs, constants)
        self.states[key] = state
        if len(self.states) > MOST:
            del self.states[next(iter(self.states))]
        return PendingMetrics(metrics.names, kernels.active().memory.copied(metrics.values))

    def _key(self, inputs: tuple[Input, ...], constants: dict[str, Hashable]) -> Key:
        for x in inputs:
            if not isinstance(x, Tensor | np.ndarray | None) or (isinstance(x, Tensor) and x.requires_grad):
                raise TypeError("a step takes tensors that need no gradient, NumPy arrays or None; detach() others")
        kinds = tuple([None if x is None else (type(x), x.shape, x.dtype) for x in inputs])
        modes = tuple([module.training for module in self.modules])
        leaves = tuple([(t.requires_grad, t._grad is None, id(t._data)) for t in self.tensors])
        return Key(kernels.active(), graphs_are_built(), kinds, tuple(constants.items()), modes, leaves)

    def _run(self, inputs: tuple[Input, ...], constants: dict[str, Hashable]) -> PendingMetrics:
        found = self.step(*inputs, **constants)
        if not all(isinstance(metric, Tensor) and metric.size == 1 for metric in found.values()):
            raise TypeError("a step returns a dict of names to tensors of one element")
        memory = kernels.active().memory
        values = memory.empty((len(found),), np.dtype(np.float64))
        if found:
            memory.concatenate(values, [metric._data.reshape(1) for metric in found.values()], 0)
        return PendingMetrics(tuple(found), values)

    def _capture(
        self, inputs: tuple[Input, ...], constants: dict[str, Hashable]
    ) -> "tuple[Captured | str, PendingMetrics]":
        own = tuple([x if x is None else x.detach() if isinstance(x, Tensor) else x.copy() for x in inputs])
        trace, versions = Trace(), [tensor.version for tensor in self.tensors]
        gradients = [tensor._grad for tensor in self.tensors]
        with tracing(trace), kernels.use(recording(kernels.active(), trace)):
            metrics = self._run(own, constants)
        trace.open = False  # graphs built here may be walked later
        if trace.reads:
            return self._refuse(READS), metrics
        return Captured(own, trace, metrics, self.tensors, versions, gradients), metrics

    def _verify(
        self, state: "Captured", inputs: tuple[Input, ...], constants: dict[str, Hashable]
    ) -> "tuple[Captured | str, PendingMetrics]":
        """Run the step; then restore the state before it, replay, compare, and restore the state after it."""
        changed, before, trace = state.unverified(inputs), state.written(), Trace()
        held = [tensor._grad for tensor in self.tensors]
        with tracing(trace):
            metrics = self._run(inputs, constants)
        after, gradients = state.written(), _given(self.tensors, held)
        found = [np.array(metrics.values), *after, *_copies(gradients.values())]
        fits = metrics.names == state.metrics.names and trace.same_host_calls(state.trace)
        fits = fits and gradients.keys() == state.gradients.keys()
        if fits:
            try:
                if not state.verified:
                    state.prepare(before, inputs, trace.arrays)
                    state.run = kernels.active().memory.captured(state.run)  # which may run it once
                state.prepare(before, inputs, trace.arrays)
                state.run()
                fits = all(map(_equal, [state.metrics.values, *state.outside, *state.gradients.values()], found))
            finally:
                state.restore(after)
        if not fits:
            return self._refuse(DIFFERS), metrics
        state.changed |= changed
        state.verified = True
        return state, metrics

    def _refuse(self, reason: str) -> str:
        name = getattr(self.step, "__qualname__", repr(self.step))
        warnings.warn(f"{name} is not captured but run each time: {reason}", RuntimeWarning, stacklevel=4)
        return REFUSED


# ---- recording a step ----


@dataclass
class Trace:
    """What is recorded of a step: its kernel calls, what it takes from the host, and whether it reads anything back."""

    calls: list[tuple[Callable[..., None], tuple]] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)  # arrays allocated within the step
    arrays: list[Any] = field(default_factory=list)  # of ``from_host``, and the functions that gave them
    functions: list[Callable[[], Any]] = field(default_factory=list)
    reads: bool = False
    open: bool = True

    def same_host_calls(self, other: "Trace") -> bool:
        """Whether both made the same calls of ``from_host``."""
        return len(self.functions) == len(other.functions) and all(map(_alike, self.functions, other.functions))


_local = threading.local()


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Inside the ``with`` block, this thread's ``from_host`` records in the trace."""
    before, _local.trace = getattr(_local, "trace", None), trace
    try:
        yield
    finally:
        _local.trace = before


def from_host(values: Callable[[], Any], dtype: Any) -> Any:
    """``values()`` as an array of the kernel set in use. A replay calls ``values`` again, and writes, before it runs.

    This is how a captured step gets numbers that change from step to step. In a replay all
    these functions are called first, in the recorded order, then the kernels run. ``values`` must compute the number
    afresh, not return a stored one.
    """
    array = kernels.active().memory.to_device(np.array(values(), dtype))
    if trace := getattr(_local, "trace", None):
        trace.arrays.append(array)
        trace.functions.append(values)
    return array


def recording(kernel_set: ModuleType, trace: Trace) -> ModuleType:
    """The same kernels, each of whose calls is recorded in the trace."""

    def wrap(name: str, kernel: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            kernel(*arguments)
            if trace.open:
                trace.calls.append((kernel, arguments))

        return call

    def empty(shape: Any, dtype: Any) -> Any:
        trace.made.append(kernel_set.memory.empty(shape, dtype))
        return trace.made[-1]

    def copied(x: Any) -> Any:
        out = empty(x.shape, x.dtype)
        result.memory.write(out, x)
        return out

    def to_host(x: Any) -> np.ndarray:
        trace.reads = True
        return kernel_set.memory.to_host(x)

    result = kernels.wrapped(kernel_set, wrap)
    vars(result.memory).update(
        empty=empty, empty_like=lambda x: empty(x.shape, x.dtype), copied=copied, to_host=to_host
    )
    return result


# ---- what is captured ----


class Captured:
    """A step as kernel calls: the arrays that its inputs are copied into, its metrics, the gradients it leaves.

    ``changed`` are the inputs that had other values in a verification than in the capture: only these may
    take new values without another verification. Inputs on a device are taken to have changed, since comparing them
    would wait for the device.
    """

    def __init__(
        self,
        inputs: tuple[Input, ...],
        trace: Trace,
        metrics: PendingMetrics,
        tensors: list[Tensor],
        versions: list[int],
        gradients: list[Any],
    ) -> None:
        self.inputs, self.trace, self.metrics = inputs, trace, metrics
        self.gradients = _given(tensors, gradients)
        self.version_increments = [tensor.version - before for tensor, before in zip(tensors, versions, strict=True)]
        self.given = [np.array(x) if _on_host(x) else None for x in inputs]
        self.verified, self.changed = False, {i for i, x in enumerate(inputs) if not _on_host(x)}
        # What the step may overwrite: tensors, and kernel arguments that are neither its inputs nor allocated in it.
        own = [*trace.made, *trace.arrays, *(x._data for x in inputs if isinstance(x, Tensor))]
        owners = {id(_owner(array)) for array in own}
        found = [
            *(t._data for t in tensors),
            *(x for _, arguments in trace.calls for x in arguments if _is_writable(x)),
        ]
        self.outside = [x for x in {id(x): x for x in found}.values() if id(_owner(x)) not in owners]
        self.run: Callable[[], None] = self._call_kernels

    def _call_kernels(self) -> None:
        for kernel, arguments in self.trace.calls:
            kernel(*arguments)

    def unverified(self, inputs: tuple[Input, ...]) -> set[int]:
        """The inputs that differ from their captured values for the first time."""
        waiting = [i for i in range(len(inputs)) if i not in self.changed]
        return {i for i in waiting if not np.array_equal(self.given[i], np.asarray(inputs[i]))}  # type: ignore[arg-type]

    def write(self, inputs: tuple[Input, ...], values: Iterable[Any]) -> None:
        """Copy in the inputs, and the values that come from the host."""
        memory = kernels.active().memory
        for mine, new in zip(self.inputs, inputs, strict=True):
            if isinstance(mine, Tensor):
                memory.write(mine._data, new._data)  # type: ignore[union-attr]
            elif mine is not None:
                mine[...] = new
        for array, value in zip(self.trace.arrays, values, strict=True):
            if value.shape != array.shape:
                raise ValueError(f"from_host: a function gave {array.shape} when captured, and now {value.shape}")
            memory.write(array, value)

    def prepare(self, state: list[np.ndarray | None], inputs: tuple[Input, ...], values: list[Any]) -> None:
        """Put everything as it was before a step on these inputs and values."""
        self.restore(state)
        self.write(inputs, values)

    def replay(self, inputs: tuple[Input, ...], tensors: list[Tensor]) -> PendingMetrics:
        """The step once more, on these inputs; then the gradients and versions are set as the step does."""
        functions, arrays = self.trace.functions, self.trace.arrays
        values = (np.asarray(f(), array.dtype) for f, array in zip(functions, arrays, strict=True))
        self.write(inputs, values)
        self.run()
        for i, gradient in self.gradients.items():
            tensors[i]._grad = gradient
        for tensor, increment in zip(tensors, self.version_increments, strict=True):
            tensor.version += increment
        return self.metrics

    def written(self) -> list[np.ndarray | None]:
        """Copies of all arrays that the step may overwrite and that existed before it."""
        return _copies(self.outside)

    def restore(self, state: list[np.ndarray | None]) -> None:
        """Put back what ``written`` gave."""
        for array, values in zip(self.outside, state, strict=True):
            kernels.active().memory.write(array, values)


def _on_host(x: Input) -> bool:
    """Whether an input can be looked at without waiting for a device."""
    return isinstance(x._data if isinstance(x, Tensor) else x, np.ndarray)


def _is_writable(x: Any) -> bool:
    """Whether an argument of a kernel is an array that it can write into."""
    return (
        hasattr(x, "dtype") and not isinstance(x, np.generic) and (not isinstance(x, np.ndarray) or x.flags.writeable)
    )


def _alike(a: Any, b: Any) -> bool:
    """Whether two functions are the same code with the same captured constants, though made at different calls."""
    if isinstance(a, MethodType) and isinstance(b, MethodType):
        return a.__func__ is b.__func__ and a.__self__ is b.__self__
    if isinstance(a, FunctionType) and isinstance(b, FunctionType):
        held = [[cell.cell_contents for cell in f.__closure__ or ()] + list(f.__defaults__ or ()) for f in (a, b)]
        return a.__code__ is b.__code__ and all(map(_alike, *held))
    constants = int | float | str | tuple | None
    return a == b if isinstance(a, constants) and isinstance(b, constants) else type(a) is type(b)


def _owner(array: Any) -> Any:
    """What holds the memory of an array, of which it may be a view."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return getattr(array, "_block", array)


def _given(tensors: list[Tensor], before: list[Any]) -> dict[int, Any]:
    """The gradients that a step has set, by the tensor's place in the list."""
    pairs = enumerate(zip(tensors, before, strict=True))
    return {i: tensor._grad for i, (tensor, gradient) in pairs if tensor._grad is not gradient}


def _copies(arrays: Iterable[Any]) -> list[np.ndarray | None]:
    return [None if x is None else np.array(x) for x in arrays]


def _equal(a: Any, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(np.asarray(a), b, equal_nan=True)
