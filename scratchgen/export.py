"""Trained models for other programs: PyTorch's code and weights, written without PyTorch.

``to_pytorch`` writes networks as ``nn.Sequential``, with parameters under PyTorch's names and in its layouts:

    Linear           (outputs, inputs)           from Dense            (inputs, outputs)
    Conv2d           (outputs, inputs, k, l)     from Conv2d           (k, l, inputs, outputs)
    ConvTranspose2d  (inputs, outputs, k, l)     from ConvTranspose2d  (k, l, outputs, inputs)

Images are (b, channels, height, width) there, and (b, height, width, channels) here. So a dense layer after a
flattened image has its inputs in another order, and one before a reshaped one its outputs: see ``_channels_first``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from scratchgen.checkpoint import write_whole
from scratchgen.errors import UserError
from scratchgen.models.aae import AAE, ClusterHeads
from scratchgen.models.gan import GAN
from scratchgen.models.vae import VAE
from scratchgen.nn import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    GaussianNoise,
    Maxout,
    Module,
    Reshape,
    Sequential,
)

ACTIVATIONS = {
    "relu": "nn.ReLU()",
    "leaky_relu": "nn.LeakyReLU(0.2)",
    "elu": "nn.ELU()",
    "sigmoid": "nn.Sigmoid()",
    "tanh": "nn.Tanh()",
    "softplus": "nn.Softplus()",
    "gelu": "nn.GELU()",
}
MAXOUT = """class Maxout(nn.Module):
    def __init__(self, inputs, outputs, pieces):
        super().__init__()
        self.linear, self.shape = nn.Linear(inputs, outputs * pieces), (outputs, pieces)

    def forward(self, x):
        return self.linear(x).unflatten(1, self.shape).amax(2)


