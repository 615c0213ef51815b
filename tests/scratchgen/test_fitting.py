"""Minibatch descent: which rows a batch holds, how many steps it takes, and that they go down."""

import numpy as np
import pytest

from scratchgen.fitting import minimize
from scratchgen.nn import Parameter
from scratchgen.optim import SGD
from scratchgen.tensor import Tensor


def descend(rows, steps, batch_size, seed=0):
    """The batches of a descent, each as the rows of both arrays, and the parameter after it."""
    batches, parameter = [], Parameter([2.0])

    def loss(x, labels):
        batches.append((x[:, 0].astype(int).tolist(), labels.tolist()))
        return (parameter * Tensor([1.0])).sum()

    x, labels = np.arange(rows, dtype=np.float32)[:, None], np.arange(rows) * 10
    optimizer = SGD([parameter], lr=0.25)
    minimize(loss, optimizer, x, labels, rng=np.random.default_rng(seed), steps=steps, batch_size=batch_size, name="")
    return batches, parameter.item()


@pytest.mark.parametrize(("steps", "batch_size"), [(6, 4), (7, 4), (1, 4), (5, 10), (5, 100)])
def test_minimize_takes_the_steps_asked_for_in_passes_over_all_rows(steps, batch_size):
    batches, end = descend(10, steps, batch_size)
    assert (len(batches), end) == (steps, 2 - 0.25 * steps)
    assert all(labels == [10 * row for row in rows] for rows, labels in batches)
    a_pass = -(-10 // batch_size)
    for start in range(0, steps - a_pass + 1, a_pass):
        together = [row for rows, _ in batches[start : start + a_pass] for row in rows]
        assert sorted(together) == list(range(10))
        assert together != sorted(together)


def test_minimize_shuffles_each_pass_anew_and_by_the_seed_alone():
    batches, _ = descend(10, 2, 10)
    assert batches[0] != batches[1]
    assert descend(10, 2, 10)[0] == batches
    assert descend(10, 2, 10, seed=1)[0] != batches


@pytest.mark.parametrize(
    ("lengths", "batch_size", "message"),
    [
        ((3, 3), 0, "batch_size >= 1 is needed"),
        ((3, 3), -1, "batch_size >= 1 is needed"),
        ((0, 0), 4, "arrays of one length, at least 1 is needed"),
        ((3, 4), 4, "arrays of one length, at least 1 is needed"),
        ((), 4, "arrays of one length, at least 1 is needed"),
    ],
)
def test_minimize_refuses_what_it_could_not_end_with(lengths, batch_size, message):
    def loss(*batch):
        raise AssertionError("a step was taken")

    arrays, optimizer = [np.ones((n, 2)) for n in lengths], SGD([Parameter([2.0])], lr=0.1)
    with pytest.raises(ValueError, match=message):
        minimize(loss, optimizer, *arrays, rng=np.random.default_rng(0), steps=2, batch_size=batch_size, name="")
