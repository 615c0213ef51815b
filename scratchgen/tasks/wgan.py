"""Training the Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, algorithm 1)."""

from typing import Any

from scratchgen.models.wgan import check_critic, critic_loss, gradient_penalty
from scratchgen.tasks.gan import GANTask
from scratchgen.tensor import Tensor


class WGANTask(GANTask):
    """A Wasserstein GAN in training; its discriminator is the critic f. Parameters as in ``GANTask``.

    TypeError for a critic that is not piecewise linear, or that judges several pictures together.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        check_critic(self.model)

    def update_discriminator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """f maximises f(real) - f(fake), with a penalty where the norm of its gradient is not 1.

        The metric ``wasserstein`` is that difference, an estimate of the distance between data and samples.
        """
        loss = critic_loss(self.model.discriminate(real), self.model.discriminate(fake))
        u = self.random.uniform((len(real), 1), self.model.dtype)
        penalty = gradient_penalty(self.model.discriminator, real, fake, u)
        total = loss + self.settings.penalty * penalty
        self.discriminator_optimizer.zero_grad()
        total.backward()
        self.discriminator_optimizer.step(total)
        norm = self.discriminator_optimizer.gradient_norm()
        return {"wasserstein": -loss, "penalty": penalty, "d_gradient": norm}
