"""Training by hand: the tasks of ``models`` with every backward replaced by the derivations of this folder.

Parameters, optimizers, random streams, metrics and checkpoints are those of the engine, so that two tasks which begin
with the same parameters and the same seed draw the same numbers and follow the same curve, up to rounding. What is the
engine's own here is bookkeeping: no tensor that these tasks make has a graph.
"""

from collections.abc import Iterator

import numpy as np

from scratchgen.by_hand import aae, gan
from scratchgen.by_hand.layers import ACTIVATIONS, Arrays
from scratchgen.by_hand.vae import vae_gradients
from scratchgen.errors import require_one_of
from scratchgen.models.aae import CLASSES, AAETask
from scratchgen.models.gan import GANTask
from scratchgen.models.vae import VAE, VAETask, VAETraining
from scratchgen.nn import BatchNormDense, Module
from scratchgen.tensor import Tensor
from scratchgen.training import Metrics, Task, stream


def receive(model: Module, gradients: Arrays) -> None:
    """Hand each parameter its gradient, as a backward would. ValueError if one is of another shape or float type."""
    parameters = model.named_parameters()
    for name, gradient in gradients.items():
        p = parameters[name]
        if (gradient.shape, gradient.dtype) != (p.shape, p.dtype):
            raise ValueError(f"{name} is {p.shape} {p.dtype}, its gradient {gradient.shape} {gradient.dtype}")
        p._receive(gradient)


