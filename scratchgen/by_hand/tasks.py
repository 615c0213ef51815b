"""Training by hand: the tasks of ``scratchgen.tasks``, each ``train_step`` with the gradients derived in this folder.

Parameters, optimizers, random streams and metrics are those of the engine, so that two tasks which begin with the same
parameters and the same seed draw the same numbers and follow the same curve, up to rounding. What is the engine's own
here is bookkeeping: no tensor that these tasks make has a graph.
"""

from typing import Any

import numpy as np

from scratchgen.by_hand import aae, gan
from scratchgen.by_hand.layers import ACTIVATIONS, Arrays
from scratchgen.by_hand.vae import vae_gradients
from scratchgen.errors import require_one_of
from scratchgen.nn import Module
from scratchgen.optim import Optimizer
from scratchgen.random import stream
from scratchgen.tasks.aae import AAETask
from scratchgen.tasks.gan import GANTask
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tasks.vae import VAETask
from scratchgen.tensor import Tensor


def update(optimizer: Optimizer, model: Module, gradients: Arrays, loss: float) -> None:
    """A step of the optimizer with these gradients, unless the loss is not finite. ValueError if one does not fit."""
    optimizer.zero_grad()
    parameters = model.named_parameters()
    for name, gradient in gradients.items():
        parameters[name].grad = gradient
    optimizer.step(Tensor(loss, dtype=np.float64))


def metrics_of(**numbers: float) -> dict[str, Tensor]:
    """Metrics as a ``train_step`` returns them."""
    return {name: Tensor(number, dtype=np.float64) for name, number in numbers.items()}


def refuse_labels(conditional: bool) -> None:
    """ValueError for a conditional model, whose gradients are not derived here."""
    if conditional:
        raise ValueError("by hand no network of a VAE or GAN takes labels: leave conditional out")


class ByHandVAETask(VAETask):
    """A VAE trained with ``vae_gradients``. ValueError for what they do not cover: L_K as the objective, a sampled KL
    term, labels, some activations.

    Parameters as in ``VAETask``.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        refuse_labels(self.model.config.conditional)
        require_one_of("activation", self.model.config.activation, ACTIVATIONS)
        require_one_of("by hand the objective", self.settings.objective, ("elbo",))
        if self.settings.monte_carlo_kl:
            raise ValueError("by hand the KL term is taken in closed form, not sampled: leave monte_carlo_kl out")

    def train_step(self, x: Tensor, labels: Any = None) -> dict[str, Tensor]:
        if self.settings.binarize == "dynamic":
            x = self.random.bernoulli(x)
        noise = self.random.normal((self.settings.samples, len(x), self.model.config.latent_dim), x.dtype)
        state, beta = self.model.state_dict(), self.beta().item()
        reconstruction, kl, gradients = vae_gradients(state, self.model.config, x.data, noise.data, beta)
        update(self.optimizer, self.model, gradients, reconstruction + beta * kl)
        return metrics_of(neg_elbo=reconstruction + kl, reconstruction=reconstruction, kl=kl)


class ByHandGANTask(GANTask):
    """A GAN trained with ``gan.discriminator_gradients`` and ``generator_gradients``.

    Parameters as in ``GANTask``. ValueError for a Wasserstein GAN or a conditional one.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        refuse_labels(self.model.config.conditional)

    def train_step(self, x: Tensor, labels: Any = None, train_generator: bool = True) -> dict[str, Tensor]:
        """G's step sends the noise through G once more, where the engine has kept the graph."""
        model, config = self.model, self.model.config
        z = model.draw_noise(len(x), self.random).data
        fake, averages = gan.generate(model.state_dict(), config, z)
        write(model, averages)

        masks = [gan.draw_masks(config, len(x), self.random, model.dtype) for _ in range(2)]
        label = self.settings.real_label
        found = gan.discriminator_gradients(model.state_dict(), config, x.data, fake, label, (masks[0], masks[1]))
        d_loss = found.loss_real + found.loss_fake
        write(model, found.averages)
        update(self.discriminator_optimizer, model, found.gradients, d_loss)
        self.limit_norms()
        metrics = metrics_of(d_loss=d_loss, d_real=found.d_real, d_fake=found.d_fake, d_gradient=norm(found.gradients))
        if not train_generator:
            return metrics

        mask, objective = gan.draw_masks(config, len(x), self.random, model.dtype), self.settings.objective
        g_loss, gradients, averages = gan.generator_gradients(model.state_dict(), config, z, objective, mask)
        write(model, averages)
        update(self.generator_optimizer, model, gradients, g_loss)
        self.average.step()
        return metrics | metrics_of(g_loss=g_loss, g_gradient=norm(gradients))


