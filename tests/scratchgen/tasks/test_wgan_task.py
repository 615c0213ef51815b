"""The Wasserstein GAN in training: its estimate of the distance, its steps, what it refuses."""

import numpy as np
import pytest

from scratchgen.capture import Capture, Captured
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.random import RandomStream
from scratchgen.tasks.gan import GANTask, GANTraining
from scratchgen.tasks.wgan import WGANTask
from scratchgen.tensor import Tensor

TRAINING = GANTraining(objective="wasserstein", momentum=0.0, discriminator_lr=2e-3, schedule="constant")
CONV = {"generator_hidden": (), "discriminator_hidden": (), "generator_channels": (4, 3)}
CRITIC = {"discriminator_channels": (2, 3), "discriminator_batch_norm": False}


def wgan(dtype=np.float32, **options):
    config = GANConfig(64, 3, **({"pack": 1} | CONV | CRITIC | options))
    return WGANTask(GAN(config, 0, dtype), TRAINING, RandomStream(1), 10, 1, lambda *_: {})


def test_critic_estimates_the_distance_between_two_clouds(rng):
    """Moved by a vector of length 2, every point of a cloud has to go 2 far, and no plan of transport is shorter."""
    task = wgan(generator_channels=(), discriminator_channels=(), discriminator_hidden=(32, 32))
    cloud, move = rng.random((256, 64)), np.zeros(64)
    move[:4] = 1
    real, fake = Tensor(cloud, dtype=np.float32), Tensor(cloud + move, dtype=np.float32)
    found = [task.update_discriminator(real, fake)["wasserstein"].item() for _ in range(300)]
    assert np.mean(found[-20:]) == pytest.approx(2, rel=0.1)
    assert found[0] < 1


@pytest.mark.usefixtures("kernel_set")
@pytest.mark.parametrize("conditional", [False, True])
def test_steps_move_both_networks_and_replay_to_the_same_bits(rng, conditional):
    images, tasks = rng.random((8, 10, 64)).astype(np.float32), [wgan(conditional=conditional) for _ in range(2)]
    labels = rng.integers(10, size=(8, 10))
    before = {name: array.copy() for name, array in tasks[0].model.state_dict().items()}
    capture = Capture(tasks[1].train_step, *tasks[1].modules())
    for x, y in zip(images, labels, strict=True):
        plain, replayed = tasks[0].train_step(Tensor(x), y), capture(Tensor(x), y)
    *_, state = capture.states.values()
    assert isinstance(state, Captured)
    assert {name: value.item() for name, value in plain.items()} == replayed.read()
    assert plain.keys() == {"wasserstein", "penalty", "d_gradient", "g_loss", "g_gradient"}
    for name, array in tasks[0].state_dict().items():
        np.testing.assert_array_equal(array, tasks[1].state_dict()[name])
    weights = [name for name in before if name.endswith("weight")]
    assert all((tasks[0].model.state_dict()[name] != before[name]).any() for name in weights)


@pytest.mark.parametrize("conditional", [False, True])
def test_update_discriminator_takes_each_picture_with_its_class_and_a_point_for_each(rng, conditional):
    """Both metrics, against their formulas, with the u that the task draws."""
    task, other = (wgan(np.float64, conditional=conditional) for _ in range(2))
    real, fake = (Tensor(rng.random((10, 64))) for _ in range(2))
    y = Tensor(np.eye(10)[rng.integers(10, size=10)]) if conditional else None
    found = task.update_discriminator(real, fake, y)

    model, u = other.model, RandomStream(1).uniform((10, 1), np.dtype(np.float64)).data
    difference = model.discriminate(real, y).data.mean() - model.discriminate(fake, y).data.mean()
    between = Tensor(u * real.data + (1 - u) * fake.data, requires_grad=True)
    model.discriminate(between, y).sum().backward()
    assert found["wasserstein"].item() == pytest.approx(difference, rel=1e-9)
    penalty = np.mean((np.linalg.norm(between.grad, axis=1) - 1) ** 2)
    assert found["penalty"].item() == pytest.approx(penalty, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pack": 2}, "pack must be 1, not 2"),
        ({"discriminator_batch_norm": True}, "BatchNorm has no fixed linear map"),
        ({"discriminator": "maxout", "discriminator_hidden": (4,)}, "Maxout has no fixed linear map"),
        ({"input_dropout": 0.5}, "Dropout has no fixed linear map"),
        ({"input_dropout": 0.5, "conditional": True}, "Dropout has no fixed linear map"),
    ],
)
def test_critics_that_are_not_piecewise_linear_are_refused(options, says):
    with pytest.raises(TypeError, match=says):
        wgan(**options)


def test_tasks_refuse_each_other_s_objective():
    model = GAN(GANConfig(64, 3, pack=1, **CONV, **CRITIC), 0)
    arguments = RandomStream(1), 10, 1, lambda *_: {}
    with pytest.raises(ValueError, match="GANTask: objective 'wasserstein' is not one of minimax, non-saturating"):
        GANTask(model, TRAINING, *arguments)
    with pytest.raises(ValueError, match="WGANTask: objective 'minimax' is not one of wasserstein"):
        WGANTask(model, GANTraining(objective="minimax"), *arguments)
