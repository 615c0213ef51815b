"""The latent explorer: a page, in one file, on which a trained model runs in the reader's browser.

``networks.js`` computes networks, ``models.js`` what the models make of them, ``pictures.js`` makes what is drawn into
an image like the data's; ``page.js``, ``decode.js``, ``map.js``, ``draw.js`` and ``walk.js`` are the page, with
``explorer.html`` and ``explorer.css``. The file holds all of it, and the model's parameters; it loads nothing.

The images may have any shape and any number of classes, or none.
"""

import html
import json
import math
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from scratchgen.data.dataset import DIGITS, Dataset
from scratchgen.data.pictures import LOOKED_AT
from scratchgen.explorer.networks import Weights, described, packed
from scratchgen.judge import load_judge
from scratchgen.priors import Gaussian, Mixture, Prior, SwissRoll, Uniform
from scratchgen.recipes.recipe import Explorable, RunConfig

SCRIPTS = ("networks.js", "models.js", "pictures.js", "page.js", "decode.js", "map.js", "draw.js", "walk.js")
LARGEST = 6_000_000  # bytes of a page, beyond which it goes without the judge
FEWER_BITS = (24, 23)  # of weights, tried in turn where a page would still be larger
EXAMPLES, EXAMPLE_PIXELS = 200, 1_000_000  # test images to choose from, at most, and their pixels
MAPPED = 2_000  # codes on the map
OUTLINE = 60  # points of a region's outline


def page(config: RunConfig, shown: Explorable, data: Dataset, with_judge: bool = True) -> bytes:
    """The page of a model, UTF-8.

    It holds the judge, which reads what is drawn, if the data have labels, the encoder does not classify by itself, and
    there is room for it; ``with_judge=False`` leaves it out.

    The weights are those of the run to the last bit, unless the page is within ``LARGEST`` only if they are ``rounded``
    to ``FEWER_BITS``. Of the named configurations these are the convolutional VAE and GANs, whose pictures change by up
    to 3e-6 after an epoch of training.

    UserError for layers that the page cannot compute, or parameters that are not finite.
    """
    weights, labels = Weights(), data.test.labels
    run = {
        "model": config.model,
        "name": config.name,
        "data": data.name,
        "shape": data.image_shape,
        "centred": config.centred,
        "ground": _ground(data),
        "classes": data.classes,
        "colours": _colours(max(1, len(data.classes))),
        "latentDim": len(shown.variation),
        "networks": {name: described(network, weights) for name, network in shown.networks.items()},
        "prior": _described(shown.prior),
        "variation": _rounded(shown.variation),
        **shown.facts,
    }
    examples = ""
    if shown.images is not None and shown.codes is not None:
        chosen = _in_turn(labels)[: max(2, min(EXAMPLES, EXAMPLE_PIXELS // shown.images.shape[1]))]
        run["examples"] = labels[chosen].tolist()
        examples = packed(np.rint(255 * shown.images[chosen]).astype(np.uint8))
        if len(shown.variation) == 2:
            run |= {"codes": _rounded(shown.codes[:MAPPED]), "labels": labels[:MAPPED].tolist()}
    if len(shown.variation) == 2:
        run["extent"] = _extent(shown.prior, shown.codes)
    exact = weights.text()
    alone = _filled(run, exact, examples)
    if len(alone) > LARGEST:
        smaller = (_filled(run, weights.text(bits), examples) for bits in FEWER_BITS)
        return next((each for each in smaller if len(each) <= LARGEST), alone)
    if not (with_judge and data.classes) or shown.codes is None or "classes" in shown.networks:
        return alone
    judge, its_weights = load_judge(data), Weights()
    run["judge"] = described(judge.classifier.network, its_weights)
    run["judgeAccuracy"] = judge.accuracy
    judged = _filled(run, exact, examples, its_weights.text())
    return judged if len(judged) <= LARGEST else alone


def _filled(run: dict[str, Any], weights: str, examples: str, judge: str = "") -> bytes:
    """The template with everything in its place; weights, examples and judge are packed."""
    name = f"{run['model']} {run['name']}"
    image = "digit" if run["classes"] == DIGITS and run["centred"] else "image"
    return (
        Template(_text("explorer.html"))
        .substitute(
            title=html.escape(name),
            image=image,
            an_image=f"an {image}" if image == "image" else f"a {image}",
            style=_text("explorer.css"),
            run=json.dumps(run, separators=(",", ":")).replace("<", "\\u003c"),  # a name must not end the script
            weights=weights,
            judge=judge,
            examples=examples,
            scripts="\n".join(_text(script) for script in SCRIPTS),
        )
        .encode()
    )


def _text(name: str) -> str:
    return resources.files("scratchgen.explorer").joinpath(name).read_text("utf-8")


def _ground(data: Dataset) -> int:
    """What a drawing lies on, 0 or 1: the nearer to the median at the edges of images."""
    images = data.test.images[:LOOKED_AT].reshape(-1, *data.image_shape)
    edges = [images[:, [0, -1], :].ravel(), images[:, :, [0, -1]].ravel()]
    return int(np.median(np.concatenate(edges)) > 0.5)


def _colours(classes: int) -> list[str]:
    from scratchgen.figures import class_colours  # imported here: matplotlib takes half a second to import

    return class_colours(classes)


def _rounded(numbers: np.ndarray) -> Any:
    """Lists of numbers with four significant digits."""
    if numbers.ndim > 1:
        return [_rounded(row) for row in numbers]
    return [float(f"{number:.4g}") for number in numbers]


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """The places of images with these labels (n,): the first of each class, then all second ones, and so on."""
    rank = np.empty(len(labels), np.int64)  # of each image within its class
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, rank))


def _described(prior: Prior) -> dict[str, Any]:
    """A prior as ``models.js`` knows it, with the outlines of its regions."""
    if isinstance(prior, Gaussian):
        return {"name": "gaussian", "sd": prior.sd}
    if isinstance(prior, Uniform):
        return {"name": "uniform", "limit": prior.limit}
    outlines = _rounded(prior.outlines(OUTLINE))
    if isinstance(prior, Mixture):
        return {
            "name": "mixture",
            "shift": prior.shift,
            "along": prior.along,
            "across": prior.across,
            "components": prior.classes,
            "outlines": outlines,
        }
    assert isinstance(prior, SwissRoll)
    return {"name": "swiss-roll", "outlines": outlines}


def _extent(prior: Prior, codes: np.ndarray | None) -> float:
    """How far the map reaches from 0 along both axes: over the prior, and over all but the outermost test codes."""
    if isinstance(prior, Uniform):
        reach = 1.1 * prior.limit
    elif isinstance(prior, Gaussian):
        reach = 3.0 * prior.sd
    else:
        reach = 1.05 * float(np.abs(prior.outlines(OUTLINE)).max())
    outer = 0.0 if codes is None else float(np.quantile(np.abs(codes), 0.995))
    return math.ceil(10 * max(reach, 1.05 * outer)) / 10
