"""What an operation is, and the registry of all of them.

An operation is plain data: a name, a signature, a domain for each input, a forward and a backward. Here is a complete
one, the product of a matrix x (b, i) with itself transposed, on two kernels that every set has:

    def _gram(kernels, x):
        out = kernels.memory.empty((len(x), len(x)), x.dtype)
        kernels.dense.matmul_nt(out, x, x)                      # out = x x^T
        return out, (x,)                                        # the result, and what the backward will need

    def _gram_backward(kernels, needs_grad, dout, saved):
        (x,) = saved
        both = kernels.memory.empty_like(dout)
        kernels.elementwise.add(both.reshape(-1), dout.reshape(-1), kernels.memory.copied(dout.T).reshape(-1))
        dx = kernels.memory.empty_like(x)
        kernels.dense.matmul(dx, both, x)                       # dx = (dout + dout^T) x
        return (dx,)                                            # one gradient for each input

    register(Op("gram", "(b,i)->(b,b)", (REAL,), _gram, _gram_backward))

    def gram(x: Tensor) -> Tensor:
        return apply("gram", x)

Registering it is all it takes: the shape check, the gradient checks on every kernel set, the deliberately wrong
backwards that these must catch (mutants), and the command ``scratchgen gradcheck`` read the registry, so there is no
operation without a check.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchgen.signature import Domain, Signature

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """One way to call an operation when it is checked.

    ``params`` are its parameters; ``signature`` takes the place of the operation's where they narrow it. ``kink`` maps
    the inputs to an array that is zero at kinks which no single input shows, being inside the operation.
    """

    params: dict[str, Any] = field(default_factory=dict)
    signature: str | None = None
    kink: Callable[..., np.ndarray] | None = None


class OutputBuffer:
    """A gradient is needed, and this is the array to write it into: a parameter's part of the flat gradient buffer."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


def empty_gradient(
    kernels: Any, needs_grad: "bool | OutputBuffer", shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """The array that a backward writes a gradient into: the output buffer, if the input has one, else a new array."""
    return needs_grad.array if isinstance(needs_grad, OutputBuffer) else kernels.memory.empty(shape, dtype)


@dataclass(frozen=True)
class Op:
    """An operation: its name, the shapes it takes, a domain for each input, and the cases in which it is checked.

    ``forward(kernels, *arrays, **params)`` returns the result and ``saved``, what backward will need; ``kernels`` is a
    kernel set. ``backward(kernels, needs_grad, dout, saved, **params)`` returns a gradient for each input, in an array
    from ``empty_gradient`` or its own; it may be None where ``needs_grad`` is False.
    """

    name: str
    signature: str
    domains: tuple[Domain, ...]
    forward: Callable[..., tuple[np.ndarray, Arrays]]
    backward: Callable[..., Arrays]
    cases: tuple[Case, ...] = (Case(),)
    shapes: Signature = field(init=False, repr=False)
    takes_labels: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", Signature(self.signature))
        object.__setattr__(self, "takes_labels", any(domain.whole for domain in self.domains))
        if len(self.domains) != len(self.shapes.inputs):
            raise ValueError(f"operation {self.name}: {len(self.domains)} domains for {len(self.shapes.inputs)} inputs")
        if not self.cases:
            raise ValueError(f"operation {self.name} has no case to check it with")

    def domain(self, position: int) -> Domain:
        """The domain of the input at ``position``."""
        return self.domains[0 if self.shapes.variadic else position]


REGISTRY: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an operation. ValueError if the name is taken."""
    if op.name in REGISTRY:
        raise ValueError(f"there is an operation {op.name} already")
    REGISTRY[op.name] = op
    return op