"""
WRITTEN = "Written by scratchgen export."


@dataclass
class Network:
    """Layers in a row, as PyTorch has them: the code of each, and its parameters by name.

    ``image`` is the shape (h, w, c) of the images that the last layer gives, or gave before they were ``flat``.
    """

    name: str
    image: tuple[int, ...] = ()
    flat: bool = True
    layers: list[tuple[str, dict[str, np.ndarray]]] = field(default_factory=list)

    def add(self, *layers: Module) -> "Network":
        """Append layers of scratchgen, without noise, which is for training. TypeError for one that no recipe has."""
        for layer in layers:
            if isinstance(layer, Sequential):
                self.add(*layer.layers)
            elif isinstance(layer, Dense | Maxout | ClusterHeads):
                self._dense(layer)
            elif isinstance(layer, Conv2d | ConvTranspose2d):
                self._convolution(layer)
            elif isinstance(layer, BatchNorm):
                self._batch_norm(layer)
            elif isinstance(layer, Reshape):
                self._reshape(layer.shape)
            elif isinstance(layer, Dropout):
                self.layers += [(f"nn.Dropout({layer.rate})", {})] if layer.rate else []
            elif not isinstance(layer, GaussianNoise):
                raise TypeError(f"to_pytorch: {type(layer).__name__} has no counterpart")
            self.activate(getattr(layer, "activation", "identity"))
        return self

    def activate(self, activation: str) -> "Network":
        """Append an activation."""
        if activation != "identity":
            self.layers.append((ACTIVATIONS[activation], {}))
        return self

    def _dense(self, layer: Dense | Maxout | ClusterHeads) -> None:
        linear, prefix = (layer.linear, "linear.") if isinstance(layer, Maxout) else (layer, "")
        weight = linear.weight.data.T.copy()
        if self.image:  # it takes a flattened one, and perhaps more beside it
            order = _channels_first(self.image)
            weight[:, : len(order)] = weight[:, order]
            self.image = ()
        outputs, inputs = weight.shape
        code = f"nn.Linear({inputs}, {outputs}{_bias(linear)})"
        if isinstance(layer, Maxout):
            code = f"Maxout({inputs}, {layer.outputs}, {layer.pieces})"
        self.layers.append((code, {f"{prefix}weight": weight, **_biases(linear, prefix)}))

    def _convolution(self, layer: Conv2d | ConvTranspose2d) -> None:
        size, stride, padding = layer.weight.shape[:2], layer.stride, layer.padding
        windows = f"{_pair(size)}, stride={_pair(stride)}, padding={_pair(padding)}{_bias(layer)}"
        weight = layer.weight.data.transpose(3, 2, 0, 1).copy()
        h, w, _ = self.image
        if isinstance(layer, Conv2d):
            outputs, inputs = weight.shape[:2]
            h, w = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip((h, w), size, stride, padding, strict=True))
        else:
            inputs, outputs = weight.shape[:2]
            h, w = ((n - 1) * s - 2 * p + k for n, k, s, p in zip((h, w), size, stride, padding, strict=True))
        kind = type(layer).__name__
        self.layers.append((f"nn.{kind}({inputs}, {outputs}, {windows})", {"weight": weight, **_biases(layer)}))
        self.image = (h, w, outputs)

    def _batch_norm(self, layer: BatchNorm) -> None:
        code = f"nn.BatchNorm{1 if self.flat else 2}d({layer.gamma.size}, eps={layer.epsilon})"
        state = {"weight": layer.gamma, "bias": layer.beta, "running_mean": layer.mean, "running_var": layer.variance}
        arrays = {name: tensor.data for name, tensor in state.items()}
        self.layers.append((code, {**arrays, "num_batches_tracked": np.array(0)}))

    def _reshape(self, shape: tuple[int, ...]) -> None:
        self.flat = shape == (-1,)
        if self.flat:
            self.layers.append(("nn.Flatten()", {}))
            return
        h, w, c = shape
        if self.layers and self.layers[-1][0] == "nn.Flatten()":  # of these images: they need no new shape
            self.layers.pop()
        elif before := [arrays for _, arrays in self.layers if arrays]:  # the last is of a dense layer
            order = _channels_first(shape)
            before[-1].update({name: array[order] for name, array in before[-1].items()})
            self.layers.append((f"nn.Unflatten(1, ({c}, {h}, {w}))", {}))
        elif self.image:  # of the network before this one
            self.layers.append((f"nn.Unflatten(1, ({c}, {h}, {w}))", {}))
        self.image = shape  # at the very beginning, what calls the network gives it images

    def code(self) -> str:
        """The statement that makes the network, in ``__init__``."""
        if len(self.layers) == 1:
            return f"        self.{self.name} = {self.layers[0][0]}\n"
        lines = "".join(f"            {code},\n" for code, _ in self.layers)
        return f"        self.{self.name} = nn.Sequential(\n{lines}        )\n"

    def arrays(self) -> dict[str, np.ndarray]:
        """Its parameters by their names in PyTorch's ``state_dict``."""
        places = [self.name] if len(self.layers) == 1 else [f"{self.name}.{i}" for i in range(len(self.layers))]
        return {
            f"{place}.{name}": np.ascontiguousarray(array)
            for place, (_, arrays) in zip(places, self.layers, strict=True)
            for name, array in arrays.items()
        }


def _channels_first(image: tuple[int, ...]) -> np.ndarray:
    """Where the numbers of an image (c, h, w), in their order, are in an image of shape (h, w, c)."""
    return np.arange(math.prod(image)).reshape(image).transpose(2, 0, 1).ravel()


def _bias(layer: Any) -> str:
    return "" if layer.bias is not None else ", bias=False"


def _biases(layer: Any, prefix: str = "") -> dict[str, np.ndarray]:
    return {} if layer.bias is None else {f"{prefix}bias": layer.bias.data}


def _pair(numbers: tuple[int, ...]) -> str:
    return str(numbers[0] if len(set(numbers)) == 1 else tuple(numbers))


# ---- the models ----

Parts = tuple[list[Network], list[str]]  # networks, and methods


def _method(call: str, what: str, *lines: str) -> str:
    body = "".join(f"        {line}\n" for line in lines)
    return f'    def {call}:\n        """{what}"""\n{body}'


