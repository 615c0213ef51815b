"""The registry, and the operation that its docstring shows."""

import inspect
import textwrap

from scratchgen import op
from scratchgen.gradcheck import check_registry
from scratchgen.op import REGISTRY, Op, register
from scratchgen.signature import REAL
from scratchgen.tensor import Tensor, apply


def test_op_docstring_shows_an_operation_that_passes_the_gradient_check():
    lines = inspect.getdoc(op).splitlines()
    shown = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line))
    names = {"REAL": REAL, "Op": Op, "register": register, "Tensor": Tensor, "apply": apply}
    try:
        exec(shown, names)
        assert [row.passed for row in check_registry(["gram"], ["reference", "cpu"])] == [True, True]
        assert names["gram"](Tensor([[1.0, 2.0], [3.0, 4.0]])).data.tolist() == [[5, 11], [11, 25]]
    finally:
        REGISTRY.pop("gram", None)
