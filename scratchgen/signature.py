"""What an operation accepts: values of an input (its domain), and shapes (its signature)."""

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Domain:
    """The values an input may take when an operation is checked: [low, high], ``gap`` away from each kink.

    Half of the checks take them from ``wide``: three times as far, and ten times nearer to kinks and to a ``low`` above
    0. ``differentiable`` is False for inputs without a gradient: targets, labels, noise, masks. ``whole`` means int64.
    """

    name: str
    low: float = -3.0
    high: float = 3.0
    kinks: tuple[float, ...] = ()
    gap: float = 0.01
    differentiable: bool = True
    whole: bool = False

    @property
    def wide(self) -> "Domain":
        """The same with a wider range, but for [0, 1]."""
        if self.low == 0:
            return self
        low = self.low / 10 if self.low > 0 else 3 * self.low
        return replace(self, low=low, high=3 * self.high, gap=self.gap / 10)


REAL = Domain("real")
KINK_AT_ZERO = Domain("real, kink at 0", kinks=(0.0,))
NONZERO = Domain("nonzero", kinks=(0.0,), gap=0.5)
POSITIVE = Domain("positive", low=0.5)
CONSTANT = Domain("constant", differentiable=False)
UNIT_CONSTANT = Domain("constant in [0, 1]", low=0.0, high=1.0, differentiable=False)
LABEL = Domain("label", low=0.0, high=0.0, differentiable=False, whole=True)


class Signature:
    """Shapes in the notation of NumPy's gufuncs: ``(b,i),(i,o),(o)->(b,o)``.

    A letter is the same size everywhere, and a number is that size; ``...`` is any number of leading dimensions, the
    same everywhere. ``()`` for all inputs means elementwise with broadcasting. A leading ``*`` means any number of such
    inputs.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.variadic = text.startswith("*")
        left, right = text.split("->")
        self.inputs, (self.output,) = _groups(left), _groups(right)
        self.elementwise = all(dims == () for dims in self.inputs)
        self._fitting: set[tuple[Shape, ...]] = set()  # shapes that have passed; training uses few

    def check(self, name: str, shapes: Sequence[Shape]) -> None:
        """Raise ValueError, naming the operation and all shapes, unless they fit."""
        if self.variadic or (key := tuple(shapes)) in self._fitting:
            return
        sizes: dict[str, int | Shape] = {dim: int(dim) for dims in self.inputs for dim in dims if dim.isdigit()}
        for dims, shape in zip(self.inputs, shapes, strict=True):
            if dims and dims[0] == "...":
                lead = len(shape) - len(dims) + 1
                bound: list[tuple[str, int | Shape]] = [
                    ("...", shape[: max(lead, 0)]),
                    *zip(dims[1:], shape[max(lead, 0) :], strict=False),
                ]
                fits = lead >= 0
            else:
                bound, fits = list(zip(dims, shape, strict=False)), len(dims) == len(shape)
            if not fits or any(sizes.setdefault(dim, size) != size for dim, size in bound):
                raise ValueError(f"{name}: shapes {_join(shapes)} do not fit {self.text}")
        if len(self._fitting) < 1000:
            self._fitting.add(key)

    def broadcast(self, name: str, shapes: Sequence[Shape]) -> Shape:
        """The common shape of an elementwise operation's inputs; ValueError if there is none."""
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            raise ValueError(f"{name}: shapes {_join(shapes)} do not broadcast together") from None


def pair(name: str, value: Any, least: int) -> tuple[int, int]:
    """One number or two, as (rows, columns). ValueError, naming the argument, unless they are ``least`` or more."""
    numbers = whole_numbers((value,))
    both = numbers * 2 if len(numbers) == 1 else numbers
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"{name} must be a whole number or two, {least} or more, not {value!r}")
    return both[0], both[1]


def whole_numbers(arguments: Sequence[Any]) -> Shape:
    """Sizes or axes, given one by one or as one tuple or list."""
    inside = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple | list) else arguments
    return tuple(operator.index(number) for number in inside)


def _groups(text: str) -> tuple[tuple[str, ...], ...]:
    """The dimensions within each pair of brackets."""
    return tuple(tuple(inside.split(",")) if inside else () for inside in re.findall(r"\(([^)]*)\)", text))


def _join(shapes: Sequence[Shape]) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)
