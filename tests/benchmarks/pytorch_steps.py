"""PyTorch's training steps: eager, eager with fused optimizers, compiled, and compiled into CUDA graphs.

Compiled are the networks with their losses, and so the gradients of these; a fused optimizer is one kernel already.
All stand on the device that SCRATCHGEN_BENCHMARK_DEVICE names, on a GPU without TF32. Modules are defined in the
engine's order, so that parameters pair up by place; weights are the engine's transposed.

Images are in memory format channels_last, which is the faster one here: with the other, gradients of the two
convolutional workloads took 1.1 to 1.2 times as long, eager and compiled (roughly timed, on one thread).
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from tests.benchmarks.workloads import Contestant, Shared, Workload, quantities, under

DEVICE = os.environ.get("SCRATCHGEN_BENCHMARK_DEVICE", "cpu")
COMPILED = {"torch.compile": "default", "torch.compile, CUDA graphs": "reduce-overhead"}
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """``name`` is "PyTorch eager", "PyTorch eager, fused Adam" or one of ``COMPILED``."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    compiled = partial(torch.compile, mode=COMPILED[name]) if name in COMPILED else lambda function: function
    pixels = _tensor(images)

    def batch() -> Tensor:
        x = pixels.index_select(0, torch.randint(len(pixels), (workload.batch,), device=DEVICE))
        return (torch.rand_like(x) < x).float() if workload.binarize else x

    build = {"vae": _vae, "gan": _gan, "aae": _aae, "rbm": _rbm}[workload.model]
    step, check, _ = build(workload, shared, batch, name != "PyTorch eager" or None, compiled)

    def marked_step() -> None:
        torch.compiler.cudagraph_mark_step_begin()  # what the graphs gave in the last step may be overwritten
        step()

    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    return Contestant(marked_step if COMPILED.get(name) == "reduce-overhead" else step, check, wait)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(DEVICE)


def _mlp(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Dense layers with activations between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return layers


class _ToImages(nn.Module):
    """Vectors (b, side side channels), in the engine's order, as images (b, channels, side, side); a view."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.side, self.side, -1).permute(0, 3, 1, 2)


class _ToVectors(nn.Module):
    """The inverse of ``_ToImages``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _encoder(
    pixels: int, channels: tuple[int, ...], activation: Callable[[], nn.Module], batch_norm: bool = False
) -> tuple[list[nn.Module], int]:
    """The layers of the engine's ``models.images.encoder_layers``, and the size of their result."""
    layers: list[nn.Module] = [_ToImages(math.isqrt(pixels))]
    for number, (i, o) in enumerate(pairwise((1, *channels))):
        layers += _convolution(nn.Conv2d, i, o, activation, batch_norm and number > 0)
    return ([*layers, _ToVectors()], (pixels >> 2 * len(channels)) * channels[-1]) if channels else ([], pixels)


def _decoder(
    inputs: int, pixels: int, channels: tuple[int, ...], activation: Callable[[], nn.Module], batch_norm: bool = False
) -> list[nn.Module]:
    """The layers of the engine's ``models.images.decoder_layers`` and ``decoder_output``."""
    if not channels:
        return [nn.Linear(inputs, pixels)]
    side = math.isqrt(pixels) >> len(channels)
    norm: list[nn.Module] = [nn.BatchNorm2d(channels[0])] if batch_norm else []
    layers = [nn.Linear(inputs, side**2 * channels[0], not batch_norm), _ToImages(side), *norm, activation()]
    for i, o in pairwise(channels):
        layers += _convolution(nn.ConvTranspose2d, i, o, activation, batch_norm)
    return [*layers, nn.ConvTranspose2d(channels[-1], 1, 4, 2, 1), _ToVectors()]


def _convolution(kind: Any, i: int, o: int, activation: Callable[[], nn.Module], batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(o)] if batch_norm else []
    return [kind(i, o, 4, 2, 1, bias=not batch_norm), *norm, activation()]


def _load(model: nn.Module, shared: Shared) -> None:
    model.to(DEVICE, memory_format=torch.channels_last)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), shared.parameters.values(), strict=True):
            # (k, l, i, o) becomes (o, i, k, l), and that of a transposed convolution (k, l, o, i) becomes (i, o, k, l)
            mine.copy_(torch.from_numpy(theirs.transpose(3, 2, 0, 1) if theirs.ndim == 4 else theirs.T))


def _checked(loss: str, value: Tensor, shared: Shared, trained: Sequence[str], *modules: nn.Module) -> dict[str, Any]:
    """The loss and its gradients in the shape of the engine's."""
    gradients = torch.autograd.grad(value, [p for module in modules for p in module.parameters()])
    arrays = [g.cpu().numpy() for g in gradients]
    found = [g.transpose(2, 3, 1, 0) if g.ndim == 4 else g.T for g in arrays]
    return quantities(loss, value.detach().cpu(), dict(zip(under(shared.parameters, *trained), found, strict=True)))


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Within, no gradients of the module's parameters are computed."""
    module.requires_grad_(False)
    yield
    module.requires_grad_(True)


