"""The tensor: an array that remembers which operation made it, so that gradients can flow back.

``apply`` runs an operation's forward and ties a node to its result; ``Tensor.backward`` walks the nodes from the
result to the leaves and calls each operation's backward once. That is all of automatic differentiation here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count, repeat
from numbers import Real
from typing import Any

import numpy as np

import kernels
from scratchgen.op import REGISTRY, Op, Place
from scratchgen.signature import Shape, whole_numbers

_recording = True


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside the ``with`` block no graph is recorded: results need no gradient and nothing is saved for one."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


class Node:
    """One application of an operation: what it was given, and what its backward needs."""

    __slots__ = ("inputs", "needs", "number", "op", "params", "saved", "versions")
    _numbers = count()  # by its number a node is younger than all that its inputs were made by

    def __init__(self, op: Op, inputs: tuple["Tensor", ...], needs: tuple[bool, ...], saved: Any, params: dict) -> None:
        self.op, self.inputs, self.needs, self.saved, self.params = op, inputs, needs, saved, params
        self.versions = [tensor.version for tensor in inputs]
        self.number = next(Node._numbers)

    def backward(self, dout: np.ndarray, needs: Sequence[bool | Place] | None = None) -> tuple:
        """The gradients with respect to the inputs, written where ``needs`` says; what was saved is let go."""
        if self.saved is None:
            raise RuntimeError(f"{self.op.name}: backward has been through this graph already; run the forward again")
        if self.versions != [tensor.version for tensor in self.inputs]:
            written = next(t for t, version in zip(self.inputs, self.versions, strict=True) if t.version != version)
            raise RuntimeError(
                f"{self.op.name}: an input of shape {written.shape} has been written to since the forward "
                "(by an optimizer step or load_state_dict?); run the forward again"
            )
        saved, self.saved = self.saved, None
        return self.op.backward(kernels.active(), needs or self.needs, dout, saved, **self.params)


def _operators(name: str) -> tuple[Callable[..., "Tensor"], Callable[..., "Tensor"]]:
    """The methods for ``tensor ? other`` and ``other ? tensor``."""
    return lambda self, other: apply(name, self, other), lambda self, other: apply(name, other, self)


class Tensor:
    """A float32 or float64 array; where it ``requires_grad``, backward fills ``grad``, of the same shape and dtype.

    Arrays keep their float type, and Python numbers and lists become float32, unless ``dtype`` says otherwise; without
    it integer arrays are refused. The array is C-contiguous and never changes: the constructor copies, and ``data`` is
    a read-only view. Only optimizers write into parameters, and they count up ``version``.
    """

    __slots__ = ("__weakref__", "_data", "grad", "node", "requires_grad", "version")
    __array_ufunc__ = None  # array + tensor asks the tensor, not NumPy

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if dtype is None and not isinstance(data, np.ndarray | np.generic | Tensor):
            dtype = np.float32
        source = np.asarray(data._data if isinstance(data, Tensor) else data)
        if source.dtype.kind not in "iuf":  # NumPy would make NaN of None, and 1 of True and "1"
            raise TypeError(f"a tensor holds float32 or float64, not {source.dtype}: {data!r:.40}")
        array = np.array(source, dtype, order="C")
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"a tensor holds float32 or float64, not {array.dtype}; convert it with astype")
        self._set(kernels.active().memory.to_device(array), requires_grad)

    def _set(self, array: np.ndarray, requires_grad: bool) -> None:
        self._data, self.requires_grad = array, requires_grad
        self.grad: np.ndarray | None = None
        self.node: Node | None = None
        self.version = 0

    @classmethod
    def wrap(cls, array: np.ndarray) -> "Tensor":
        """A tensor around a C-contiguous array of floats, or of labels as int64, which it does not copy.

        The caller promises not to write into it.

        Where kernels compute on a device, an array of the host is copied there.
        """
        tensor = cls.__new__(cls)
        tensor._set(kernels.active().memory.to_device(array), False)
        return tensor

    # ---- what it holds ----

    @property
    def data(self) -> np.ndarray:
        """The array, as a read-only view; if it lies on a device, as a copy."""
        view = np.asarray(self._data).view()
        view.flags.writeable = False
        return view

    @property
    def shape(self) -> Shape:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    def item(self) -> float:
        """The one number of a tensor of size 1."""
        return self._data.item()

    def detach(self) -> "Tensor":
        """A copy outside the graph: no gradient flows through it, and no optimizer reaches it."""
        return Tensor.wrap(kernels.active().memory.copied(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._data, dtype)

    def __repr__(self) -> str:
        made_by = f", made by {self.node.op.name}" if self.node else ""
        wants = ", requires_grad" if self.requires_grad and not self.node else ""
        values = np.array2string(np.asarray(self._data), precision=4, threshold=12, edgeitems=2)
        return f"Tensor({values}, shape {self.shape}, {self.dtype}{wants}{made_by})"

    # ---- backward ----

    def backward(self, gradient: np.ndarray | None = None) -> None:
        """Add d(self)/d(leaf) into ``grad`` of every leaf that requires it; ``gradient`` is d(loss)/d(self).

        Without ``gradient`` the tensor must hold one number. The graph is let go as it is walked: a second backward
        through it is an error, as is one after an optimizer has changed a parameter that it used.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not depend on anything that requires a gradient")
        if gradient is None and self.size != 1:
            raise ValueError(f"backward: a tensor of shape {self.shape} needs a gradient of that shape")
        gradient = np.array(np.ones(self.shape) if gradient is None else gradient, self.dtype, order="C")
        if gradient.shape != self.shape:
            raise ValueError(f"backward: gradient {gradient.shape} does not fit the tensor {self.shape}")
        gradient = kernels.active().memory.to_device(gradient)
        if self.node is None:
            return self._receive(gradient)
        # By a node's turn, the youngest first, all that was made from its result has given its share of the gradient.
        gradients, leaves, waiting = {id(self): gradient}, list[Tensor](), [(-self.node.number, id(self), self)]
        while waiting:  # a loop, not a recursion: depth is free
            tensor = heappop(waiting)[-1]
            node: Node = tensor.node  # type: ignore[assignment]
            needs: list[bool | Place] = list(node.needs)
            first = len(leaves)
            for i, source in enumerate(node.inputs):
                if needs[i] and source.node is None and id(source) not in gradients:
                    if source not in leaves[first:]:  # of w @ w, one gradient has the place and one is added to it
                        needs[i] = source._gradient_place or True
                    leaves.append(source)
            found = node.backward(gradients.pop(id(tensor)), needs)
            for source, need, grad in zip(node.inputs, needs, found, strict=True):
                if not need:  # by the needs in the forward: an input may have been frozen for a while
                    continue
                if grad.shape != source._data.shape:
                    grad = _unbroadcast(grad, source._data.shape)
                if (known := gradients.get(id(source))) is not None:
                    grad = _total(known, grad)
                elif source.node is not None:
                    heappush(waiting, (-source.node.number, id(source), source))
                gradients[id(source)] = grad
        for leaf in dict.fromkeys(leaves):
            leaf._receive(gradients[id(leaf)])

    @property
    def _gradient_place(self) -> Place | None:
        """Where the first gradient may be written, if there is such a place."""
        return None

    def _receive(self, gradient: np.ndarray) -> None:
        # adding arrays of no dimension gives a NumPy scalar, and so may a backward: a gradient is an array
        gradient = kernels.active().memory.copied(gradient) if self.grad is None else self.grad + gradient
        self.grad = np.asarray(gradient) if isinstance(gradient, np.generic) else gradient

    # ---- operators: each is an operation of the registry ----

    __add__, __radd__ = _operators("add")
    __sub__, __rsub__ = _operators("subtract")
    __truediv__, __rtruediv__ = _operators("divide")
    __matmul__, __rmatmul__ = _operators("matmul")

    def __mul__(self, other: Any) -> "Tensor":
        number = isinstance(other, int | float) and not isinstance(other, bool)
        return apply("scale", self, factor=other) if number else apply("multiply", self, other)

    __rmul__ = __mul__

    def __pow__(self, exponent: float) -> "Tensor":
        if not isinstance(exponent, Real):
            raise TypeError("power: the exponent is a number; for tensors there is exp(b * log(a))")
        return apply("power", self, exponent=exponent)

    def __neg__(self) -> "Tensor":
        return apply("scale", self, factor=-1.0)

    def __getitem__(self, index: Any) -> "Tensor":
        return apply("slice", self, index=index)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("a tensor never changes; build a new one, with concatenate or arithmetic")

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The sum over ``axis``, or over everything."""
        return apply("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """The mean over ``axis``, or over everything."""
        return apply("mean", self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> "Tensor":
        """The same numbers in another shape, given as numbers or a tuple; one size may be -1."""
        return apply("reshape", self, shape=whole_numbers(shape))

    def transpose(self, *axes: Any) -> "Tensor":
        """The axes in another order, given as numbers or a tuple; reversed without arguments."""
        return apply("transpose", self, axes=whole_numbers(axes) or tuple(reversed(range(self.ndim))))


def apply(operation: str | Op, *inputs: Any, **params: Any) -> Tensor:
    """Run an operation, by name or itself, on tensors, arrays and numbers; record it if a gradient will be wanted.

    Raises TypeError for mixed float types (nothing promotes silently) and ValueError for shapes that do not fit.
    """
    op = REGISTRY[operation] if isinstance(operation, str) else operation
    if not op.shapes.variadic and len(inputs) != len(op.domains):
        raise TypeError(f"{op.name} takes {len(op.domains)} inputs, not {len(inputs)}")
    tensors = inputs if _are_tensors(op, inputs) else _as_tensors(op, inputs)
    arrays = [tensor._data for tensor in tensors]
    shapes = [array.shape for array in arrays]
    if not op.shapes.elementwise:
        op.shapes.check(op.name, shapes)
    elif len(set(shapes)) > 1:
        shape = op.shapes.broadcast(op.name, shapes)
        arrays = [a if a.shape == shape else _repeated(a, shape) for a in arrays]
    out, saved = op.forward(kernels.active(), *arrays, **params)
    result = Tensor.__new__(Tensor)
    result._set(out, False)
    needs = tuple([tensor.requires_grad for tensor in tensors])
    if _recording and True in needs:
        result.requires_grad = True
        result.node = Node(op, tensors, needs, saved, params)
    return result


def _are_tensors(op: Op, inputs: tuple) -> bool:
    """Whether the inputs are already what ``_as_tensors`` would make of them: most often they are."""
    if op.takes_labels or not inputs or not isinstance(inputs[0], Tensor):
        return False
    dtype = inputs[0]._data.dtype
    for x, domain in zip(inputs, repeat(op.domains[0]) if op.shapes.variadic else op.domains, strict=False):
        if not isinstance(x, Tensor) or x._data.dtype is not dtype or (x.requires_grad and not domain.differentiable):
            return False
    return True


def _as_tensors(op: Op, inputs: tuple) -> tuple[Tensor, ...]:
    """The inputs as tensors of one float type, which numbers and lists take on; labels as int64."""
    floats = [x for i, x in enumerate(inputs) if not op.domain(i).whole]
    found = {x.dtype for x in floats if isinstance(x, Tensor) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")}
    if len(found) > 1:
        types = " and ".join(sorted(map(str, found)))
        raise TypeError(f"{op.name}: inputs are {types}; convert one with Tensor(x, dtype=...)")
    dtype = found.pop() if found else np.float32

    def convert(position: int, value: Any) -> Tensor:
        domain = op.domain(position)
        if domain.whole:
            if isinstance(value, Tensor) and value.dtype == np.int64:
                return value
            labels = np.asarray(value)
            if labels.dtype.kind not in "iu":
                raise TypeError(f"{op.name}: input {position} holds whole numbers, not {labels.dtype}")
            return Tensor.wrap(np.array(labels, np.int64, order="C"))
        if not isinstance(value, Tensor):
            return Tensor(value, dtype=None if isinstance(value, np.ndarray) else dtype)
        if value.requires_grad and _recording and not domain.differentiable:
            raise ValueError(f"{op.name}: input {position} ({domain.name}) takes no gradient; detach() it")
        return value

    return tuple(convert(position, value) for position, value in enumerate(inputs))


def _repeated(array: np.ndarray, shape: Shape) -> np.ndarray:
    """A C-contiguous copy, repeated along the axes that ``shape`` adds or enlarges."""
    out = kernels.active().memory.empty(shape, array.dtype)
    kernels.active().memory.write(out, array)
    return out


def _unbroadcast(gradient: np.ndarray, shape: Shape) -> np.ndarray:
    """Sum a gradient over the axes along which its input was repeated."""
    lead = gradient.ndim - len(shape)
    repeated = tuple(lead + i for i, size in enumerate(shape) if size == 1 and gradient.shape[lead + i] != 1)
    total, _ = REGISTRY["sum"].forward(kernels.active(), gradient, axis=(*range(lead), *repeated), keepdims=True)
    return total.reshape(shape)


def _total(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b, by a kernel."""
    out = kernels.active().memory.empty_like(a)
    kernels.active().elementwise.add(out.reshape(-1), a.reshape(-1), b.reshape(-1))
    return out
