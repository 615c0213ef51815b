"""What is timed: the models, their shared parameters and inputs, and the losses and gradients that all must agree on.

A contestant is checked at these parameters, on one fixed batch with fixed noise, and timed on batches of its own choice
with noise of its own.

Gradients jump where an input of relu or leaky relu changes sign. A batch has a million such inputs in a convolutional
network, so many that float32 often rounds one of them across 0. So its fixed batch has only a few images, repeated; and
batch normalisation, which would put 0 amid these inputs, has a beta of 3 or -3. Neither changes the time of a step.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scratchgen import ops
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import GAN, GANConfig, discriminator_loss, generator_loss
from scratchgen.models.rbm import RBM
from scratchgen.models.vae import VAE
from scratchgen.random import RandomStream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.aae import AAETraining
from scratchgen.tensor import Tensor

MODELS: dict[str, Callable[..., Any]] = {"vae": VAE, "gan": GAN, "aae": AAE, "rbm": RBM}
FEW = 4  # images of a convolutional workload's fixed batch
RTOL = 1e-4  # of the largest entry: what float32 may lose, and far less than a mistake changes


@dataclass(frozen=True)
class Workload:
    """A training step: a model of ``MODELS``, its two configurations, the images of a batch."""

    title: str
    model: str
    network: Any
    training: Any
    batch: int

    @property
    def binarize(self) -> bool:
        """Whether every batch is binarised anew."""
        return getattr(self.training, "binarize", "none") == "dynamic"


_example, _iwae = (RECIPES["vae"].configs[name] for name in ("pytorch-example", "iwae"))
_mlp = RECIPES["gan"].configs["mlp"]
_dcgan = GANConfig(  # larger than the configuration dcgan
    latent_dim=100,
    generator_hidden=(),
    generator_channels=(128, 64),
    discriminator_hidden=(),
    discriminator_channels=(64, 128),
    pack=1,
    initializer="normal",
    discriminator_initializer="normal",
)
_conv, _wide = RECIPES["vae"].configs["conv"], (1000, 1000)
# Every schedule is constant, for a rival would spend nothing on another one.
WORKLOADS = {
    "vae-400": Workload("VAE 784-400-20, batch 100", "vae", _example.network, _example.training, 100),
    "vae-400-b512": Workload("VAE 784-400-20, batch 512", "vae", _example.network, _example.training, 512),
    "vae-iwae": Workload(
        "VAE 784-200-200-50, binarised, batch 100",
        "vae",
        _iwae.network,
        replace(_iwae.training, lr=1e-3, schedule="constant"),
        100,
    ),
    "gan": Workload(
        "GAN 64-512-1024-784, pairs, batch 128", "gan", _mlp.network, replace(_mlp.training, schedule="constant"), 128
    ),
    "aae": Workload(
        "AAE 784-1000-1000-8, batch 100",
        "aae",
        AAEConfig(latent_dim=8, encoder_hidden=_wide, decoder_hidden=_wide, discriminator_hidden=_wide),
        AAETraining(schedule="constant"),
        100,
    ),
    "rbm": Workload(
        "RBM 784-500, CD-1, binarised, batch 100",
        "rbm",
        RECIPES["rbm"].configs["cd1"].network,
        replace(RECIPES["rbm"].configs["cd1"].training, schedule="constant"),
        100,
    ),
    "vae-conv": Workload(
        "VAE, convolutions 32-64, binarised, batch 100",
        "vae",
        _conv.network,
        replace(_iwae.training, lr=1e-3, schedule="constant"),
        100,
    ),
    "dcgan": Workload(
        "DCGAN, convolutions 64-128, batch 64", "gan", _dcgan, replace(_mlp.training, schedule="constant"), 64
    ),
}


class Shared(NamedTuple):
    """What all contestants begin from: parameters in the engine's order, a batch x (b, D), noise (b, J) from N(0, I).

    The noise is that of a VAE's codes, a GAN's z, or an AAE's draws of the prior. In an RBM J is D, and the model's
    sample is 1 where it is above 0, else 0.
    """

    parameters: dict[str, np.ndarray]
    x: np.ndarray
    noise: np.ndarray

    @classmethod
    def draw(cls, workload: Workload, images: np.ndarray) -> "Shared":
        """Fresh parameters, the first images, and noise."""
        rng = np.random.default_rng(0)
        named = MODELS[workload.model](workload.network, rng).named_parameters()
        parameters = {name: p.data.copy() for name, p in named.items()}
        different = workload.batch
        if workload.model == "rbm":  # else the free energies of data and samples would nearly cancel
            parameters["visible_bias"][:] = rng.standard_normal(workload.network.input_dim)
        if any(p.ndim == 4 for p in parameters.values()):
            different = FEW
            for beta in (p for name, p in parameters.items() if name.endswith(".beta")):
                beta[:] = np.where(np.arange(len(beta)) % 2, -3, 3)
        x = images[:different]
        width = workload.network.input_dim if workload.model == "rbm" else workload.network.latent_dim
        noise = rng.standard_normal((different, width), np.float32)
        x = RandomStream(rng).bernoulli(Tensor(x)).data if workload.binarize else x
        return cls(parameters, *(np.resize(array, (workload.batch, array.shape[1])) for array in (x, noise)))

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        np.savez(path, x=self.x, noise=self.noise, **{f"parameters/{name}": p for name, p in self.parameters.items()})

    @classmethod
    def load(cls, path: Path) -> "Shared":
        """What ``save`` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        x, noise = arrays.pop("x"), arrays.pop("noise")
        return cls({name.removeprefix("parameters/"): p for name, p in arrays.items()}, x, noise)