def write(model: Module, averages: Arrays) -> None:
    """Write batch normalisation's moving averages, by name, into the model."""
    tensors = model.named_tensors()
    for name, average in averages.items():
        tensors[name].write(average)


def norm(gradients: Arrays) -> float:
    """The Euclidean norm of all gradients together."""
    return float(np.sqrt(sum(np.square(gradient, dtype=np.float64).sum() for gradient in gradients.values())))


class ByHandAAETask(AAETask):
    """An adversarial autoencoder trained with the gradients of ``by_hand.aae``.

    Parameters as in ``AAETask``. ValueError for batch normalisation, hidden noise, cluster heads, or consistency.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        config = self.model.config
        if config.batch_norm or config.hidden_noise or config.head_distance or self.settings.consistency:
            raise ValueError(
                "by hand there are no batch_norm, hidden_noise, head_distance and consistency: leave them out"
            )

    def train_step(self, x: Tensor, labels: np.ndarray) -> dict[str, Tensor]:
        """The encoder computes its codes anew in update 3, where the engine has kept the graph."""
        seen, noise = self._seen_by_encoder(x)
        found = aae.reconstruction_gradients(*self._model(), x.data, seen, labels, noise)
        metrics = self._by_hand("autoencoder", "reconstruction", *found)

        seen, noise = self._seen_by_encoder(x)
        prior = self.draw_prior(labels).data
        classes = self.draw_classes(len(x)).data.argmax(axis=1) if self.model.config.labels_for == "encoder" else None
        found = aae.discriminator_gradients(*self._model(), seen, labels, noise, prior, classes)
        metrics |= self._by_hand("discriminator", "d_loss", *found)
        found = aae.encoder_gradients(*self._model(), seen, labels, noise)
        metrics |= self._by_hand("encoder", "e_loss", *found)

        if self.classifies:
            known, known_labels = self.draw_labelled(len(x))
            seen, noise = self._seen_by_encoder(known)
            found = aae.classification_gradients(*self._model(), seen, known_labels.data, noise)
            metrics |= self._by_hand("classifier", "c_loss", *found)
        return metrics

    def _model(self) -> tuple[Arrays, Any]:
        return self.model.state_dict(), self.model.config

    def _seen_by_encoder(self, x: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Images (b, D) with the noise of training, and the noise of the posterior."""
        seen = self.encoder_input(x)
        noise = self.model.draw_noise(len(x), self.random)
        return seen.data, None if noise is None else noise.data

    def _by_hand(self, optimizer: str, metric: str, loss: float, gradients: Arrays) -> dict[str, Tensor]:
        update(self.optimizers[optimizer], self.model, gradients, loss)
        return metrics_of(**{metric: loss})


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
    shuffle, tasks, histories = stream(seed, "shuffle"), (task, by_hand_task), (list[Metrics](), list[Metrics]())
    for each in tasks:
        each.random.generator = stream(seed, "noise")
    for _ in range(steps):
        chosen = shuffle.integers(len(images), size=batch_size)
        for each, history in zip(tasks, histories, strict=True):
            metrics = each.train_step(Tensor(images[chosen]), labels[chosen], **each.step_options())
            history.append({name: metric.item() for name, metric in metrics.items()})
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
