"""Launches that are made one graph: the same results, memory of its own, and no harm where there can be none."""

import warnings

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

import kernels
from kernels.cuda import device, elementwise, reductions
from kernels.cuda.array import DeviceArray
from kernels.cuda.device import SIMULATED, Block, captured, cuda

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)


class Graph:
    """Stands for the builder of a graph, and for the graph: it notes what happens, and runs what it was made of."""

    def __init__(self, run):
        self.run, self.events = run, []

    def end_building(self):
        self.events.append("end")

    def complete(self):
        self.events.append("complete")
        return self

    def close(self):
        self.events.append("close")

    def launch(self, stream):
        self.events.append(f"launch into {stream}")
        self.run()


@pytest.fixture
def graph_of(monkeypatch):
    """What ``captured`` makes of a function, and the stand-in for its graph; on a GPU, None in its place."""

    def make(run):
        if not SIMULATED:
            return captured(run), None
        graph = Graph(run)
        device.multiprocessors()
        with monkeypatch.context() as patch:
            patch.setattr(device, "SIMULATED", False)
            patch.setattr(device, "_new_graph", lambda: (graph, "stream"))
            return captured(run), graph

    return make


def of_host(values):
    return DeviceArray.from_host(np.asarray(values, np.float32))


def test_captured_graph_does_what_its_launches_do(graph_of):
    x, total, doubled = of_host(np.arange(100)), of_host([[0]]), of_host(np.zeros(100))

    def run():
        elementwise.scale(doubled, x, 2.0)
        reductions.sum_axis(total, doubled.reshape(1, 100, 1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch, graph = graph_of(run)
    if graph:
        assert graph.events == ["end", "complete", "close"]
    for factor in (1, 3, 5):
        kernels.find("cuda").memory.write(x, of_host(factor * np.arange(100)))
        launch()
        assert total.item() == 2 * factor * 4950
    if graph:
        assert graph.events[3:] == 3 * ["launch into stream"]


def test_captured_graph_has_memory_of_its_own(graph_of):
    used = []

    def run():
        block = Block(1234, np.float32)
        used.append(block.numbers)

    before = Block(1234, np.float32).numbers  # free again, for the rest of the world
    launch, _ = graph_of(run)
    assert used[0] is used[1] is not before
    assert Block(1234, np.float32).numbers is before
    held = [Block(1234, np.float32) for _ in range(3)]
    assert all(block.numbers is not used[0] for block in held)
    assert launch is not run


@pytest.mark.parametrize(
    "harm",
    [
        lambda x: DeviceArray.from_host(np.ones(3)),
        lambda x: np.asarray(x),
        lambda x: x.copy(),
        lambda x: kernels.find("cuda").memory.write(x, np.ones(3)),
    ],
)
def test_captured_refuses_copies_and_keeps_the_launches(graph_of, harm):
    x = of_host(np.ones(3))

    def run():
        harm(x)

    with pytest.warns(RuntimeWarning, match="launched one by one"):
        launch, graph = graph_of(run)
    assert launch is run
    assert graph is None or graph.events == []  # refused as it is run through
    launch()
    assert DeviceArray.from_host(np.ones(3)).shape == (3,)  # the door is open again


def test_captured_keeps_the_launches_where_no_graph_is_made(monkeypatch):
    def no_graph():
        raise OSError("no such driver")

    monkeypatch.setattr(device, "SIMULATED", False)
    monkeypatch.setattr(device, "_new_graph", no_graph)
    calls = []
    with pytest.warns(RuntimeWarning, match="no such driver"):
        launch = captured(lambda: calls.append(1))
    launch()
    assert calls == [1, 1]