def _vae(workload: Workload, shared: Shared, batch: Any, fused: bool | None, compiled: Any) -> Contestant:
    network, activation = workload.network, ACTIVATIONS[workload.network.activation]
    layers, width = _encoder(network.input_dim, network.encoder_channels, activation)
    body = nn.Sequential(*layers, *_mlp((width, *network.encoder_hidden), activation))
    mu, logvar = (nn.Linear(network.encoder_hidden[-1], network.latent_dim) for _ in range(2))
    sizes = (network.latent_dim, *network.decoder_hidden)
    images = _decoder(sizes[-1], network.input_dim, network.decoder_channels, activation)
    decoder = nn.Sequential(*_mlp(sizes, activation), *images)
    model = nn.ModuleList([body, mu, logvar, decoder])
    _load(model, shared)
    optimizer = torch.optim.Adam(model.parameters(), workload.training.lr, fused=fused)

    @compiled
    def loss_of(x: Tensor, noise: Tensor) -> Tensor:
        h = body(x)
        m, s = mu(h), logvar(h)
        reconstruction = bce(decoder(m + torch.exp(s / 2) * noise), x, reduction="sum")
        return (reconstruction - 0.5 * torch.sum(1 + s - m.square() - s.exp())) / len(x)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(batch(), torch.randn(workload.batch, network.latent_dim, device=DEVICE)).backward()
        optimizer.step()

    def check() -> dict[str, np.ndarray]:
        value = loss_of(_tensor(shared.x), _tensor(shared.noise))
        return _checked("loss", value, shared, ("",), model)

    return Contestant(step, check)


def _gan(workload: Workload, shared: Shared, batch: Any, fused: bool | None, compiled: Any) -> Contestant:
    network, training, packs = workload.network, workload.training, workload.batch // workload.network.pack
    layers: list[nn.Module] = []
    sizes = (network.latent_dim, *network.generator_hidden)
    for inputs, outputs in pairwise(sizes):  # PyTorch's running variance is the unbiased one
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    images = _decoder(sizes[-1], network.input_dim, network.generator_channels, nn.ReLU, batch_norm=True)
    generator = nn.Sequential(*layers, *images, nn.Sigmoid())
    leaky_relu, channels = partial(nn.LeakyReLU, 0.2), network.discriminator_channels
    layers, width = _encoder(network.pack * network.input_dim, channels, leaky_relu, batch_norm=True)
    sizes = (width, *network.discriminator_hidden, 1)
    discriminator = nn.Sequential(*layers, *_mlp(sizes, leaky_relu)[:-1])
    _load(nn.ModuleList([generator, discriminator]), shared)
    averaged = [t for t in deepcopy(generator).state_dict().values() if t.is_floating_point()]
    current = [t for t in generator.state_dict().values() if t.is_floating_point()]
    betas = (training.momentum, 0.999)
    g_optimizer = torch.optim.Adam(generator.parameters(), training.generator_lr, betas, fused=fused)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), training.discriminator_lr, betas, fused=fused)
    labels = torch.tensor([training.real_label] * packs + [0.0] * packs, device=DEVICE)[:, None]
    normalized = any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    generate = compiled(lambda z: generator(z))
    steps = 0

    @compiled
    def d_loss_of(real: Tensor, fake: Tensor) -> Tensor:
        if normalized:  # each batch by its own moments
            on_real, on_fake = discriminator(real.view(packs, -1)), discriminator(fake.view(packs, -1))
            return bce(on_real, labels[:packs]) + bce(on_fake, labels[packs:])
        return 2 * bce(discriminator(torch.cat([real, fake]).view(2 * packs, -1)), labels)  # the sum of two means

    @compiled
    def g_loss_of(fake: Tensor) -> Tensor:
        return nn.functional.softplus(-discriminator(fake.view(packs, -1))).mean()

    def step() -> None:
        nonlocal steps
        fake = generate(torch.randn(workload.batch, network.latent_dim, device=DEVICE))
        d_optimizer.zero_grad()
        d_loss_of(batch(), fake.detach()).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        with _frozen(discriminator):
            g_loss = g_loss_of(fake)
        g_loss.backward()
        g_optimizer.step()
        steps += 1
        torch._foreach_lerp_(averaged, current, 1 - min(training.average, (1 + steps) / (10 + steps)))

    def check() -> dict[str, np.ndarray]:
        fake = generate(_tensor(shared.noise))
        d_loss = d_loss_of(_tensor(shared.x), fake.detach())
        with _frozen(discriminator):
            g_loss = g_loss_of(fake)
        return _checked("d_loss", d_loss, shared, ("discriminator.",), discriminator) | _checked(
            "g_loss", g_loss, shared, ("generator.",), generator
        )

    return Contestant(step, check)


