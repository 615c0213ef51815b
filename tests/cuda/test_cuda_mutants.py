"""The checker is checked on the GPU's arrays too: every backward broken in a dozen ways, each of them seen."""

import sys

import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

from test_mutants import DIFFERENTIABLE, assert_every_mutant_is_caught

from kernels.cuda.device import SIMULATED, cuda
from scratchgen.gradcheck import check_operation

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)
# In the simulator, which takes a second for a gradient check, each operation in its first case; and ten for one of a
# product, of which a convolution takes one for each number.
PRODUCTS = ("conv2d", "conv2d_bias", "conv_transpose2d", "conv_transpose2d_bias", "dense", "matmul")
CHECKED = [
    pytest.param(*p.values, id=p.id, marks=pytest.mark.slow if SIMULATED and p.values[0].name in PRODUCTS else ())
    for p in DIFFERENTIABLE
    if not SIMULATED or p.values[1] is p.values[0].cases[0]
]
GRADCHECK = sys.modules[check_operation.__module__]  # in the package, a function bears the file's name


@pytest.mark.parametrize(("op", "case", "position"), CHECKED)
def test_check_operation_catches_every_mutant(op, case, position, monkeypatch):
    monkeypatch.setattr(GRADCHECK, "TABLE_ELEMENTS", 0)  # the elements of a wrong gradient take many forwards each
    assert_every_mutant_is_caught(op, case, position, "cuda")
