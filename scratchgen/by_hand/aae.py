"""The adversarial autoencoder's four updates (the lecture's word is event), by hand (L25, L26).

Equations of ``layers`` are cited as layers (1). The encoder takes b images x (b, D) through convolutions, if it has
any, and dense layers; if its posterior is universal, noise ε stands beside what enters the dense layers. Linear heads
on its last h give μ and, depending on the configuration, v = log σ² and the logits c of the C classes:

    z = μ,   or with a Gaussian posterior   z = μ + e^(v/2) ⊙ ε:      μ̇ = ż,    v̇ = ż ⊙ ε ⊙ ½ e^(v/2),            (1)
    y_k = e^(c_k) / Σ_j e^(c_j),   ∂y_j/∂c_k = y_j [1(j = k) − y_k]:   ċ = y ⊙ [ẏ − Σ_j ẏ_j y_j].                   (2)

The ḣ of the heads add up, and layers (2) and (1), or convolution (2) and (3), lead back to x. Several inputs of a
network are concatenated as columns; backward, ḣ is split into the same columns, and labels and noise need no gradient.

Update 1, reconstruction phase. The decoder maps z, and y or the labels if it takes classes, to logits a (b, D), by
dense layers and, if it has any, transposed convolutions:

    loss = 1/b Σ_i Σ_D [log(1 + e^a) − x a],        δ = (sigmoid(a) − x) / b,                                       (3)

back through the decoder to ż and ẏ, and through (1) and (2) to the encoder.

Update 2, regularisation phase, discriminator. D maps draws of the prior, with label t = 1, and codes, with t = 0, to
logits a, and minimises both cross-entropies; codes are constants here. If the encoder classifies, a second D does the
same with y as codes and one-hot rows as draws, and the losses add up:

    loss = Σ_passes 1/b Σ_i [log(1 + e^a) − t a],   δ = (sigmoid(a) − t) / b.                                       (4)

Update 3, regularisation phase, generator, i.e. the encoder. It minimises −log D(z), which is (4) with t = 1, and the
same for y, through the frozen D:

    loss = Σ_D 1/b Σ_i log(1 + e^(−a)),             δ = −sigmoid(−a) / b,      then D backward, then (2) and (1).   (5)

Update 4, semi-supervised phase. With the label k of each of b labelled images,

    loss = −1/b Σ_i log y_k,       −log y_k = log Σ_j e^(c_j) − c_k,      ċ_j = [y_j − 1(j = k)] / b.                (6)
"""

from typing import Any, NamedTuple

import numpy as np

from scratchgen.by_hand.layers import Arrays, cross_entropy, cross_entropy_prime, dense, sigmoid, softplus
from scratchgen.by_hand.networks import (
    DENSE,
    Layer,
    Pass,
    backward,
    decoder_layers,
    decoder_output,
    encoder_layers,
    forward,
    heads_backward,
)
from scratchgen.models.aae import AAEConfig
from scratchgen.priors import REGIONS

RELU = DENSE._replace(activation="relu")


def reconstruction_gradients(
    parameters: Arrays,
    config: AAEConfig,
    images: np.ndarray,
    x: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray | None,
) -> tuple[float, Arrays]:
    """Update 1: the loss, and its gradients with respect to encoder and decoder. All updates share these arguments.

    Parameters
    ----------
    parameters : dict
        As ``AAE.state_dict`` names them; the gradients have the same names.
    images, x : np.ndarray
        The target (b, D), and the encoder's input (b, D): the same, or with noise.
    labels : np.ndarray
        (b,) of 0 to C-1, or -1 for unlabelled; used only by the network that ``labels_for`` names.
    noise : np.ndarray or None
        (b, J) for a Gaussian posterior, (b, noise_dim) for a universal one, None for a deterministic one.
    """
    p, grad, b = parameters, dict[str, np.ndarray](), len(x)
    code = _encode(p, config, x, noise)
    if code.c is not None:
        reads = np.concatenate([code.z, _softmax(code.c)], axis=1)
    elif config.labels_for == "decoder":
        reads = np.concatenate(
            [code.z, _rows(labels, config.classes, x.dtype)[:, :-1]], axis=1
        )  # zeros without a label
    else:
        reads = code.z
    decoder = _network(config.decoder_hidden, config.input_dim, config.decoder_channels)
    decoded = forward(p, "decoder", decoder, reads)
    out = decoded.h[-1]
    loss = cross_entropy(out, images).sum() / b  # (3)
    delta = cross_entropy_prime(out, images) / b  # (3)
    dot = backward(p, grad, "decoder", decoder, decoded, delta)
    z_dot, y_dot = dot[:, : config.latent_dim], dot[:, config.latent_dim :]
    c_dot = None if code.c is None else _softmax_backward(code.c, y_dot)
    _encode_backward(p, grad, config, code, noise, z_dot, c_dot)
    return float(loss), grad


