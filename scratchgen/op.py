"""What an operation is, and the registry of all of them.

An operation is plain data: a name, a signature, a domain for each input, a forward and a backward. Registering it is
all it takes: the shape check, the gradient checks on every kernel set, their mutants and the command
``scratchgen gradcheck`` read the registry, so there is no operation without a check.
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

    ``params`` are its parameters; ``signature`` narrows the operation's where they ask for it. ``kink`` maps the inputs
    to an array whose zeros are kinks inside the operation, where no single input shows them.
    """

    params: dict[str, Any] = field(default_factory=dict)
    signature: str | None = None
    kink: Callable[..., np.ndarray] | None = None


class Place:
    """That somebody asks for a gradient, and the array it is to be written into: a parameter's share of its buffer."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


def new_gradient(kernels: Any, need: "bool | Place", shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Where a backward writes the gradient that ``need`` asks for: its place if it has one, else a new array."""
    return need.array if isinstance(need, Place) else kernels.memory.empty(shape, dtype)


@dataclass(frozen=True)
class Op:
    """An operation: its name, the shapes it takes, a domain for each input, and the cases in which it is checked.

    ``forward(kernels, *arrays, **params)`` returns the result and ``saved``, what backward will need; ``kernels`` is a
    kernel set. ``backward(kernels, needs, dout, saved, **params)`` returns one gradient for each input; it may be None
    where ``needs`` is False, for nobody asks for it, and may lie where ``new_gradient`` says.
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
