"""Buffers that serve again: never while anybody can see them, always once nobody can."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kernels.cpu import memory

SHAPE = (64, 257)  # above the smallest size; no other test asks for it
FLOAT = np.dtype(np.float32)
VIEWS = {
    "itself": lambda x: x,
    "a reshaped view": lambda x: x.reshape(-1),
    "a row": lambda x: x[3],
    "a transposed slice": lambda x: x.T[2:, 1:],
    "a view of a view": lambda x: x.reshape(257, 64)[5].view(np.int32),
    "a memoryview": lambda x: memoryview(x),
    "an array around a memoryview": lambda x: np.asarray(memoryview(x)),
}


def address(x):
    return x.__array_interface__["data"][0]


def test_empty_reuses_memory_that_nobody_holds():
    first = memory.empty(SHAPE, FLOAT)
    where = address(first)
    del first
    for shape, dtype in ((SHAPE, FLOAT), (SHAPE[::-1], FLOAT), ((64, 257), np.dtype(np.int32))):
        again = memory.empty(shape, dtype)
        assert (address(again), again.shape, again.dtype) == (where, shape, dtype)
        assert again.flags.c_contiguous
        del again


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_empty_never_reuses_memory_that_somebody_holds(view):
    held = view(memory.empty(SHAPE, FLOAT))
    whole = np.asarray(held)
    whole[...] = 1
    others = [memory.empty(SHAPE, FLOAT) for _ in range(3)]
    for other in others:
        assert not np.shares_memory(other, whole)
        other[...] = 2
    assert len({address(other) for other in others}) == 3
    assert (whole == 1).all()


COUNTS = {  # of references, as other versions of Python might return them
    "one less": (lambda x: sys.getrefcount(x) - 1 - 1, True),  # and one less for the argument of this function itself
    "three more": (lambda x: sys.getrefcount(x) - 1 + 3, True),
    "always the same": (lambda x: 1 << 30, False),
    "of an immortal object": (lambda x: 0, False),
}


@pytest.mark.parametrize("name", COUNTS)
def test_empty_is_right_however_references_are_counted(name, monkeypatch):
    """It reuses memory where the count tells that nobody holds it, and none where it tells nothing."""
    count, telling = COUNTS[name]
    monkeypatch.setattr(memory, "sys", SimpleNamespace(getrefcount=count))
    monkeypatch.setattr(memory, "_REFERENCES", memory._references())
    monkeypatch.setattr(memory, "_buffers", memory._Buffers())
    assert (memory._REFERENCES > 0) == telling
    first = memory.empty(SHAPE, FLOAT)
    where, kept = address(first), first[3]
    del first
    held = memory.empty(SHAPE, FLOAT)
    assert not np.shares_memory(held, kept)
    del kept
    again = memory.empty(SHAPE, FLOAT)
    assert (address(again) == where) == telling
    assert not np.shares_memory(held, again)


@pytest.mark.parametrize("shape", [(1,), (100, 784), (4096,), (4097,), (1 << 20,), (5 << 20,), (0, 3), ()])
def test_empty_gives_aligned_arrays_of_any_shape_and_type(shape):
    for dtype in (FLOAT, np.dtype(np.float64)):
        x = memory.empty(shape, dtype)
        assert (x.shape, x.dtype, x.flags.c_contiguous, x.flags.writeable) == (shape, dtype, True, True)
        assert (memory.empty_like(x).shape, memory.empty_like(x).dtype) == (shape, dtype)
        if memory.SMALLEST <= x.nbytes <= memory.LARGEST:
            assert address(x) % memory.LINE == 0


def test_empty_shares_no_memory_between_threads():
    mine, theirs = memory.empty(SHAPE, FLOAT), []
    where = address(mine)
    del mine
    thread = threading.Thread(target=lambda: theirs.append(memory.empty(SHAPE, FLOAT)))
    thread.start()
    thread.join()
    assert address(theirs[0]) != where


def test_empty_holds_no_more_memory_than_allowed(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 10 << 20)
    monkeypatch.setattr(memory, "_buffers", memory._Buffers())
    for rows in range(100, 400):
        memory.empty((rows, 1000), FLOAT)
        held = sum(buffer.nbytes for buffers in memory._buffers.by_size.values() for buffer, _ in buffers)
        assert held <= 11 << 20
    first = memory.empty((64, 1000), FLOAT)
    where = address(first)
    del first
    assert address(memory.empty((64, 1000), FLOAT)) == where


def test_empty_looks_at_only_a_few_living_arrays(monkeypatch):
    monkeypatch.setattr(memory, "_buffers", memory._Buffers())
    alive = [memory.empty(SHAPE, FLOAT) for _ in range(5 * memory.LOOKED_AT)]
    assert len({address(x) for x in alive}) == len(alive)
    assert len(memory._buffers.by_size[alive[0].nbytes]) == memory.LOOKED_AT


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (64, 257), (257, 300)])
def test_add_to_adds_in_place(kernel_set, rng, shape):
    out, values = (rng.random(shape, np.float32) for _ in range(2))
    out, values = np.asarray(out), np.asarray(values)
    expected = out + values
    kernel_set.memory.add_to(out, values)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("n", [4, 300])
def test_add_to_and_write_take_any_layout_and_broadcast(kernel_set, rng, n):
    for kind, out, values in (
        ("alike", rng.random((n, n)), rng.random((n, n))),
        ("out in another order", np.asfortranarray(rng.random((n, n))), rng.random((n, n))),
        ("values in another order", rng.random((n, n)), rng.random((n, n)).T),
        ("a row", rng.random((n, n)), rng.random(n)),
        ("a column, every other row", rng.random((2 * n, n))[::2], rng.random((n, 1))),
        ("a wider dtype", rng.random((n, n), np.float32), rng.random((n, n))),
    ):
        total = (out + values).astype(out.dtype)
        kernel_set.memory.add_to(out, values)
        np.testing.assert_array_equal(out, total, kind)
        kernel_set.memory.write(out, values)
        np.testing.assert_array_equal(out, np.broadcast_to(values, out.shape).astype(out.dtype), kind)


@pytest.mark.parametrize("method", ["write", "add_to"])
def test_large_arrays_may_overlap(kernel_set, rng, method):
    whole = rng.random((301, 300), np.float32)
    out, values = whole[1:], whole[:300]
    expected = values.copy() if method == "write" else out + values
    getattr(kernel_set.memory, method)(out, values)
    np.testing.assert_array_equal(out, expected)


def test_write_broadcasts_its_values(kernel_set, rng):
    out, values = np.empty((2, 3, 4)), rng.random((3, 1))
    kernel_set.memory.write(out, values)
    np.testing.assert_array_equal(out, np.broadcast_to(values, (2, 3, 4)))