def discriminator_gradients(
    parameters: Arrays,
    config: AAEConfig,
    x: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray | None,
    prior: np.ndarray,
    classes: np.ndarray | None = None,
) -> tuple[float, Arrays]:
    """Update 2: the loss, and its gradients with respect to the discriminators.

    ``prior`` are draws of z (b, J). ``classes`` (b,) are draws of 0 to C-1, needed where the encoder classifies.
    """
    p, gradients, loss = parameters, dict[str, np.ndarray](), 0.0
    code = _encode(p, config, x, noise)
    games = {"discriminator": (_beside_labels(config, prior, labels), _beside_labels(config, code.z, labels))}
    if code.c is not None:
        if classes is None:
            raise ValueError("where the encoder classifies, update 2 needs draws of the classes")
        games["class_discriminator"] = _rows(classes, config.classes, x.dtype)[:, :-1], _softmax(code.c)
    discriminator = _network(config.discriminator_hidden)
    for name, (draws, codes) in games.items():
        for reads, label in ((draws, 1.0), (codes, 0.0)):
            passed = forward(p, name, discriminator, reads)
            out = passed.h[-1]
            loss += float(cross_entropy(out, label).sum() / len(x))  # (4)
            grad: Arrays = {}
            delta = cross_entropy_prime(out, label) / len(x)  # (4)
            backward(p, grad, name, discriminator, passed, delta)
            for key, gradient in grad.items():  # the same D: both passes add up
                gradients[key] = gradients.get(key, 0) + gradient
    return loss, gradients


def encoder_gradients(
    parameters: Arrays, config: AAEConfig, x: np.ndarray, labels: np.ndarray, noise: np.ndarray | None
) -> tuple[float, Arrays]:
    """Update 3: the loss, and its gradients with respect to the encoder."""
    p, grad, loss = parameters, dict[str, np.ndarray](), 0.0
    code = _encode(p, config, x, noise)
    games = {"discriminator": _beside_labels(config, code.z, labels)}
    if code.c is not None:
        games["class_discriminator"] = _softmax(code.c)
    dots, discriminator = {}, _network(config.discriminator_hidden)
    for name, reads in games.items():
        passed = forward(p, name, discriminator, reads)
        out = passed.h[-1]
        loss += float(softplus(-out).sum() / len(x))  # (5)
        delta = -sigmoid(-out) / len(x)  # (5)
        dots[name] = backward(p, None, name, discriminator, passed, delta)
    z_dot = dots["discriminator"][:, : config.latent_dim]  # labels need no gradient
    c_dot = None if code.c is None else _softmax_backward(code.c, dots["class_discriminator"])
    _encode_backward(p, grad, config, code, noise, z_dot, c_dot)
    return loss, grad


def classification_gradients(
    parameters: Arrays, config: AAEConfig, x: np.ndarray, labels: np.ndarray, noise: np.ndarray | None
) -> tuple[float, Arrays]:
    """Update 4: the loss, and its gradients with respect to the encoder's parameters that class logits depend on."""
    p, grad, b = parameters, dict[str, np.ndarray](), len(x)
    code = _encode(p, config, x, noise)
    if code.c is None:
        raise ValueError(f"labels_for is {config.labels_for}: only an encoder that classifies has update 4")
    c_k = code.c[np.arange(b), labels]
    loss = (_log_sum_exp(code.c)[:, 0] - c_k).sum() / b  # (6)
    c_dot = (_softmax(code.c) - _rows(labels, config.classes, x.dtype)[:, :-1]) / b  # (6)
    _encode_backward(p, grad, config, code, noise, None, c_dot)
    return float(loss), grad