def _with_classes(conditional: bool, classes: int) -> tuple[str, str]:
    """A further argument of a method, and its description."""
    return (", y", f" and classes y (n, {classes}), one-hot") if conditional else ("", "")


def _as_input(name: str, pixels: int, convolutional: bool, conditional: bool) -> Iterator[str]:
    """Lines that make a network's input of rows (n, pixels), or of codes, and of classes."""
    if convolutional:
        side = math.isqrt(pixels)
        yield f"{name} = {name}.view(-1, 1, {side}, {side})"
        if conditional:
            yield f"{name} = torch.cat([{name}, y[:, :, None, None].expand(-1, -1, {side}, {side})], 1)"
    elif conditional:
        yield f"{name} = torch.cat([{name}, y], 1)"


def _vae(model: VAE) -> Parts:
    config = model.config
    y, classes = _with_classes(config.conditional, config.classes)
    encoder = Network("encoder").add(model.encoder)
    heads = [
        Network(f"encoder_{name}", encoder.image).add(layer)
        for name, layer in (("mu", model.encoder_mu), ("logvar", model.encoder_logvar))
    ]
    decoder = Network("decoder").add(model.decoder)
    given = list(_as_input("x", config.input_dim, bool(config.encoder_channels), config.conditional))
    encode = _method(
        f"encode(self, x{y})",
        f"mu and logvar (n, {config.latent_dim}) of images x (n, {config.input_dim}){classes}.",
        *given,
        "h = self.encoder(x)",
        "return self.encoder_mu(h), self.encoder_logvar(h)",
    )
    given = list(_as_input("z", 0, False, config.conditional))
    of_codes = f"of codes z (n, {config.latent_dim}){classes}."
    if config.likelihood != "gaussian":
        decoder.add(model.decoder_out).activate("sigmoid" if config.likelihood == "bernoulli" else "identity")
        decode = _method(
            f"decode(self, z{y})", f"Images (n, {config.input_dim}) {of_codes}", *given, "return self.decoder(z)"
        )
        return [encoder, *heads, decoder], [encode, decode]
    outputs = [
        Network(f"decoder_{name}", decoder.image).add(layer)
        for name, layer in (("out", model.decoder_out), ("logvar", model.decoder_logvar))
    ]
    decode = _method(
        f"decode(self, z{y})",
        f"Mean and logvar (n, {config.input_dim}) of pixels, {of_codes}",
        *given,
        "h = self.decoder(z)",
        f"least = {2 * math.log(config.sigma_floor)!r}",
        "return self.decoder_out(h), nn.functional.softplus(self.decoder_logvar(h) - least) + least",
    )
    return [encoder, *heads, decoder, *outputs], [encode, decode]


def _gan(model: GAN) -> Parts:
    config = model.config
    y, classes = _with_classes(config.conditional, config.classes)
    networks = [Network(name).add(getattr(model, name)) for name in ("generator", "discriminator")]
    generate = _method(
        f"generate(self, z{y})",
        f"Images (n, {config.input_dim}) of noise z (n, {config.latent_dim}){classes}.",
        *_as_input("z", 0, False, config.conditional),
        "return self.generator(z)",
    )
    lines, pack = list(_as_input("x", config.input_dim, bool(config.discriminator_channels), config.conditional)), ""
    if config.pack > 1:
        pack = f" / {config.pack}"
        lines.append(f"x = x.reshape(len(x) // {config.pack}, {config.pack} * x.shape[1], *x.shape[2:])")
    what = f"Logits (n{pack}, 1) of images x (n, {config.input_dim}){classes}"
    together = f", {config.pack} judged together" if config.pack > 1 else ""
    discriminate = _method(f"discriminate(self, x{y})", f"{what}{together}.", *lines, "return self.discriminator(x)")
    return networks, [generate, discriminate]


