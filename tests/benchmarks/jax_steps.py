"""JAX's training steps: each one a jitted function of a state, whose buffers are donated, and of the images.

Parameters are a dict under the engine's names; a layer is the part of a name that its parameters share. Between layers
images are vectors, (b, height width channels).
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tests.benchmarks.workloads import Contestant, Shared, Workload, quantities, under

Parameters = dict[str, Array]
State = dict[str, Any]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


def contestant(name: str, workload: Workload, shared: Shared, images: np.ndarray) -> Contestant:
    """The whole step is compiled: random numbers, batch, losses, gradients, updates."""
    init, step_of, losses = {"vae": _vae, "gan": _gan, "aae": _aae, "rbm": _rbm}[workload.model](
        workload, shared.parameters
    )
    run, pixels = jax.jit(step_of, donate_argnums=0), jnp.asarray(images)
    state = {"key": jax.random.key(0), **init({name: jnp.array(p) for name, p in shared.parameters.items()})}

    def step() -> None:
        nonlocal state
        state = run(state, pixels)

    def check() -> dict[str, np.ndarray]:
        parameters = {name: jnp.array(p) for name, p in shared.parameters.items()}
        found = jax.jit(losses)(parameters, jnp.asarray(shared.x), jnp.asarray(shared.noise))
        return {k: v for loss, (value, grads) in found.items() for k, v in quantities(loss, value, grads).items()}

    return Contestant(step, check, lambda: jax.block_until_ready(state))


# ---- layers, losses, optimizers ----


def _layers(names: Mapping[str, Any], *prefixes: str) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in under(names, *prefixes)))


def _part(parameters: Parameters, *prefixes: str) -> Parameters:
    return {name: parameters[name] for name in under(parameters, *prefixes)}


def _linear(p: Parameters, layer: str, x: Array) -> Array:
    """A dense layer, or a convolution with stride 2 and padding 1; with its bias if it has one."""
    w = p[f"{layer}.weight"]
    if w.ndim == 2:
        out = x @ w
    elif layer.startswith(("generator", "decoder")):  # transposed: zeros between the pixels, windows turned around
        out = _convolve(x, w[::-1, ::-1].swapaxes(2, 3), padding=len(w) - 2, lhs_dilation=(2, 2))
    else:
        out = _convolve(x, w, padding=1, window_strides=(2, 2))
    out = out + p[f"{layer}.bias"] if f"{layer}.bias" in p else out
    return out.reshape(len(x), -1)


def _convolve(x: Array, w: Array, padding: int, **window: Any) -> Array:
    """Images (b, p, q, o) of vectors x (b, h w i), the images being square, and weights w (k, l, i, o)."""
    side, pads = math.isqrt(x.shape[1] // w.shape[2]), [(padding, padding)] * 2
    steps = {"window_strides": (1, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(x.reshape(len(x), side, side, -1), w, padding=pads, **steps | window)


def _leaky_relu(x: Array) -> Array:
    """With the slope 0.2 at 0, where the blank parts of images lie; ``jax.nn.leaky_relu`` has the slope 1 there."""
    return jnp.where(x > 0, x, 0.2 * x)


Moments = dict[str, tuple[Array, Array]]  # mean and variance of the batch, by batch normalisation


def _batch_norm(p: Parameters, layer: str, x: Array, moments: Moments) -> Array:
    """Of each feature, or of each channel of images."""
    gamma, beta = p[f"{layer}.gamma"], p[f"{layer}.beta"]
    rows = x.reshape(-1, len(gamma))
    mean, variance = moments[layer] = rows.mean(axis=0), rows.var(axis=0)
    return ((rows - mean) * (gamma * jax.lax.rsqrt(variance + 1e-5)) + beta).reshape(x.shape)


def _network(
    p: Parameters, layers: list[str], activation: Callable[[Array], Array], x: Array, moments: Moments | None = None
) -> Array:
    """Layers with activations between them, which come after batch normalisation. Its moments go into ``moments``."""
    for layer, following in pairwise([*layers, ""]):
        if f"{layer}.gamma" in p:
            x = _batch_norm(p, layer, x, {} if moments is None else moments)
        else:
            x = _linear(p, layer, x)
        if following and f"{following}.gamma" not in p:
            x = activation(x)
    return x


def _bce(logits: Array, targets: Array | float) -> Array:
    return jax.nn.softplus(logits) - targets * logits


def _adam_state(parameters: Parameters) -> State:
    zeros = {name: (jnp.zeros_like(p), jnp.zeros_like(p)) for name, p in parameters.items()}
    return {"t": jnp.zeros(()), "m": {n: z[0] for n, z in zeros.items()}, "v": {n: z[1] for n, z in zeros.items()}}


def _adam(p: Parameters, g: Parameters, state: State, lr: float, beta1: float) -> tuple[Parameters, State]:
    t = state["t"] + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state["m"], g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state["v"], g)
    rate, unbias = lr / (1 - beta1**t), 1 / (1 - 0.999**t)
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * unbias) + 1e-8), p, m, v)
    return p, {"t": t, "m": m, "v": v}


def _batch(workload: Workload, key: Array, images: Array) -> Array:
    key, pixels = jax.random.split(key)
    x = jnp.take(images, jax.random.randint(key, (workload.batch,), 0, len(images)), axis=0)
    return jax.random.bernoulli(pixels, x).astype(x.dtype) if workload.binarize else x


# ---- the models: what the state holds, the step, and all losses with gradients ----


def _vae(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    network, activation = workload.network, ACTIVATIONS[workload.network.activation]
    body, decoder = _layers(names, "encoder."), _layers(names, "decoder")

    def loss_of(p: Parameters, x: Array, noise: Array) -> Array:
        h = x
        for layer in body:
            h = activation(_linear(p, layer, h))
        mu, logvar = _linear(p, "encoder_mu", h), _linear(p, "encoder_logvar", h)
        logits = _network(p, decoder, activation, mu + jnp.exp(logvar / 2) * noise)
        return (_bce(logits, x).sum() - 0.5 * (1 + logvar - mu**2 - jnp.exp(logvar)).sum()) / len(x)

    def step(state: State, images: Array) -> State:
        key, chosen, drawn = jax.random.split(state["key"], 3)
        noise = jax.random.normal(drawn, (workload.batch, network.latent_dim))
        g = jax.grad(loss_of)(state["p"], _batch(workload, chosen, images), noise)
        p, adam = _adam(state["p"], g, state["adam"], workload.training.lr, 0.9)
        return {"key": key, "p": p, "adam": adam}

    def losses(p: Parameters, x: Array, noise: Array) -> dict[str, Any]:
        return {"loss": jax.value_and_grad(loss_of)(p, x, noise)}

    return lambda p: {"p": p, "adam": _adam_state(p)}, step, losses


def _gan(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    network, training, packs = workload.network, workload.training, workload.batch // workload.network.pack
    g_layers, d_layers = _layers(names, "generator."), _layers(names, "discriminator.")
    normalized = [layer for layer in (*g_layers, *d_layers) if f"{layer}.gamma" in names]

    def generate(p: Parameters, z: Array) -> tuple[Array, Moments]:
        """Samples, and the moments of the batch normalisations."""
        moments: Moments = {}
        return jax.nn.sigmoid(_network(p, g_layers, jax.nn.relu, z, moments)), moments

    def discriminate(d: Parameters, x: Array) -> tuple[Array, Moments]:
        moments: Moments = {}
        x = x.reshape(-1, network.pack * network.input_dim)
        return _network(d, d_layers, _leaky_relu, x, moments), moments

    def d_loss_of(d: Parameters, real: Array, fake: Array) -> tuple[Array, list[Moments]]:
        if set(normalized) & set(d_layers):  # each batch by its own moments
            (on_real, *first), (on_fake, *second) = discriminate(d, real), discriminate(d, fake)
        else:
            logits, *first = discriminate(d, jnp.concatenate([real, fake]))
            (on_real, on_fake), second = (logits[:packs], logits[packs:]), []
        return _bce(on_real, training.real_label).mean() + _bce(on_fake, 0.0).mean(), first + second

    def g_loss_of(fake: Array, d: Parameters) -> tuple[Array, Moments]:
        logits, moments = discriminate(d, fake)
        return jax.nn.softplus(-logits).mean(), moments

    def init(p: Parameters) -> State:
        g, d = _part(p, "generator."), _part(p, "discriminator.")
        sizes = {layer: p[f"{layer}.gamma"].shape for layer in normalized}
        running = {layer: (jnp.zeros(size), jnp.ones(size)) for layer, size in sizes.items()}
        averaged = jax.tree.map(jnp.copy, (g, _part(running, "generator.")))
        return {"g": g, "d": d, "g_adam": _adam_state(g), "d_adam": _adam_state(d), "running": running, "avg": averaged}

    def step(state: State, images: Array) -> State:
        key, chosen, drawn = jax.random.split(state["key"], 3)
        z = jax.random.normal(drawn, (workload.batch, network.latent_dim))
        fake, back, moments = jax.vjp(lambda g: generate(g, z), state["g"], has_aux=True)
        d_gradient, on_both = jax.grad(d_loss_of, has_aux=True)(state["d"], _batch(workload, chosen, images), fake)
        d, d_adam = _adam(state["d"], d_gradient, state["d_adam"], training.discriminator_lr, training.momentum)
        gradient, on_fake = jax.grad(g_loss_of, has_aux=True)(fake, d)
        g, g_adam = _adam(state["g"], back(gradient)[0], state["g_adam"], training.generator_lr, training.momentum)
        running = dict(state["running"])
        for layer, now in (item for passed in (moments, *on_both, on_fake) for item in passed.items()):
            running[layer] = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, running[layer], now)
        n = g_adam["t"]
        decay = jnp.minimum(training.average, (1 + n) / (10 + n))
        current = g, _part(running, "generator.")
        averaged = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state["avg"], current)
        return {"key": key, "g": g, "d": d, "g_adam": g_adam, "d_adam": d_adam, "running": running, "avg": averaged}

    def losses(p: Parameters, x: Array, noise: Array) -> dict[str, Any]:
        g, d = _part(p, "generator."), _part(p, "discriminator.")
        fake, back, _ = jax.vjp(lambda g: generate(g, noise), g, has_aux=True)
        (d_loss, _), d_gradient = jax.value_and_grad(d_loss_of, has_aux=True)(d, x, fake)
        (g_loss, _), gradient = jax.value_and_grad(g_loss_of, has_aux=True)(fake, d)
        return {"d_loss": (d_loss, d_gradient), "g_loss": (g_loss, back(gradient)[0])}

    return init, step, losses


def _aae(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    network, training, b = workload.network, workload.training, workload.batch
    encoder, decoder, d_layers = (_layers(names, part) for part in ("encoder.", "decoder.", "discriminator."))

    def encode(e: Parameters, x: Array) -> Array:
        return _network(e, encoder, jax.nn.relu, x)

    def reconstruction_of(p: Parameters, x: Array) -> Array:
        return _bce(_network(p, decoder, jax.nn.relu, encode(p, x)), x).sum() / b

    def d_loss_of(d: Parameters, prior: Array, codes: Array) -> Array:
        logits = _network(d, d_layers, jax.nn.relu, jnp.concatenate([prior, codes]))
        return _bce(logits[:b], 1.0).mean() + _bce(logits[b:], 0.0).mean()

    def e_loss_of(codes: Array, d: Parameters) -> Array:
        return jax.nn.softplus(-_network(d, d_layers, jax.nn.relu, codes)).mean()

    def init(p: Parameters) -> State:
        auto, d = _part(p, "encoder.", "decoder."), _part(p, "discriminator.")
        velocity = jax.tree.map(jnp.zeros_like, _part(p, "encoder."))
        return {"auto": auto, "d": d, "adam": _adam_state(auto), "d_adam": _adam_state(d), "velocity": velocity}

    def step(state: State, images: Array) -> State:
        key, chosen, drawn = jax.random.split(state["key"], 3)
        x, prior = _batch(workload, chosen, images), jax.random.normal(drawn, (b, network.latent_dim))
        gradient = jax.grad(reconstruction_of)(state["auto"], x)
        auto, adam = _adam(state["auto"], gradient, state["adam"], training.reconstruction_lr, 0.9)
        e = _part(auto, "encoder.")
        codes, back = jax.vjp(lambda e: encode(e, x), e)
        gradient = jax.grad(d_loss_of)(state["d"], prior, codes)
        d, d_adam = _adam(state["d"], gradient, state["d_adam"], training.discriminator_lr, 0.5)
        (gradient,) = back(jax.grad(e_loss_of)(codes, d))
        velocity = jax.tree.map(lambda v, g: 0.1 * v + g, state["velocity"], gradient)
        e = jax.tree.map(lambda p, v: p - training.encoder_lr * v, e, velocity)
        return {"key": key, "auto": auto | e, "d": d, "adam": adam, "d_adam": d_adam, "velocity": velocity}

    def losses(p: Parameters, x: Array, noise: Array) -> dict[str, Any]:
        d, codes_of = _part(p, "discriminator."), lambda e: encode(e, x)
        codes, back = jax.vjp(codes_of, _part(p, "encoder."))
        e_loss, gradient = jax.value_and_grad(e_loss_of)(codes, d)
        return {
            "reconstruction": jax.value_and_grad(reconstruction_of)(_part(p, "encoder.", "decoder."), x),
            "d_loss": jax.value_and_grad(d_loss_of)(d, noise, codes),
            "e_loss": (e_loss, back(gradient)[0]),
        }

    return init, step, losses


def _rbm(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    """With the gradient written out: automatic differentiation would multiply more."""
    training = workload.training

    def hidden(p: Parameters, v: Array) -> Array:
        return jax.nn.sigmoid(v @ p["weight"] + p["hidden_bias"])

    def free_energy(p: Parameters, v: Array) -> Array:
        return -(v @ p["visible_bias"]) - jax.nn.softplus(v @ p["weight"] + p["hidden_bias"]).sum(axis=1)

    def contrast(v: Array, h: Array, model_v: Array, model_h: Array) -> Parameters:
        return {
            "weight": (model_v.T @ model_h - v.T @ h) / len(v),
            "visible_bias": (model_v - v).mean(axis=0),
            "hidden_bias": (model_h - h).mean(axis=0),
        }

    def step(state: State, images: Array) -> State:
        key, chosen, *drawn = jax.random.split(state["key"], 2 + 2 * training.gibbs_steps)
        p, v = state["p"], _batch(workload, chosen, images)
        h = model_h = hidden(p, v)
        for up, down in zip(drawn[::2], drawn[1::2], strict=True):
            states = jax.random.bernoulli(up, model_h).astype(v.dtype)
            means = jax.nn.sigmoid(states @ p["weight"].T + p["visible_bias"])
            model_v = jax.random.bernoulli(down, means).astype(v.dtype)
            model_h = hidden(p, model_v)
        g = contrast(v, h, model_v, model_h)
        velocity = jax.tree.map(lambda s, g: training.momentum * s + g, state["velocity"], g)
        return {"key": key, "p": jax.tree.map(lambda p, s: p - training.lr * s, p, velocity), "velocity": velocity}

    def losses(p: Parameters, x: Array, noise: Array) -> dict[str, Any]:
        sample = (noise > 0).astype(x.dtype)
        loss = free_energy(p, x).mean() - free_energy(p, sample).mean()
        return {"loss": (loss, contrast(x, hidden(p, x), sample, hidden(p, sample)))}

    return lambda p: {"p": p, "velocity": jax.tree.map(jnp.zeros_like, p)}, step, losses
