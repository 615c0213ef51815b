"""A VAE's training step as a bare sequence of kernels: what is left of the engine's step without the engine.

No tensor, no graph, no allocation: every array is there beforehand. The kernels, the random numbers and the check that
the loss is finite are those of ``VAETask.step``, and so are the resulting parameters, bit for bit. What the engine
takes beyond this is what it costs to write a model and no backward.
"""

import math

import numpy as np

import kernels
from scratchgen.models.vae import VAE
from scratchgen.optim import Adam


class KernelSequence:
    """Trains a VAE of one hidden layer on each side, relu, Bernoulli likelihood, M = 1, beta = 1 (L19)."""

    def __init__(self, model: VAE, lr: float, batch: int) -> None:
        self.optimizer, config = Adam(model, lr), model.config
        named = model.named_parameters()
        places = {"w1": "encoder.layers.0", "wm": "encoder_mu", "wv": "encoder_logvar"}
        places |= {"w2": "decoder.layers.0", "w3": "decoder_out"}
        self.w = {short: named[f"{name}.weight"]._data for short, name in places.items()}
        self.b = {short: named[f"{name}.bias"]._data for short, name in places.items()}
        self.dw = {short: named[f"{name}.weight"]._place.array for short, name in places.items()}
        self.db = {short: named[f"{name}.bias"]._place.array for short, name in places.items()}
        hidden, (pixels, latent) = config.encoder_hidden[0], (config.input_dim, config.latent_dim)

        def arrays(count: int, *shape: int) -> list[np.ndarray]:
            return [kernels.active().memory.empty(shape, np.dtype(np.float32)) for _ in range(count)]

        self.h, self.dh, self.dh_v, self.a = arrays(4, batch, hidden)
        self.g, self.dg, self.da = arrays(3, batch, config.decoder_hidden[0])
        self.mu, self.v, self.z, self.dz, self.dmu, self.dv, self.dmu_kl, self.dv_kl = arrays(8, batch, latent)
        self.logits, self.dlogits, self.dpre = arrays(3, batch, pixels)
        self.reconstruction, self.kl, self.dout = arrays(3, batch)
        self.dout[:] = 1 / batch

    def step(self, x: np.ndarray, rng: np.random.Generator) -> None:
        """One step on a batch x (b, D)."""
        k, w, b, dw, db = kernels.active(), self.w, self.b, self.dw, self.db
        noise = rng.standard_normal(self.z.shape, np.float32)
        # forward
        k.dense.dense_forward(self.h, x, w["w1"], b["w1"], "relu")
        k.dense.dense_forward(self.mu, self.h, w["wm"], b["wm"], "identity")
        k.dense.dense_forward(self.v, self.h, w["wv"], b["wv"], "identity")
        k.elementwise.reparameterize(*map(np.ravel, (self.z, self.mu, self.v, noise)))
        k.dense.dense_forward(self.g, self.z, w["w2"], b["w2"], "relu")
        k.dense.dense_forward(self.logits, self.g, w["w3"], b["w3"], "identity")
        k.losses.bce_with_logits(self.reconstruction, self.logits, x)
        k.losses.kl_standard_normal(self.kl, self.mu, self.v)
        # backward: the decoder
        k.losses.bce_with_logits_backward(self.dlogits, self.dout, self.logits, x)
        k.dense.dense_activation_backward(self.dpre, db["w3"], self.dlogits, self.logits, "identity")
        k.dense.matmul_nt(self.dg, self.dpre, w["w3"])
        k.dense.matmul_tn(dw["w3"], self.g, self.dpre)
        k.dense.dense_activation_backward(self.da, db["w2"], self.dg, self.g, "relu")
        k.dense.matmul_nt(self.dz, self.da, w["w2"])
        k.dense.matmul_tn(dw["w2"], self.z, self.da)
        # the code: through the sample and through the KL divergence
        k.elementwise.reparameterize_backward(*map(np.ravel, (self.dmu, self.dv, self.dz, self.v, noise)))
        k.losses.kl_standard_normal_backward(self.dmu_kl, self.dv_kl, self.dout, self.mu, self.v)
        self.dmu += self.dmu_kl
        self.dv += self.dv_kl
        # the encoder, whose two heads meet in h
        for head, out, dout, dh in (("wv", self.v, self.dv, self.dh_v), ("wm", self.mu, self.dmu, self.dh)):
            k.dense.dense_activation_backward(self.z, db[head], dout, out, "identity")
            k.dense.matmul_nt(dh, self.z, w[head])
            k.dense.matmul_tn(dw[head], self.h, self.z)
        self.dh += self.dh_v
        k.dense.dense_activation_backward(self.a, db["w1"], self.dh, self.h, "relu")
        k.dense.matmul_tn(dw["w1"], x, self.a)
        # update
        if not (math.isfinite(self.reconstruction.sum()) and math.isfinite(self.kl.sum())):
            raise FloatingPointError("the loss is not finite")
        adam, flat = self.optimizer, self.optimizer.flat
        adam.steps += 1
        adam._update(flat.data, flat.grad)