class Contestant(NamedTuple):
    """``step`` trains once; ``check`` gives the losses and gradients; ``wait`` returns when all steps are done."""

    step: Callable[[], Any]
    check: Callable[[], dict[str, np.ndarray]]
    wait: Callable[[], Any] = lambda: None


def under(names: Mapping[str, Any], *prefixes: str) -> list[str]:
    """The names that begin with a prefix, in their order."""
    return [name for name in names if name.startswith(prefixes)]


def quantities(loss: str, value: Any, gradients: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The loss and its gradients under names that all contestants use."""
    return {loss: np.asarray(value)} | {f"{loss}, d {name}": np.asarray(g) for name, g in gradients.items()}


# ---- the engine's losses and gradients ----


def engine_model(workload: Workload, shared: Shared, dtype: Any) -> Any:
    """The engine's model with the shared parameters."""
    model = MODELS[workload.model](workload.network, np.random.default_rng(0), dtype)
    model.load_state_dict(model.state_dict() | {name: p.astype(dtype) for name, p in shared.parameters.items()})
    return model


def engine_quantities(workload: Workload, shared: Shared, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Every loss of a step and its gradients, all at the shared parameters; in float64 they are the reference."""
    model, found = engine_model(workload, shared, dtype), {}
    x, noise = Tensor(shared.x, dtype=dtype), Tensor(shared.noise, dtype=dtype)
    named = model.named_parameters()
    for name, loss, trained in _LOSSES[workload.model](workload, model, x, noise):
        for p in named.values():
            p.grad = None
        loss.backward()
        found |= quantities(name, loss.item(), {p: np.array(named[p].grad) for p in under(named, *trained)})
    return found


Losses = Iterator[tuple[str, Tensor, tuple[str, ...]]]  # a loss's name, the loss, what it trains


def _vae(workload: Workload, model: VAE, x: Tensor, noise: Tensor) -> Losses:
    reconstruction, kl = model.negative_elbo(x, Tensor(noise.data[None], dtype=model.dtype))
    yield "loss", (reconstruction + kl).mean(), ("",)


def _gan(workload: Workload, model: GAN, x: Tensor, noise: Tensor) -> Losses:
    fake = model.generate(noise)
    real_loss = discriminator_loss(model.discriminate(x), workload.training.real_label)
    yield "d_loss", real_loss + discriminator_loss(model.discriminate(fake.detach()), 0.0), ("discriminator.",)
    yield "g_loss", generator_loss(model.discriminate(fake), workload.training.objective), ("generator.",)


def _aae(workload: Workload, model: AAE, x: Tensor, noise: Tensor) -> Losses:
    logits = model.decode(model.encode(x)[0])
    yield "reconstruction", ops.bce_with_logits(logits, x.data).mean(), ("encoder.", "decoder.")
    codes = model.encode(x)[0]
    prior_loss = discriminator_loss(model.discriminator(noise), 1.0)
    yield "d_loss", prior_loss + discriminator_loss(model.discriminator(codes.detach()), 0.0), ("discriminator.",)
    yield "e_loss", generator_loss(model.discriminator(codes), "non-saturating"), ("encoder.",)


def _rbm(workload: Workload, model: RBM, x: Tensor, noise: Tensor) -> Losses:
    sample = Tensor((noise.data > 0).astype(model.dtype))
    yield "loss", model.free_energy(x).mean() - model.free_energy(sample).mean(), ("",)


_LOSSES: dict[str, Callable[..., Losses]] = {"vae": _vae, "gan": _gan, "aae": _aae, "rbm": _rbm}


class Disagreement(Exception):
    """A contestant computes something else."""


def require_agreement(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Raise Disagreement, naming the first quantity that is missing, or off by more than ``RTOL`` of its largest."""
    for name, right in expected.items():
        if name not in found or found[name].shape != right.shape:
            raise Disagreement(f"{name} is missing, or of another shape")
        error, largest = np.abs(found[name] - right).max(), np.abs(right).max()
        if not error <= RTOL * largest:
            raise Disagreement(f"{name} is off by {error:.2g}, its largest entry being {largest:.2g}")
