"""The convolutional adversarial autoencoders of L27: the cost of the game on images, and what the demo prints."""

import numpy as np
import pytest
from lesson_helpers import load, needs_mnist, run

from scratchgen import Tensor, no_grad
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.random import RandomStream

LESSON = "27_convolutional_aae"
SMALL = AAEConfig(
    input_dim=64, encoder_hidden=(8,), decoder_hidden=(8,), encoder_channels=(3, 4), decoder_channels=(4, 3)
)


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture
def game(demo):
    return demo.ImageGame(AAE(SMALL, 0), (3, 4), RandomStream(0))


@pytest.fixture
def x():
    return Tensor(np.random.default_rng(1).random((6, 64), np.float32))


def test_pooled_error_is_the_mean_over_blocks_in_grey_levels(demo):
    x, y = np.random.default_rng(0).random((2, 5, 64))
    blocks = [images.reshape(5, 2, 4, 2, 4).mean(axis=(2, 4)) for images in (255 * x, 255 * y)]
    expected = ((blocks[0] - blocks[1]) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(demo.pooled_error(Tensor(x), Tensor(y)).data, expected, rtol=1e-12)


def test_pooled_error_does_not_see_what_pooling_removes(demo):
    x = np.random.default_rng(0).random((5, 8, 8))
    moved = x.reshape(5, 2, 4, 2, 4)[:, :, ::-1].reshape(5, 64)  # pixels change places within their block
    error = demo.pooled_error(Tensor(x.reshape(5, 64)), Tensor(moved)).data
    np.testing.assert_allclose(error, 0, atol=1e-20)


def test_image_game_updates_the_discriminator_then_the_autoencoder(game, x):
    before = game.state_dict()
    metrics = game.train_step(x)
    changed = {
        name.split(".")[0] for name, array in game.state_dict().items() if not np.array_equal(array, before[name])
    }
    assert {"model", "discriminator"} <= changed
    frozen = "model.discriminator"  # the one on codes has no part in it
    assert all(np.array_equal(before[name], game.state_dict()[name]) for name in before if name.startswith(frozen))
    assert metrics.keys() == {"d_loss", "fooling", "pooled"}


@pytest.mark.parametrize("player", ["discriminator", "autoencoder"])
def test_image_game_trains_each_player_by_its_cost(demo, x, player):
    """The gradients that their optimizers take are those of the formulas of the lesson, by differences."""
    game = demo.ImageGame(AAE(SMALL, 0, np.float64), (3, 4), RandomStream(0))
    x, autoencoder = (
        Tensor(x.data.astype(np.float64)),
        game.model.encoder.parameters() + game.model.decoder.parameters(),
    )
    parameters = autoencoder if player == "autoencoder" else game.discriminator.parameters()
    others = [] if player == "autoencoder" else autoencoder  # D learns first: the autoencoder meets it as it is after
    before = [p.data.copy() for p in parameters]
    kept = [p.data.copy() for p in others]
    metrics = game.train_step(x)
    directions = [np.random.default_rng(2).normal(size=p.shape) for p in parameters]
    slope = sum(float((p.grad.data * d).sum()) for p, d in zip(parameters, directions, strict=True))

    def cost(step):
        with no_grad():
            for p, data in zip(others, kept, strict=True):
                p.write(data)
            for p, data, direction in zip(parameters, before, directions, strict=True):
                p.write(data + step * direction)
            reconstructed = game.model.mean(game.model.encode(x)[0])
            on_images, on_reconstructions = (game.discriminator(each).data for each in (x, reconstructed))
        if player == "discriminator":
            return np.logaddexp(0, -on_images).mean() + np.logaddexp(0, on_reconstructions).mean()
        blocks = [each.reshape(6, 2, 4, 2, 4).mean(axis=(2, 4)) for each in (x.data, reconstructed.data)]
        return np.logaddexp(0, -on_reconstructions).mean() + 255**2 * ((blocks[0] - blocks[1]) ** 2).mean() / 100

    assert (cost(1e-6) - cost(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-6)
    found = metrics["d_loss"] if player == "discriminator" else metrics["fooling"] + metrics["pooled"] / 100
    assert found.item() == pytest.approx(cost(0), rel=1e-12)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


@needs_mnist
@pytest.mark.slow
def test_lesson_27_prints_all_rows_and_draws(table):
    got, files = table
    assert len(got) == 15
    assert int(got["parameters, (a)"].replace(",", "")) <= int(got["parameters, dense"].replace(",", ""))
    assert [file.name for file in files] == ["reconstructions.png"]
    assert files[0].stat().st_size > 10_000
