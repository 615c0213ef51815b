"""What Python and NumPy expect of a tensor besides arithmetic: conversions, comparisons, iteration, copies.

What cannot be meant is an error here: a tensor that requires a gradient does not become an array, through which no
gradient would flow back. A single one becomes a number, by ``float(loss)``.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scratchgen.grad_mode import graphs_are_built


def _in_place(compute: Callable[[Any, Any], Any], symbol: str) -> Callable[[Any, Any], Any]:
    """The method for ``tensor ?= other``."""

    def method(self: Any, other: Any) -> Any:
        if self.node is not None or graphs_are_built():
            raise RuntimeError(
                f"x {symbol}= y writes into x: possible inside no_grad() where x is not the result of an operation; "
                f"else write x = x {symbol} y"
            )
        result = compute(self, other)
        if result.shape != self.shape:
            raise ValueError(f"x {symbol}= y: the result has shape {result.shape}, and x has {self.shape}")
        self.write(result._data)
        return self

    return method


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], np.ndarray]:
    """The method for ``tensor ? other``: a boolean array, elementwise."""
    return lambda self, other: compare(self.data, other.data if isinstance(other, Protocols) else other)  # type: ignore[attr-defined]


class Protocols:
    """The base class of ``Tensor``; ``self`` is one."""

    __slots__ = ()

    def __len__(self: Any) -> int:
        return len(self._data)

    def __iter__(self: Any) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])

    def __array__(self: Any, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._require_no_graph()
        if copy is False:
            raise ValueError("a tensor becomes an array by a copy; x.data is a read-only view")
        return np.array(self._on_host(), dtype)

    def _require_no_graph(self: Any) -> None:
        if self.requires_grad and graphs_are_built():
            raise RuntimeError(
                "a tensor that requires a gradient is converted to an array, through which no gradient flows back: use "
                "the operations of scratchgen.ops, or x.data or x.detach() if that is what you want"
            )

    def __float__(self: Any) -> float:
        if self.size != 1:
            raise TypeError(f"a tensor of shape {self.shape} is not one number")
        return float(self.item())

    def __bool__(self: Any) -> bool:
        if self.size != 1:
            raise ValueError(
                f"a tensor of shape {self.shape} has no truth value; say (x > 0).any() or .all(), for example"
            )
        return bool(self.item())

    def __format__(self: Any, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)  # type: ignore[assignment]
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __hash__ = object.__hash__  # by identity

    def __setitem__(self: Any, index: Any, value: Any) -> None:
        raise TypeError(
            "elements are not assigned; build a new tensor (ops.where, ops.concatenate), or write() all of it"
        )

    __iadd__, __isub__ = _in_place(operator.add, "+"), _in_place(operator.sub, "-")
    __imul__, __itruediv__ = _in_place(operator.mul, "*"), _in_place(operator.truediv, "/")
    __imatmul__, __ipow__ = _in_place(operator.matmul, "@"), _in_place(operator.pow, "**")

    def __reduce__(self: Any) -> tuple:
        if self.node is not None:
            raise TypeError(
                f"this is a result of {self.node.op.name}, and its graph cannot be copied or pickled; detach() it first"
            )
        gradient = None if self._grad is None else np.array(self._grad)
        return _leaf, (type(self), np.array(self._data), self.requires_grad, gradient)


def _leaf(kind: Any, array: np.ndarray, requires_grad: bool, gradient: np.ndarray | None) -> Any:
    """A tensor as it was before it was copied or pickled."""
    tensor = kind.wrap(array)
    tensor.requires_grad, tensor.grad = requires_grad, gradient
    return tensor
