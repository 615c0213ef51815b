"""The tensor: an array that remembers which operation made it, so that gradients can flow back.

``apply`` runs an operation's forward and attaches a node to its result; ``Tensor.backward`` walks the nodes from the
result to the leaves (``_walk``) and calls each operation's backward once. That is all of automatic differentiation
here. The rest of the file converts inputs and places gradients. What Python and NumPy expect of a tensor besides
arithmetic is in ``protocols``.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count, repeat
from numbers import Real
from typing import Any

import numpy as np

import kernels
from scratchgen.grad_mode import graphs_are_built, no_grad
from scratchgen.op import REGISTRY, Op, OutputBuffer
from scratchgen.protocols import Protocols
from scratchgen.signature import Shape, whole_numbers

__all__ = ["Node", "Tensor", "apply", "graphs_are_built", "no_grad"]


class Node:
    """One application of an operation: its inputs, what its backward needs, and the kernel set it computed with."""

    __slots__ = ("inputs", "kernels", "needs_grad", "number", "op", "params", "saved", "versions")
    _numbers = count()  # creation order is a topological order: an operation comes after those that made its inputs

    def __init__(
        self, op: Op, inputs: tuple["Tensor", ...], needs_grad: tuple[bool, ...], saved: Any, params: dict, active: Any
    ) -> None:
        self.op, self.inputs, self.needs_grad, self.saved, self.params = op, inputs, needs_grad, saved, params
        self.kernels = active
        self.versions = [tensor.version for tensor in inputs]
        self.number = next(Node._numbers)

    def backward(self, dout: np.ndarray, needs_grad: Sequence[bool | OutputBuffer] | None = None) -> tuple:
        """The gradients of the inputs; what the forward saved is released.

        ``needs_grad`` has a bool for each input, or the buffer to write its gradient into.
        """
        if self.saved is None:
            raise RuntimeError(f"{self.op.name}: backward has been through this graph already; run the forward again")
        if self.versions != [tensor.version for tensor in self.inputs]:
            written = next(t for t, version in zip(self.inputs, self.versions, strict=True) if t.version != version)
            raise RuntimeError(
                f"{self.op.name}: an input of shape {written.shape} has been written to since the forward "
                "(by an optimizer step or load_state_dict?); run the forward again"
            )
        saved, self.saved = self.saved, None
        return self.op.backward(self.kernels, needs_grad or self.needs_grad, dout, saved, **self.params)


def _operators(name: str) -> tuple[Callable[..., "Tensor"], Callable[..., "Tensor"]]:
    """The methods for ``tensor ? other`` and ``other ? tensor``."""
    return lambda self, other: apply(name, self, other), lambda self, other: apply(name, other, self)


class Tensor(Protocols):
    """A float32 or float64 array; where it ``requires_grad``, backward fills ``grad``, of the same shape and dtype.

    Arrays keep their float type, and Python numbers and lists become float32, unless ``dtype`` says otherwise; without
    it integer arrays are refused. The array is C-contiguous; the constructor copies, and ``data`` is a read-only view.
    No operation writes into it. ``write``, and ``+=`` and its like inside ``no_grad``, do, and count up ``version``; so
    do optimizers, ``load_state_dict`` and moving averages.
    """

    __slots__ = ("__weakref__", "_data", "_grad", "node", "requires_grad", "version")
    __array_ufunc__ = None  # array + tensor asks the tensor, not NumPy

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        if dtype is None and not isinstance(data, np.ndarray | np.generic | Tensor):
            dtype = np.float32
        if isinstance(data, Tensor):
            data._require_no_graph()
            data = data._on_host()
        array = np.array(_of_numbers(data), dtype, order="C")
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"a tensor holds float32 or float64, not {array.dtype}; convert it with astype")
        self._set(kernels.active().memory.to_device(array), requires_grad)

    def _set(self, array: np.ndarray, requires_grad: bool) -> None:
        self._data, self.requires_grad = array, requires_grad
        self._grad: np.ndarray | None = None
        self.node: Node | None = None
        self.version = 0

    @classmethod
    def wrap(cls, array: np.ndarray) -> "Tensor":
        """A tensor around a C-contiguous array of floats, or of labels as int64, which it does not copy.

        The caller promises not to write into it. What writes into the tensor writes into the array.

        Where kernels compute on a device, an array of the host is copied there.
        """
        tensor = cls.__new__(cls)
        tensor._set(kernels.active().memory.to_device(array), False)
        return tensor

    # ---- what it holds ----

    @property
    def data(self) -> np.ndarray:
        """The array, as a read-only view; if it lies on a device, as a copy."""
        view = self._on_host().view()
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
        return self._on_host().item()

    def _on_host(self) -> np.ndarray:
        """The array in the host's memory. A step that calls this cannot be captured."""
        return np.asarray(kernels.active().memory.to_host(self._data))

    def detach(self) -> "Tensor":
        """A copy outside the graph: no gradient flows through it, and no optimizer reaches it."""
        return Tensor.wrap(kernels.active().memory.copied(self._data))

    def write(self, data: Any) -> None:
        """Overwrite the numbers of a leaf; graphs that used the old ones notice by the version."""
        if self.node is not None:
            raise RuntimeError(
                f"write: this is the result of {self.node.op.name}, whose backward may need it; write into leaves"
            )
        kernels.active().memory.write(self._data, data._data if isinstance(data, Tensor) else _of_numbers(data))
        self.version += 1

    def __repr__(self) -> str:
        made_by = f", made by {self.node.op.name}" if self.node else ""
        wants = ", requires_grad" if self.requires_grad and not self.node else ""
        values = np.array2string(self._on_host(), precision=4, threshold=12, edgeitems=2)
        return f"Tensor({values}, shape {self.shape}, {self.dtype}{wants}{made_by})"

    # ---- backward ----

    @property
    def grad(self) -> np.ndarray | None:
        """d(loss)/d(self), which ``backward`` adds to, or None. It may be assigned: a copy is kept.

        Once an optimizer has the parameter, the array is part of its gradient buffer: it holds the latest gradient.
        Copy it to keep it. A step that looks at it cannot be captured.
        """
        if isinstance(self._grad, np.ndarray):
            kernels.active().memory.to_host(self._grad)  # tells a capture that numbers are read
        return self._grad

    @grad.setter
    def grad(self, gradient: Any) -> None:
        if gradient is None or gradient is self._grad:
            self._grad = gradient
            return
        gradient = gradient._data if isinstance(gradient, Tensor) else gradient
        found = getattr(gradient, "shape", None), getattr(gradient, "dtype", type(gradient).__name__)
        if found != (self.shape, self.dtype):
            raise ValueError(
                f"grad: an array of shape {self.shape} and {self.dtype} is needed, not {found[0]}, {found[1]}"
            )
        if self.node is not None:
            raise RuntimeError("grad: this is the result of an operation; only leaves have a gradient")
        array = np.asarray(gradient) if isinstance(gradient, np.generic) else gradient
        self._grad = self._placed(kernels.active(), kernels.active().memory.to_device(array))

    def backward(self, gradient: np.ndarray | None = None) -> None:
        """Add d(self)/d(leaf) into ``grad`` of every leaf that requires it; ``gradient`` is d(loss)/d(self).

        Without ``gradient`` the tensor must hold one number. What the forward saved is freed as the graph is walked: a
        second backward through it is an error, as is one after an optimizer has changed a parameter that it used.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not depend on anything that requires a gradient")
        if gradient is None and self.size != 1:
            raise ValueError(f"backward: a tensor of shape {self.shape} needs a gradient of that shape")
        gradient = np.array(np.ones(self.shape) if gradient is None else gradient, self.dtype, order="C")
        if gradient.shape != self.shape:
            raise ValueError(f"backward: gradient {gradient.shape} does not fit the tensor {self.shape}")
        active = self.node.kernels if self.node else kernels.active()
        gradient = active.memory.to_device(gradient)
        if self.node is None:
            self._receive(active, gradient)
        else:
            _walk(self, gradient)

    @property
    def _gradient_buffer(self) -> OutputBuffer | None:
        """Where the first gradient may be written, if there is such a place."""
        return None

    def _placed(self, active: Any, gradient: np.ndarray) -> np.ndarray:
        """A gradient as ``grad`` keeps it: here a copy."""
        return active.memory.copied(gradient)

    def _receive(self, active: Any, gradient: np.ndarray) -> None:
        """Add to ``grad``, at the end of a walk."""
        if self._grad is not None:
            total = active.memory.copied(self._grad)
            active.memory.add_to(total, gradient)
            gradient = total
        self._grad = self._placed(active, gradient)

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


# ---- the walk ----


def _walk(result: Tensor, gradient: Any) -> None:
    """Send d(loss)/d(result) back through the graph, the latest operation first, and give each leaf its gradient.

    A node runs after all nodes that use its result, because those were created later: by then the gradient of its
    result is complete.
    """
    gradients, leaves = {id(result): gradient}, list[tuple[Tensor, Any]]()
    waiting = [(-_node(result).number, id(result), result)]
    while waiting:  # a loop, not a recursion: any depth will do
        tensor = heappop(waiting)[-1]
        node = _node(tensor)
        input_gradients = node.backward(gradients.pop(id(tensor)), _with_buffers(node, gradients))
        for source, needed, gradient in zip(node.inputs, node.needs_grad, input_gradients, strict=True):
            if not needed:
                continue
            gradient = _unbroadcast(node.kernels, gradient, source.shape)
            if id(source) in gradients:
                gradient = _accumulate(node.kernels, source, gradients[id(source)], gradient)
            elif source.node is not None:
                heappush(waiting, (-source.node.number, id(source), source))
            else:
                leaves.append((source, node.kernels))
            gradients[id(source)] = gradient
        node.inputs = ()  # whoever keeps the result does not keep what it was made from
    for leaf, active in leaves:
        leaf._receive(active, gradients[id(leaf)])


def _of_numbers(data: Any) -> Any:
    """An array, or what NumPy makes one of. TypeError unless it holds numbers."""
    array = data if hasattr(data, "dtype") else np.asarray(data)
    if array.dtype.kind not in "iuf":  # NumPy would make NaN of None, and 1 of True and "1"
        raise TypeError(f"a tensor holds float32 or float64, not {array.dtype}: {data!r:.40}")
    return array


def _node(tensor: Tensor) -> Node:
    assert tensor.node is not None
    return tensor.node


# ---- where gradients are placed ----
# - of a parameter in a flat buffer (``nn.flatten``): into its part of the flat gradient buffer. Dense layers and
#   products write a first gradient there themselves; others are copied there by ``_receive``; further ones are added.
# - of any other leaf: into an array of its own, ``grad``, by ``_receive``.
# - of an intermediate result: only into the dictionary of ``_walk``, until its node has run.


def _with_buffers(node: Node, gradients: dict[int, Any]) -> Sequence[bool | OutputBuffer]:
    """``node.needs_grad``, with a leaf's gradient buffer in the place of True if this is its first gradient."""
    needs: list[bool | OutputBuffer] = list(node.needs_grad)
    taken = list[Tensor]()
    for i, source in enumerate(node.inputs):
        if needs[i] and source.node is None and id(source) not in gradients and not any(source is t for t in taken):
            needs[i] = source._gradient_buffer or True
            taken.append(source)  # of w @ w, only one of the two gradients can be written there
    return needs


