"""JAX's training steps: each one a jitted function of a state, whose buffers are donated, and of the images.

Parameters are a dict under the engine's names; a layer is the part of a name that its parameters share.
"""

from collections.abc import Callable, Mapping
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
    init, step_of, losses = {"vae": _vae, "gan": _gan, "aae": _aae}[workload.model](workload, shared.parameters)
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


def _dense(p: Parameters, layer: str, x: Array) -> Array:
    return x @ p[f"{layer}.weight"] + p[f"{layer}.bias"]


def _mlp(p: Parameters, layers: list[str], activation: Callable[[Array], Array], x: Array) -> Array:
    """Dense layers with activations between them."""
    for layer in layers[:-1]:
        x = activation(_dense(p, layer, x))
    return _dense(p, layers[-1], x)


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


# ---- the three models: what the state holds, the step, and all losses with gradients ----


def _vae(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    network, activation = workload.network, ACTIVATIONS[workload.network.activation]
    body, decoder = _layers(names, "encoder."), _layers(names, "decoder")

    def loss_of(p: Parameters, x: Array, noise: Array) -> Array:
        h = x
        for layer in body:
            h = activation(_dense(p, layer, h))
        mu, logvar = _dense(p, "encoder_mu", h), _dense(p, "encoder_logvar", h)
        logits = _mlp(p, decoder, activation, mu + jnp.exp(logvar / 2) * noise)
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
    *hidden, last = _layers(names, "generator.")
    d_layers = _layers(names, "discriminator.")

    def generate(p: Parameters, z: Array) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """Samples, and the mean and variance before each hidden layer's normalisation."""
        moments = {}
        for layer in hidden:
            a = z @ p[f"{layer}.weight"]
            mean, variance = moments[layer] = a.mean(axis=0), a.var(axis=0)
            scale = p[f"{layer}.gamma"] * jax.lax.rsqrt(variance + 1e-5)
            z = jax.nn.relu((a - mean) * scale + p[f"{layer}.beta"])
        return jax.nn.sigmoid(_dense(p, last, z)), moments

    def discriminate(d: Parameters, x: Array) -> Array:
        return _mlp(d, d_layers, lambda a: jax.nn.leaky_relu(a, 0.2), x.reshape(-1, network.pack * network.input_dim))

    def d_loss_of(d: Parameters, real: Array, fake: Array) -> Array:
        logits = discriminate(d, jnp.concatenate([real, fake]))
        return _bce(logits[:packs], training.real_label).mean() + _bce(logits[packs:], 0.0).mean()

    def g_loss_of(fake: Array, d: Parameters) -> Array:
        return jax.nn.softplus(-discriminate(d, fake)).mean()

    def init(p: Parameters) -> State:
        g, d = _part(p, "generator."), _part(p, "discriminator.")
        sizes = {layer: g[f"{layer}.gamma"].shape for layer in hidden}
        running = {layer: (jnp.zeros(size), jnp.ones(size)) for layer, size in sizes.items()}
        averaged = jax.tree.map(jnp.copy, (g, running))
        return {"g": g, "d": d, "g_adam": _adam_state(g), "d_adam": _adam_state(d), "running": running, "avg": averaged}

    def step(state: State, images: Array) -> State:
        key, chosen, drawn = jax.random.split(state["key"], 3)
        z = jax.random.normal(drawn, (workload.batch, network.latent_dim))
        fake, back, moments = jax.vjp(lambda g: generate(g, z), state["g"], has_aux=True)
        d_gradient = jax.grad(d_loss_of)(state["d"], _batch(workload, chosen, images), fake)
        d, d_adam = _adam(state["d"], d_gradient, state["d_adam"], training.discriminator_lr, training.momentum)
        (g_gradient,) = back(jax.grad(g_loss_of)(fake, d))
        g, g_adam = _adam(state["g"], g_gradient, state["g_adam"], training.generator_lr, training.momentum)
        running = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, state["running"], moments)
        n = g_adam["t"]
        decay = jnp.minimum(training.average, (1 + n) / (10 + n))
        averaged = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state["avg"], (g, running))
        return {"key": key, "g": g, "d": d, "g_adam": g_adam, "d_adam": d_adam, "running": running, "avg": averaged}

    def losses(p: Parameters, x: Array, noise: Array) -> dict[str, Any]:
        g, d = _part(p, "generator."), _part(p, "discriminator.")
        fake, back, _ = jax.vjp(lambda g: generate(g, noise), g, has_aux=True)
        g_loss, gradient = jax.value_and_grad(g_loss_of)(fake, d)
        return {"d_loss": jax.value_and_grad(d_loss_of)(d, x, fake), "g_loss": (g_loss, back(gradient)[0])}

    return init, step, losses


def _aae(workload: Workload, names: Mapping[str, Any]) -> tuple[Callable, Callable, Callable]:
    network, training, b = workload.network, workload.training, workload.batch
    encoder, decoder, d_layers = (_layers(names, part) for part in ("encoder.", "decoder.", "discriminator."))

    def encode(e: Parameters, x: Array) -> Array:
        return _mlp(e, encoder, jax.nn.relu, x)

    def reconstruction_of(p: Parameters, x: Array) -> Array:
        return _bce(_mlp(p, decoder, jax.nn.relu, encode(p, x)), x).sum() / b

    def d_loss_of(d: Parameters, prior: Array, codes: Array) -> Array:
        logits = _mlp(d, d_layers, jax.nn.relu, jnp.concatenate([prior, codes]))
        return _bce(logits[:b], 1.0).mean() + _bce(logits[b:], 0.0).mean()

    def e_loss_of(codes: Array, d: Parameters) -> Array:
        return jax.nn.softplus(-_mlp(d, d_layers, jax.nn.relu, codes)).mean()

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
