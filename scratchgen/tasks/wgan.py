"""Training the Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, algorithm 1)."""

from typing import Any

from scratchgen.models.wgan import check_critic, critic_loss, gradient_penalty
from scratchgen.tasks.gan import GANTask
from scratchgen.tensor import Tensor


class WGANTask(GANTask):
    """A Wasserstein GAN in training; its discriminator is the critic f. Parameters as in ``GANTask``.

    TypeError for a critic that is not piecewise linear, or that judges several pictures together.
    """

    objectives = ("wasserstein",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        check_critic(self.model)

    def update_discriminator(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """f maximises f(real) - f(fake), with a penalty where the norm of its gradient is not 1.

        The metric ``wasserstein`` is that difference, an estimate of the distance between data and samples.
        """
        model, critic = self.model, self.model.discriminator
        real, fake = model.discriminator_input(real, y), model.discriminator_input(fake, y)
        loss = critic_loss(critic(real), critic(fake))
        u = self.random.uniform((len(real), 1), model.dtype)
        penalty = gradient_penalty(critic, real, fake, u, None if y is None else model.pixels)
        total = loss + self.settings.penalty * penalty
        self.discriminator_optimizer.zero_grad()
        total.backward()
        self.discriminator_optimizer.step(total)
        norm = self.discriminator_optimizer.gradient_norm()
        return {"wasserstein": -loss, "penalty": penalty, "d_gradient": norm}