def _aae(model: AAE) -> Parts:
    config, encoder = model.config, model.encoder
    heads = {
        "code": ("codes z" if config.posterior != "gaussian" else "mu", config.latent_dim),
        "logvar": ("logvar", config.latent_dim),
        "classes": ("logits of classes", config.classes),
    }
    heads = {name: what for name, what in heads.items() if hasattr(encoder, name)}
    lines = list(_as_input("x", config.input_dim, bool(config.encoder_channels), False))
    images, networks, noise, noisy = Network("encoder").add(encoder.images), list[Network](), "", ""
    if config.posterior == "universal":
        noise, noisy = ", noise", f" and noise (n, {config.noise_dim})"
        if images.layers:
            images.name = "images"
            networks.append(images)
            lines.append("x = self.images(x)")
        lines.append("x = torch.cat([x, noise], 1)")
        body = Network("encoder", images.image).add(encoder.body)
    else:
        body = images.add(encoder.body)
    networks += [body, *(Network(name, body.image).add(getattr(encoder, name)) for name in heads)]
    encode = _method(
        f"encode(self, x{noise})",
        "The "
        + " and ".join(f"{what} (n, {size})" for what, size in heads.values())
        + f" of images x (n, {config.input_dim}){noisy}.",
        *lines,
        "h = self.encoder(x)",
        "return " + ", ".join(f"self.{name}(h)" for name in heads),
    )
    y, classes = _with_classes(model.decodes_classes, config.classes)
    networks.append(Network("decoder").add(model.decoder).activate("sigmoid"))
    decode = _method(
        f"decode(self, z{y})",
        f"Images (n, {config.input_dim}) of codes z (n, {config.latent_dim}){classes}.",
        *_as_input("z", 0, False, model.decodes_classes),
        "return self.decoder(z)",
    )
    y, classes = (
        (", y", f" and classes y (n, {config.classes + 1}), the last of unlabelled ones")
        if model.regional
        else ("", "")
    )
    networks.append(Network("discriminator").add(model.discriminator))
    discriminate = _method(
        f"discriminate(self, z{y})",
        f"Logits (n, 1) of codes z (n, {config.latent_dim}){classes}.",
        *_as_input("z", 0, False, model.regional),
        "return self.discriminator(z)",
    )
    if config.labels_for == "encoder":
        networks.append(Network("class_discriminator").add(model.class_discriminator))
    return networks, [encode, decode, discriminate]


MODELS: dict[type, Callable[[Any], Parts]] = {VAE: _vae, GAN: _gan, AAE: _aae}


# ---- the files ----


def to_pytorch(model: Any) -> tuple[str, dict[str, np.ndarray]]:
    """The source of a Python module with a VAE, GAN or AAE in PyTorch, and the weights for its ``load()``."""
    kind = type(model).__name__
    networks, methods = MODELS[type(model)](model)
    made = "".join(network.code() for network in networks)
    source = f'''"""{"A" if kind != "AAE" else "An"} {kind} in PyTorch. {WRITTEN}

    model = load()

reads the weights, which lie beside this file. It needs torch and safetensors. Images are rows of
{model.config.input_dim} pixels.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


{MAXOUT if " Maxout(" in made else ""}class {kind}(nn.Module):
    def __init__(self):
        super().__init__()
{made}
{chr(10).join(methods)}

def load():
    """The trained model, in evaluation mode."""
    model = {kind}()
    model.load_state_dict(load_file(Path(__file__).with_name("weights.safetensors")))
    return model.eval()
'''
    return source, {name: array for network in networks for name, array in network.arrays().items()}


def write_pytorch(folder: Path, model: Any) -> None:
    """Write ``model.py`` and ``weights.safetensors`` into a folder, which is created if it is not there.

    UserError if it cannot be written, or holds another ``model.py``, or other weights, or if it is no network.
    """
    if type(model) not in MODELS:
        raise UserError(f"a model of type {type(model).__name__} is not written in PyTorch; give --to numpy")
    source, arrays = to_pytorch(model)
    code, weights = folder / "model.py", folder / "weights.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = WRITTEN in code.read_text(errors="replace") if code.exists() else not weights.exists()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another --out") from None
    if not ours:
        raise UserError(f"{folder} holds a {code.name} or {weights.name} of another kind; give another --out")
    write_whole(weights, to_safetensors(arrays))
    write_whole(code, source.encode())