class ByHandVAETask(VAETask):
    """A VAE trained with ``vae_gradients``. ValueError for what they do not cover: a sampled KL term, some activations.

    Parameters as in ``VAETask``.
    """

    def __init__(self, model: VAE, training: VAETraining, steps_per_epoch: int, epochs: int) -> None:
        require_one_of("activation", model.config.activation, ACTIVATIONS)
        if training.monte_carlo_kl:
            raise ValueError("by hand the KL term is taken in closed form, not sampled: leave monte_carlo_kl out")
        super().__init__(model, training, steps_per_epoch, epochs)

    def backward(self, x: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
        state, config = self.model.state_dict(), self.model.config
        reconstruction, kl, gradients = vae_gradients(state, config, np.asarray(x), np.asarray(noise), self.beta())
        receive(self.model, gradients)
        return reconstruction, kl


class ByHandGANTask(GANTask):
    """A GAN trained with ``gan.discriminator_gradients`` and ``gan.generator_gradients``. Parameters as in ``GANTask``.

    ``rng`` is what this step draws masks from.
    """

    rng: np.random.Generator

    def step(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Metrics:
        self.rng = rng
        return super().step(images, labels, rng)

    def turns(self, images: np.ndarray, z: Tensor, both: bool = True) -> Iterator[Metrics]:
        """G's turn sends the noise through G once more, where the engine has kept the graph."""
        self.discriminator_optimizer.zero_grad()
        self.generator_optimizer.zero_grad()
        config, images, noise = self.model.config, np.asarray(images), z.data
        samples, averages = gan.generate(self.model.state_dict(), config, noise)
        for number, layer in enumerate(self.model.generator.layers):
            if isinstance(layer, BatchNormDense):
                layer.mean.write(averages[f"generator.layers.{number}.mean"])
                layer.variance.write(averages[f"generator.layers.{number}.variance"])
        masks, label = (self._masks(len(images)), self._masks(len(samples))), self.training.real_label
        found = gan.discriminator_gradients(self.model.state_dict(), config, images, samples, label, masks)
        receive(self.model, found.gradients)
        yield {"d_loss": found.loss_real + found.loss_fake, "d_real": found.d_real, "d_fake": found.d_fake}
        if both:
            state, objective = self.model.state_dict(), self.training.objective
            loss, gradients = gan.generator_gradients(state, config, noise, objective, self._masks(len(samples)))
            receive(self.model, gradients)
            yield {"g_loss": loss}

    def _masks(self, n: int) -> list[gan.Mask]:
        return gan.draw_masks(self.model.config, n, self.rng, self.model.dtype)


class ByHandAAETask(AAETask):
    """An adversarial autoencoder trained with the gradients of ``by_hand.aae``. Parameters as in ``AAETask``."""

    def reconstruction_step(
        self, images: np.ndarray, x: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> Metrics:
        state, noise = self.model.state_dict(), self._noise(len(images), rng)
        images, x = np.asarray(images), np.asarray(x)
        found = aae.reconstruction_gradients(state, self.model.config, images, x, labels, noise)
        return self._update("reconstruction", self._received("reconstruction", "reconstruction", *found))

    def turns(self, x: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Iterator[Metrics]:
        model, x, b = self.model, np.asarray(x), len(labels)
        noise = self._noise(b, rng)
        prior = model.prior.sample(b, rng, labels if model.regional else None).astype(model.dtype)
        classes = rng.integers(CLASSES, size=b) if model.config.labels_for == "encoder" else None
        found = aae.discriminator_gradients(model.state_dict(), model.config, x, labels, noise, prior, classes)
        yield self._received("discriminator", "d_loss", *found)
        found = aae.encoder_gradients(model.state_dict(), model.config, x, labels, noise)
        yield self._received("encoder", "e_loss", *found)

    def classification_step(self, x: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Metrics:
        state, noise = self.model.state_dict(), self._noise(len(labels), rng)
        found = aae.classification_gradients(state, self.model.config, x, labels, noise)
        return self._update("classification", self._received("classification", "c_loss", *found))

    def _noise(self, n: int, rng: np.random.Generator) -> np.ndarray | None:
        noise = self.model.draw_noise(n, rng)
        return None if noise is None else noise.data

    def _received(self, event: str, metric: str, loss: float, gradients: Arrays) -> Metrics:
        self.optimizers[event].zero_grad()
        receive(self.model, gradients)
        return {metric: loss}


def learning_curves(
    task: Task, by_hand_task: Task, images: np.ndarray, labels: np.ndarray, steps: int, batch_size: int, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train both tasks, which begin with the same parameters, on the same batches and random numbers, side by side.

    In float64 the curves are one. In float32 they round differently, and training amplifies that, as it does between
    the engine's own kernel sets: adversarial curves may part in the second or third digit within sixty steps.

    Parameters
    ----------
    images, labels : np.ndarray
        (n, D), of the models' float type, and (n,); a batch is ``batch_size`` of them, drawn with replacement.

    Returns
    -------
    dict
        For each metric its values (steps,) in both tasks, ``task`` first; NaN at steps that do not give it.
    """
    shuffle, tasks = stream(seed, "shuffle"), (task, by_hand_task)
    noises, histories = [stream(seed, "noise") for _ in tasks], [list[Metrics]() for _ in tasks]
    for _ in range(steps):
        chosen = shuffle.integers(len(images), size=batch_size)
        for each, noise, history in zip(tasks, noises, histories, strict=True):
            history.append(each.step(images[chosen], labels[chosen], noise))
    names = dict.fromkeys(name for metrics in histories[0] for name in metrics)
    engine, by_hand = ({name: np.array([m.get(name, np.nan) for m in h]) for name in names} for h in histories)
    return {name: (engine[name], by_hand[name]) for name in names}


def format_curves(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """A table of ``learning_curves``: each metric at five steps, the engine's above, and the largest difference."""
    steps = len(next(iter(curves.values()))[0])
    shown = np.unique(np.linspace(0, steps - 1, 5).round().astype(int))
    lines = [f"{'metric':<16}{'':<9}" + "".join(f"{f'step {step + 1}':>12}" for step in shown)]
    for name, (engine, by_hand) in curves.items():
        lines.append(f"{name:<16}{'engine':<9}" + "".join(f"{value:>12.6f}" for value in engine[shown]))
        lines.append(f"{'':<16}{'by hand':<9}" + "".join(f"{value:>12.6f}" for value in by_hand[shown]))
        difference = np.nanmax(np.abs(engine - by_hand) / np.maximum(np.abs(engine), 1e-12))
        lines.append(f"{'':<16}largest relative difference {difference:.1e}")
    return "\n".join(lines)