def _aae(workload: Workload, shared: Shared, batch: Any, fused: bool | None, compiled: Any) -> Contestant:
    network, training, b = workload.network, workload.training, workload.batch

    def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
        return nn.Sequential(*_mlp((inputs, *hidden, outputs), nn.ReLU)[:-1])

    encoder = mlp(network.input_dim, network.encoder_hidden, network.latent_dim)
    decoder = mlp(network.latent_dim, network.decoder_hidden, network.input_dim)
    discriminator = mlp(network.latent_dim, network.discriminator_hidden, 1)
    _load(nn.ModuleList([encoder, decoder, discriminator]), shared)
    autoencoder = nn.ModuleList([encoder, decoder])
    r_optimizer = torch.optim.Adam(autoencoder.parameters(), training.reconstruction_lr, fused=fused)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), training.discriminator_lr, (0.5, 0.999), fused=fused)
    e_optimizer = torch.optim.SGD(encoder.parameters(), training.encoder_lr, 0.1, fused=fused)
    labels = torch.tensor([1.0] * b + [0.0] * b, device=DEVICE)[:, None]
    encode = compiled(lambda x: encoder(x))

    @compiled
    def reconstruction_of(x: Tensor) -> Tensor:
        return bce(decoder(encoder(x)), x, reduction="sum") / b

    @compiled
    def d_loss_of(prior: Tensor, codes: Tensor) -> Tensor:
        return 2 * bce(discriminator(torch.cat([prior, codes])), labels)  # the sum of two means

    @compiled
    def e_loss_of(codes: Tensor) -> Tensor:
        return nn.functional.softplus(-discriminator(codes)).mean()

    def step() -> None:
        x = batch()
        r_optimizer.zero_grad()
        reconstruction_of(x).backward()
        r_optimizer.step()
        codes = encode(x)
        d_optimizer.zero_grad()
        d_loss_of(torch.randn(b, network.latent_dim, device=DEVICE), codes.detach()).backward()
        d_optimizer.step()
        e_optimizer.zero_grad()
        with _frozen(discriminator):
            e_loss = e_loss_of(codes)
        e_loss.backward()
        e_optimizer.step()

    def check() -> dict[str, np.ndarray]:
        x, prior = _tensor(shared.x), _tensor(shared.noise)
        reconstruction, codes = reconstruction_of(x), encode(x)
        d_loss = d_loss_of(prior, codes.detach())
        with _frozen(discriminator):
            e_loss = e_loss_of(codes)
        return (
            _checked("reconstruction", reconstruction, shared, ("encoder.", "decoder."), autoencoder)
            | _checked("d_loss", d_loss, shared, ("discriminator.",), discriminator)
            | _checked("e_loss", e_loss, shared, ("encoder.",), encoder)
        )

    return Contestant(step, check)


def _rbm(workload: Workload, shared: Shared, batch: Any, fused: bool | None, compiled: Any) -> Contestant:
    """With the gradient written out, as users do: automatic differentiation would multiply more."""
    training, parameters = workload.training, [_tensor(p).requires_grad_() for p in shared.parameters.values()]
    names, (w, a, b) = list(shared.parameters), parameters
    optimizer = torch.optim.SGD(parameters, training.lr, training.momentum, fused=fused)

    def draw(means: Tensor) -> Tensor:
        return (torch.rand_like(means) < means).float()

    def contrast(v: Tensor, h: Tensor, model_v: Tensor, model_h: Tensor) -> list[Tensor]:
        dw = torch.addmm(model_v.T @ model_h, v.T, h, alpha=-1)
        return [dw / len(v), (model_v - v).mean(0), (model_h - h).mean(0)]

    @compiled
    @torch.no_grad()
    def gradients_of(v: Tensor) -> list[Tensor]:
        h = model_h = torch.sigmoid(torch.addmm(b, v, w))
        for _ in range(training.gibbs_steps):
            model_v = draw(torch.sigmoid(torch.addmm(a, draw(model_h), w.T)))
            model_h = torch.sigmoid(torch.addmm(b, model_v, w))
        return contrast(v, h, model_v, model_h)

    def step() -> None:
        for parameter, gradient in zip(parameters, gradients_of(batch()), strict=True):
            parameter.grad = gradient
        optimizer.step()

    def check() -> dict[str, np.ndarray]:
        v, sample = _tensor(shared.x), _tensor((shared.noise > 0).astype(np.float32))
        with torch.no_grad():
            means = [torch.sigmoid(torch.addmm(b, each, w)) for each in (v, sample)]
            energies = [-(each @ a) - nn.functional.softplus(torch.addmm(b, each, w)).sum(1) for each in (v, sample)]
            gradients = [g.cpu().numpy() for g in contrast(v, means[0], sample, means[1])]
            loss = (energies[0].mean() - energies[1].mean()).cpu()
        return quantities("loss", loss, dict(zip(names, gradients, strict=True)))

    return Contestant(step, check)
