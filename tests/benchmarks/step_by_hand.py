"""A VAE's training step without the engine: the same kernels, one after the other, on arrays that are there already.

What ``VAETask.train_step`` takes beyond it, captured, is the price of automatic differentiation.
"""

from collections.abc import Mapping, Sequence

import numpy as np

import kernels
from scratchgen.models.vae import VAEConfig
from scratchgen.tasks.task import Metrics


class StepByHand:
    """A VAE of one hidden layer each way, relu, Bernoulli pixels and one draw of z, with Adam at the rate ``lr``.

    ``param`` (n,) holds all its parameters. It begins as ``start``, arrays named and ordered as in ``VAE.state_dict``.
    """

    def __init__(self, config: VAEConfig, start: Mapping[str, np.ndarray], batch: int, lr: float) -> None:
        self.lr, self.steps = lr, 0
        self.param = np.concatenate([array.reshape(-1) for array in start.values()])
        self.grad, self.m, self.v = (np.zeros_like(self.param) for _ in range(3))
        shapes = [array.shape for array in start.values()]
        self.parameters, self.gradients = _parts(self.param, shapes), _parts(self.grad, shapes)

        def arrays(count: int, *shape: int) -> list[np.ndarray]:
            return [kernels.active().memory.empty((batch, *shape), self.param.dtype) for _ in range(count)]

        self.in_encoder = arrays(4, *config.encoder_hidden)
        self.of_code = arrays(9, config.latent_dim)
        self.in_decoder = arrays(3, *config.decoder_hidden)
        self.of_pixels = arrays(2, config.input_dim)
        self.of_examples = arrays(3)
        self.terms = np.empty(2, self.param.dtype)
        self.loss = np.empty(1, self.param.dtype)

    def step(self, x: np.ndarray, rng: np.random.Generator) -> Metrics:
        """One training step on a batch x (b, D); the metrics are means over it, in nats."""
        k, b = kernels.active(), len(x)
        w1, b1, w_mu, b_mu, w_var, b_var, w2, b2, w3, b3 = self.parameters
        dw1, db1, dw_mu, db_mu, dw_var, db_var, dw2, db2, dw3, db3 = self.gradients
        h, dh, dh_var, dpre1 = self.in_encoder
        noise, mu, logvar, z, dz, dmu, dlogvar, dmu_kl, dlogvar_kl = self.of_code
        g, dg, dpre2 = self.in_decoder
        logits, dlogits = self.of_pixels
        reconstruction, kl, dout = self.of_examples

        # forward
        k.random.normal(noise, rng.integers(2**63, size=1))  # as ``scratchgen.random`` has it
        k.dense.dense_forward(h, x, w1, b1, "relu")
        k.dense.dense_forward(mu, h, w_mu, b_mu, "identity")
        k.dense.dense_forward(logvar, h, w_var, b_var, "identity")
        k.elementwise.reparameterize(*_flat(z, mu, logvar, noise))
        k.dense.dense_forward(g, z, w2, b2, "relu")
        k.dense.dense_forward(logits, g, w3, b3, "identity")
        k.losses.bce_with_logits(reconstruction, logits, x)
        k.losses.kl_standard_normal(kl, mu, logvar)

        # backward: the decoder
        dout[:] = 1 / b
        k.losses.bce_with_logits_backward(dlogits, dout, logits, x)
        k.reductions.sum_axis(*_over_batch(db3, dlogits))
        k.dense.matmul_tn(dw3, g, dlogits)
        k.dense.matmul_nt(dg, dlogits, w3)
        k.dense.dense_activation_backward(dpre2, db2, dg, g, "relu")
        k.dense.matmul_tn(dw2, z, dpre2)
        k.dense.matmul_nt(dz, dpre2, w2)

        # the code, whose gradient comes from the decoder and from the KL divergence
        k.elementwise.reparameterize_backward(*_flat(dmu, dlogvar, dz, logvar, noise))
        k.losses.kl_standard_normal_backward(dmu_kl, dlogvar_kl, dout, mu, logvar)
        dmu += dmu_kl
        dlogvar += dlogvar_kl

        # the encoder, whose hidden layer feeds two heads
        k.reductions.sum_axis(*_over_batch(db_mu, dmu))
        k.dense.matmul_tn(dw_mu, h, dmu)
        k.dense.matmul_nt(dh, dmu, w_mu)
        k.reductions.sum_axis(*_over_batch(db_var, dlogvar))
        k.dense.matmul_tn(dw_var, h, dlogvar)
        k.dense.matmul_nt(dh_var, dlogvar, w_var)
        dh += dh_var
        k.dense.dense_activation_backward(dpre1, db1, dh, h, "relu")
        k.dense.matmul_tn(dw1, x, dpre1)

        # the update
        for term, mean in ((reconstruction, self.terms[:1]), (kl, self.terms[1:])):
            k.reductions.sum_axis(mean.reshape(1, 1), term.reshape(1, b, 1))
            k.elementwise.scale(mean, mean, 1 / b)
        k.elementwise.add(self.loss, self.terms[:1], self.terms[1:])
        self.steps += 1
        rates = np.array([self.lr / (1 - 0.9**self.steps), 1 / (1 - 0.999**self.steps)], self.param.dtype)
        k.optimizers.adam_step(self.param, self.m, self.v, self.grad, rates, self.loss, 0.9, 0.999, 1e-8)
        return {"neg_elbo": self.loss.item(), "reconstruction": self.terms[0].item(), "kl": self.terms[1].item()}


def _parts(flat: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Views of ``flat`` (n,), of these shapes, one after the other."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


def _over_batch(out: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``out`` (n,) and ``x`` (b, n) as ``sum_axis`` takes them."""
    return out.reshape(1, -1), x.reshape(1, *x.shape)


def _flat(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.reshape(-1) for array in arrays]