def _accumulate(active: Any, source: Tensor, total: Any, gradient: Any) -> Any:
    """The sum of two gradients of one tensor, in place if the first lies in a leaf's gradient buffer."""
    buffer = source._gradient_buffer
    if buffer is not None and total is buffer.array:
        active.memory.add_to(total, gradient)
        return total
    out = active.memory.empty_like(total)
    active.elementwise.add(out.reshape(-1), total.reshape(-1), gradient.reshape(-1))
    return out


def _unbroadcast(active: Any, gradient: Any, shape: Shape) -> Any:
    """The gradient of an input that was broadcast: the sum over the axes along which it was repeated."""
    if gradient.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    repeated = tuple(lead + i for i, size in enumerate(shape) if size == 1 and gradient.shape[lead + i] != 1)
    total, _ = REGISTRY["sum"].forward(active, gradient, axis=(*range(lead), *repeated), keepdims=True)
    return total.reshape(shape)


# ---- applying an operation ----


def apply(operation: str | Op, *inputs: Any, **params: Any) -> Tensor:
    """Run an operation, by name or itself, on tensors, arrays and numbers. Results that need a gradient have a node.

    Raises TypeError for mixed float types (nothing promotes silently) and ValueError for shapes that do not fit.
    """
    op = REGISTRY[operation] if isinstance(operation, str) else operation
    if not op.shapes.variadic and len(inputs) != len(op.domains):
        raise TypeError(f"{op.name} takes {len(op.domains)} inputs, not {len(inputs)}")
    tensors = inputs if _are_tensors(op, inputs) else as_tensors(op, inputs)
    arrays = [tensor._data for tensor in tensors]
    shapes = [array.shape for array in arrays]
    if not op.shapes.elementwise:
        op.shapes.check(op.name, shapes)
    elif len(set(shapes)) > 1:
        shape = op.shapes.broadcast(op.name, shapes)
        arrays = [a if a.shape == shape else _broadcast(a, shape) for a in arrays]
    active = kernels.active()
    out, saved = op.forward(active, *arrays, **params)
    result = Tensor.__new__(Tensor)
    result._set(out, False)
    needs_grad = tuple([tensor.requires_grad for tensor in tensors])
    if True in needs_grad and graphs_are_built():
        result.requires_grad = True
        result.node = Node(op, tensors, needs_grad, saved, params, active)
    return result


