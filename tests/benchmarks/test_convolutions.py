"""The benchmark of convolutions: it times every rung and every direction, and nothing that computes something else."""

import pytest

from tests.benchmarks import convolutions
from tests.benchmarks.convolutions import DIRECTIONS, FORMATS, NAMES, SHAPES, measure
from tests.benchmarks.workloads import MODELS, WORKLOADS

SMALL = (3, 6, 8, 3), (4, 4, 3, 5)


@pytest.fixture(autouse=True)
def one_round(monkeypatch):
    monkeypatch.setattr(convolutions, "ROUNDS", 1)


def test_measure_times_the_ladder_and_the_kernels_of_every_direction(monkeypatch):
    monkeypatch.setattr(convolutions, "find_spec", lambda _: None)
    speeds = measure(*SMALL)
    assert tuple(speeds) == DIRECTIONS
    assert list(speeds["conv2d"]) == NAMES
    assert list(speeds["conv2d_input"]) == list(speeds["conv2d_weight"]) == ["kernel", "product"]
    assert min(speed for found in speeds.values() for speed in found.values()) > 0


def test_measure_times_pytorch_in_both_memory_formats():
    pytest.importorskip("torch")
    assert all(FORMATS.keys() <= found.keys() for found in measure(*SMALL).values())


@pytest.mark.parametrize("kernel", DIRECTIONS)
def test_measure_refuses_a_kernel_that_computes_something_else(monkeypatch, kernel):
    right = getattr(convolutions.conv, kernel)

    def wrong(out, *arguments):
        right(out, *arguments)
        out *= 1.001

    monkeypatch.setattr(convolutions.conv, kernel, wrong)
    with pytest.raises(AssertionError, match="kernel"):
        measure(*SMALL)


def test_shapes_are_those_of_the_workloads():
    for name, shapes in (("vae-conv", SHAPES[:2]), ("dcgan", SHAPES[2:])):
        workload = WORKLOADS[name]
        names = {"vae": ("encoder", "decoder"), "gan": ("discriminator", "generator")}[workload.model]
        parameters = MODELS[workload.model](workload.network, 0).named_parameters()
        for part in names:
            found = [p.shape for key, p in parameters.items() if key.startswith(part) and p.ndim == 4]
            assert sorted(found) == sorted(w for _, w in shapes)
        assert {x[0] for x, _ in shapes} == {workload.batch}
