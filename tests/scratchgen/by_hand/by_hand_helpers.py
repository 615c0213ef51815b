"""What a gradient by hand is held against: the engine's, and finite differences away from kinks."""

import math
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import strategies as st

from scratchgen.by_hand import networks
from scratchgen.by_hand.layers import ACTIVATIONS

sizes = st.integers(1, 5)
dense = st.builds(dict, input_dim=sizes)  # options of networks without channels


@st.composite
def images(draw, *names):
    """Channels of each of these networks, of which some have none, and pixels that they can halve, as options."""
    channels = {name: draw(st.lists(st.integers(1, 3), max_size=2).map(tuple)) for name in names}
    smallest = draw(st.integers(1, 2))
    return {"input_dim": (smallest * 2 ** max(map(len, channels.values()))) ** 2, **channels}


def randomize(model, rng):
    """Parameters of order 1, biases too, which begin at 0; and logits, for at large ones 1 - s has few digits."""
    for parameter in model.parameters():
        spread = 1 / math.sqrt(parameter.size / parameter.shape[-1]) if parameter.ndim > 1 else 0.5
        parameter.write(spread * rng.standard_normal(parameter.shape))


def gradients_of(parameters):
    """Copies of the gradients that there are of these parameters, by name."""
    return {name: np.array(p.grad) for name, p in parameters.items() if p.grad is not None}


def before_updates(task, optimizers):
    """Have a task change no parameter; returns a list that grows by the gradients of each update it would make."""
    found, named = [], task.model.named_parameters()

    def instead(optimizer):
        mine = {id(p) for p in optimizer.flat.parameters}
        own = {name: p for name, p in named.items() if id(p) in mine}
        return lambda loss=None: found.append(gradients_of(own))

    for optimizer in optimizers:
        optimizer.step = instead(optimizer)
    return found


def assert_the_engine_s(gradients, engine):
    """The same parameters have gradients, and the same ones."""
    assert gradients.keys() == engine.keys()
    for name, gradient in engine.items():
        assert gradients[name].shape == gradient.shape
        # sums cancel: rounding is relative to what is added up, of which the largest gradient is a measure
        largest = max(np.linalg.norm(g) for g in gradients.values())
        assert np.linalg.norm(gradients[name] - gradient) <= 1e-12 * largest, name


def assert_finite_differences(loss_and_gradients, parameters, rng):
    """Each gradient is the central difference of 4th order along a random direction, far from every kink."""

    def loss(name, step):
        return loss_and_gradients({**parameters, name: parameters[name] + step})[0]

    with kink_distances() as distances:
        _, gradients = loss_and_gradients(parameters)
        for name, gradient in gradients.items():
            step = rng.standard_normal(gradient.shape)
            step *= 1e-3 / np.linalg.norm(step)
            near, far = loss(name, step) - loss(name, -step), loss(name, 2 * step) - loss(name, -2 * step)
            np.testing.assert_allclose(np.vdot(gradient, step), (8 * near - far) / 12, rtol=1e-7, atol=1e-12)
    assert min(distances) > 0.005  # at every point that was looked at, and they are 0.001 apart


@contextmanager
def kink_distances():
    """Within, the list yielded grows by the smallest distance to a kink of each relu, leaky relu and maxout."""
    distances, maxout = [], networks.maxout

    def watched(phi, phi_prime):
        def forward(a):
            distances.append(np.abs(a).min())
            return phi(a)

        return forward, phi_prime

    def watched_maxout(a):
        if a.shape[2] > 1:
            ordered = np.sort(a, axis=2)
            distances.append((ordered[:, :, -1] - ordered[:, :, -2]).min())
        return maxout(a)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("relu", "leaky_relu"):
            patch.setitem(ACTIVATIONS, name, watched(*ACTIVATIONS[name]))
        patch.setattr(networks, "maxout", watched_maxout)
        yield distances


def far_from_kinks(problem):
    """The first of ``problem(rng)`` = (loss_and_gradients, parameters) with every kink 0.01 away, and its rng."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        loss_and_gradients, parameters = problem(rng)
        with kink_distances() as distances:
            loss_and_gradients(parameters)
        if min(distances) > 0.01:
            return loss_and_gradients, parameters, rng
    raise AssertionError("every point is near a kink")
