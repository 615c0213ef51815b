"""Training by hand: the tasks of ``models`` with every backward replaced by the derivations of this folder.

Parameters, optimizers, random streams, metrics and checkpoints are those of the engine, so that two tasks which begin
with the same parameters and the same seed draw the same numbers and follow the same curve, up to rounding. What is the
engine's own here is bookkeeping: no tensor that these tasks make has a graph.
"""

from functools import partial
from typing import Any

import numpy as np

import kernels
from scratchgen.by_hand import aae, gan
from scratchgen.by_hand.layers import ACTIVATIONS, Arrays
from scratchgen.by_hand.vae import vae_gradients
from scratchgen.errors import require_one_of
from scratchgen.models.aae import AAETask
from scratchgen.models.gan import GANTask
from scratchgen.models.vae import VAE, VAETask, VAETraining
from scratchgen.nn import BatchNormDense, Module
from scratchgen.noise import Masks
from scratchgen.optim import Optimizer
from scratchgen.tensor import Tensor
from scratchgen.training import Metrics, Reading, Task, stream


def receive(model: Module, gradients: Arrays) -> None:
    """Hand each parameter its gradient, as a backward would. ValueError if one is of another shape or float type."""
    parameters = model.named_parameters()
    for name, gradient in gradients.items():
        p = parameters[name]
        if (gradient.shape, gradient.dtype) != (p.shape, p.dtype):
            raise ValueError(f"{name} is {p.shape} {p.dtype}, its gradient {gradient.shape} {gradient.dtype}")
        p._receive(gradient)


def on_device(*numbers: float) -> Any:
    """Numbers as an array (k,) where kernels compute."""
    return kernels.active().memory.to_device(np.array(numbers))


class ByHandVAETask(VAETask):
    """A VAE trained with ``vae_gradients``. ValueError for what they do not cover: a sampled KL term, some activations.

    Parameters as in ``VAETask``.
    """

    replays = False  # what NumPy computes is in no recording

    def __init__(self, model: VAE, training: VAETraining, steps_per_epoch: int, epochs: int) -> None:
        require_one_of("activation", model.config.activation, ACTIVATIONS)
        if training.monte_carlo_kl:
            raise ValueError("by hand the KL term is taken in closed form, not sampled: leave monte_carlo_kl out")
        super().__init__(model, training, steps_per_epoch, epochs)

    def backward(self, x: Tensor, noise: Tensor, beta: Tensor) -> Any:
        state, config = self.model.state_dict(), self.model.config
        reconstruction, kl, gradients = vae_gradients(state, config, x.data, noise.data, beta.item())
        receive(self.model, gradients)
        return on_device(reconstruction, kl)


class ByHandGANTask(GANTask):
    """A GAN trained with ``gan.discriminator_gradients`` and ``generator_gradients``. Parameters as in ``GANTask``."""

    replays = False

    def play(self, images: Any, turn: Any, rates: Any, both: bool) -> tuple[Any, ...]:
        """G's step sends the noise through G once more, where the engine has kept the graph."""
        config, images, z = self.model.config, np.asarray(images), self.model.draw_noise(len(images), turn).data
        samples, averages = gan.generate(self.model.state_dict(), config, z)
        for number, layer in enumerate(self.model.generator.layers):
            if isinstance(layer, BatchNormDense):
                layer.mean.write(averages[f"generator.layers.{number}.mean"])
                layer.variance.write(averages[f"generator.layers.{number}.variance"])
        next_masks = partial(gan.draw_masks, config, len(images), Masks(turn), self.model.dtype)  # of a pass through D
        masks, label = (next_masks(), next_masks()), self.training.real_label
        found = gan.discriminator_gradients(self.model.state_dict(), config, images, samples, label, masks)
        losses = [found.loss_real, found.loss_fake, found.d_real, found.d_fake]
        of_d = self._update(self.discriminator_optimizer, losses, found.gradients, rates[0])
        if not both:
            return (of_d,)
        state, objective = self.model.state_dict(), self.training.objective
        loss, gradients = gan.generator_gradients(state, config, z, objective, next_masks())
        of_g = self._update(self.generator_optimizer, [loss], gradients, rates[1])
        self.average.step(rates[2][:1])
        return of_d, of_g

    def _update(self, optimizer: Optimizer, losses: list[float], gradients: Arrays, rates: Any) -> Any:
        optimizer.zero_grad()
        receive(self.model, gradients)
        squares = sum(float(np.square(gradient, dtype=np.float64).sum()) for gradient in gradients.values())
        found = on_device(*losses, squares)
        optimizer.update(rates, found)
        return found


class ByHandAAETask(AAETask):
    """An adversarial autoencoder trained with the gradients of ``by_hand.aae``. Parameters as in ``AAETask``.

    ``labels`` are those of this step.
    """

    replays = False
    labels: np.ndarray

    def step(self, images: Any, labels: np.ndarray, rng: np.random.Generator) -> Reading:
        self.labels = labels
        return super().step(images, labels, rng)

    def events(
        self, images: Any, turn: Any, rates: Any, prior: Any, y: Any, classes: Any, known: Any, labels_known: Any
    ) -> tuple[Any, ...]:
        """The encoder computes its codes anew in event 3, where the engine has kept the graph."""
        model, labels, drawn = self.model, self.labels, None if classes is None else np.asarray(classes).argmax(axis=1)
        x, noise = self._read_by_encoder(images, turn[:1])
        found = aae.reconstruction_gradients(model.state_dict(), model.config, np.asarray(images), x, labels, noise)
        of_reconstruction = self._update("reconstruction", *found, rates[0])
        x, noise = self._read_by_encoder(images, turn[1:2])
        arguments = x, labels, noise
        found = aae.discriminator_gradients(model.state_dict(), model.config, *arguments, np.asarray(prior), drawn)
        of_discriminators = self._update("discriminator", *found, rates[1])
        found = aae.encoder_gradients(model.state_dict(), model.config, *arguments)
        losses = of_reconstruction, of_discriminators, self._update("encoder", *found, rates[2])
        return losses if known is None else (*losses, self.classify(known, labels_known, turn[2:], rates[3]))

    def classify(self, known: Any, labels_known: Any, turn: Any, rates: Any) -> Any:
        (x, noise), labels = self._read_by_encoder(known, turn), np.asarray(labels_known)
        found = aae.classification_gradients(self.model.state_dict(), self.model.config, x, labels, noise)
        return self._update("classification", *found, rates)

    def _read_by_encoder(self, images: Any, turn: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Images (b, D) with the noise of training, and the noise of the posterior."""
        noise = self.model.draw_noise(len(images), turn)
        return self.encoder_input(images, turn).data, None if noise is None else noise.data

    def _update(self, event: str, loss: float, gradients: Arrays, rates: Any) -> Any:
        self.optimizers[event].zero_grad()
        receive(self.model, gradients)
        found = on_device(loss)
        self.optimizers[event].update(rates, found)
        return found


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
            history.append(each.step(images[chosen], labels[chosen], noise)())
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