def _are_tensors(op: Op, inputs: tuple) -> bool:
    """Whether the inputs need no conversion by ``as_tensors``: the usual case."""
    if op.takes_labels or not inputs or not isinstance(inputs[0], Tensor):
        return False
    dtype = inputs[0]._data.dtype
    if dtype.kind != "f":
        return False
    for x, domain in zip(inputs, repeat(op.domains[0]) if op.shapes.variadic else op.domains, strict=False):
        if not isinstance(x, Tensor) or x._data.dtype is not dtype or (x.requires_grad and not domain.differentiable):
            return False
    return True


def as_tensors(op: Op, inputs: tuple) -> tuple[Tensor, ...]:
    """The inputs as tensors of one float type, to which numbers and lists are converted; labels as int64."""
    floats = [x for i, x in enumerate(inputs) if not op.domain(i).whole]
    found = {x.dtype for x in floats if isinstance(x, Tensor) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")}
    if len(found) > 1:
        types = " and ".join(sorted(map(str, found)))
        raise TypeError(f"{op.name}: inputs are {types}; convert one with Tensor(x.data, dtype=...)")
    dtype = found.pop() if found else np.float32

    def convert(position: int, value: Any) -> Tensor:
        domain = op.domain(position)
        if domain.whole:
            if isinstance(value, Tensor) and value.dtype == np.int64:
                return value
            labels = np.asarray(value.data if isinstance(value, Tensor) else value)
            if labels.dtype.kind not in "iu":
                raise TypeError(f"{op.name}: input {position} holds whole numbers, not {labels.dtype}")
            return Tensor.wrap(np.array(labels, np.int64, order="C"))
        if not isinstance(value, Tensor):
            return Tensor(value, dtype=None if isinstance(value, np.ndarray) else dtype)
        if value.dtype.kind != "f":
            raise TypeError(
                f"{op.name}: input {position} holds {value.dtype}; convert it with Tensor(x.data, dtype=...)"
            )
        if value.requires_grad and graphs_are_built() and not domain.differentiable:
            raise ValueError(f"{op.name}: input {position} ({domain.name}) takes no gradient; detach() it")
        return value

    return tuple(convert(position, value) for position, value in enumerate(inputs))


def _broadcast(array: np.ndarray, shape: Shape) -> np.ndarray:
    """A C-contiguous copy, repeated along the axes that ``shape`` adds or enlarges."""
    out = kernels.active().memory.empty(shape, array.dtype)
    kernels.active().memory.write(out, array)
    return out