# ---- the encoder ----


class Code(NamedTuple):
    """The encoder's two passes, the code z (b, J), v (b, J) and c (b, C) if there are such heads."""

    images: Pass
    body: Pass
    z: np.ndarray
    v: np.ndarray | None
    c: np.ndarray | None


def _images(config: AAEConfig) -> list[Layer]:
    """The convolutions before the hidden layers."""
    return encoder_layers(config.input_dim, config.encoder_channels, "relu")


def _encode(p: Arrays, config: AAEConfig, x: np.ndarray, noise: np.ndarray | None) -> Code:
    """The encoder, forward, then its heads and (1)."""
    images = forward(p, "encoder.images", _images(config), x)
    reads = images.h[-1]
    if config.posterior == "universal" and noise is not None:
        reads = np.concatenate([reads, noise], axis=1)
    body = forward(p, "encoder.body", [RELU for _ in config.encoder_hidden], reads)
    h = body.h[-1]
    z, v, c = dense(p, "encoder.code", h), None, None
    if config.posterior == "gaussian":
        v = dense(p, "encoder.logvar", h)
        z = z + np.exp(v / 2) * noise  # z = μ + e^(v/2) ⊙ ε
    if config.labels_for == "encoder":
        c = dense(p, "encoder.classes", h)
    return Code(images, body, z, v, c)


def _encode_backward(
    p: Arrays,
    grad: Arrays,
    config: AAEConfig,
    code: Code,
    noise: np.ndarray | None,
    z_dot: np.ndarray | None,
    c_dot: np.ndarray | None,
) -> None:
    """(1), then every layer's own: stores the gradients of all that ż and ċ pass in ``grad``."""
    deltas = {}
    if z_dot is not None:
        deltas["encoder.code"] = z_dot  # μ̇ = ż
        if code.v is not None:
            deltas["encoder.logvar"] = z_dot * noise * np.exp(code.v / 2) / 2  # v̇ = ż ⊙ ε ⊙ ½ e^(v/2)
    if c_dot is not None:
        deltas["encoder.classes"] = c_dot
    h_dot = heads_backward(p, grad, DENSE, code.body.h[-1], deltas)
    h_dot = backward(p, grad, "encoder.body", [RELU for _ in config.encoder_hidden], code.body, h_dot)
    features = code.images.h[-1].shape[1]  # noise, in the columns beside them, needs no gradient
    backward(p, grad, "encoder.images", _images(config), code.images, h_dot[:, :features])


# ---- decoder and discriminators ----


def _network(hidden: tuple[int, ...], pixels: int = 1, channels: tuple[int, ...] = ()) -> list[Layer]:
    """Hidden layers with relu, then transposed convolutions to images (b, pixels) or, without channels, a dense one."""
    images = decoder_layers(pixels, channels, "relu")
    return [*[RELU for _ in hidden], *images, decoder_output(pixels, channels)]


# ---- labels and classes ----


def _rows(labels: np.ndarray, classes: int, dtype: Any) -> np.ndarray:
    """One-hot rows (b, C + 1) of labels (b,); -1, unlabelled, is the last column."""
    return np.eye(classes + 1, dtype=dtype)[labels]


def _beside_labels(config: AAEConfig, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """D's input for z (b, J): with the labels if each class has a region of the prior."""
    if config.labels_for == "discriminator" and config.prior in REGIONS:
        return np.concatenate([z, _rows(labels, config.classes, z.dtype)], axis=1)
    return z


def _log_sum_exp(c: np.ndarray) -> np.ndarray:
    """log Σ_j e^(c_j), (b, 1), without overflow, of c (b, C)."""
    largest = c.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(c - largest).sum(axis=1, keepdims=True))


def _softmax(c: np.ndarray) -> np.ndarray:
    """y (b, C) of c (b, C): (2)."""
    return np.exp(c - _log_sum_exp(c))


def _softmax_backward(c: np.ndarray, y_dot: np.ndarray) -> np.ndarray:
    """ċ (b, C) of c and ẏ, both (b, C): (2)."""
    y = _softmax(c)
    return y * (y_dot - (y_dot * y).sum(axis=1, keepdims=True))  # ċ = y ⊙ [ẏ − Σ_j ẏ_j y_j]
