"""The latent explorer: a page, in one file, on which a trained model runs in the reader's browser.

``networks.js`` computes networks, ``models.js`` what the models make of them, ``pictures.js`` centres what is drawn;
``page.js``, ``decode.js``, ``map.js``, ``draw.js`` and ``walk.js`` are the page, with ``explorer.html`` and
``explorer.css``. The file holds all of it, and the model's parameters; it loads nothing.
"""

import html
import json
import math
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from scratchgen.data.dataset import DIGITS, Dataset
from scratchgen.data.pictures import SIDE
from scratchgen.errors import UserError
from scratchgen.explorer.networks import Weights, described, packed
from scratchgen.judge import load_judge
from scratchgen.priors import Gaussian, Mixture, Prior, SwissRoll, Uniform
from scratchgen.recipes.recipe import Explorable, RunConfig

SCRIPTS = ("networks.js", "models.js", "pictures.js", "page.js", "decode.js", "map.js", "draw.js", "walk.js")
LARGEST = 6_000_000  # bytes of a page, beyond which it goes without the judge
FEWER_BITS = (24, 23)  # of weights, tried in turn where a page would still be larger
DIGITS_A_CLASS = 20  # test digits to choose from
MAPPED = 2_000  # codes on the map
OUTLINE = 60  # points of a region's outline


def page(config: RunConfig, shown: Explorable, data: Dataset, with_judge: bool = True) -> bytes:
    """The page of a model, UTF-8.

    It holds the judge, which reads what is drawn, if the encoder does not classify by itself and there is room for it;
    ``with_judge=False`` leaves it out.
    The weights are those of the run to the last bit, unless the page is within ``LARGEST`` only if they are ``rounded``
    to ``FEWER_BITS``. Of the named configurations these are the convolutional VAE and GANs, whose pictures change by up
    to 3e-6 after an epoch of training.

    UserError for images or classes other than MNIST's, layers that the page cannot compute, or parameters that are not
    finite.
    """
    (height, width), classes = data.image_shape, len(data.classes)
    if (height, width, classes) != (SIDE, SIDE, len(DIGITS)):
        raise UserError(
            f"the explorer shows {SIDE} by {SIDE} pixels in {len(DIGITS)} classes, and {data.name} has {height} by "
            f"{width} in {classes}"
        )
    weights = Weights()
    run = {
        "model": config.model,
        "name": config.name,
        "data": data.name,
        "latentDim": len(shown.variation),
        "networks": {name: described(network, weights) for name, network in shown.networks.items()},
        "prior": _described(shown.prior),
        "variation": _rounded(shown.variation),
        "colours": _colours(),
        **shown.facts,
    }
    digits = ""
    if shown.images is not None and shown.codes is not None:
        chosen = _of_each_class(data.test.labels)
        run["digits"] = data.test.labels[chosen].tolist()
        digits = packed(np.rint(255 * shown.images[chosen]).astype(np.uint8))
        if len(shown.variation) == 2:
            run |= {"codes": _rounded(shown.codes[:MAPPED]), "labels": data.test.labels[:MAPPED].tolist()}
    if len(shown.variation) == 2:
        run["extent"] = _extent(shown.prior, shown.codes)
    exact = weights.text()
    alone = _filled(run, exact, digits)
    if len(alone) > LARGEST:
        smaller = (_filled(run, weights.text(bits), digits) for bits in FEWER_BITS)
        return next((each for each in smaller if len(each) <= LARGEST), alone)
    if not with_judge or shown.codes is None or "classes" in shown.networks:
        return alone
    judge, its_weights = load_judge(data), Weights()
    run["judge"] = described(judge.classifier.network, its_weights)
    run["judgeAccuracy"] = judge.accuracy
    judged = _filled(run, exact, digits, its_weights.text())
    return judged if len(judged) <= LARGEST else alone


def _filled(run: dict[str, Any], weights: str, digits: str, judge: str = "") -> bytes:
    """The template with everything in its place; weights, digits and judge are packed."""
    name = f"{run['model']} {run['name']}"
    return (
        Template(_text("explorer.html"))
        .substitute(
            title=html.escape(name),
            style=_text("explorer.css"),
            run=json.dumps(run, separators=(",", ":")).replace("<", "\\u003c"),  # a name must not end the script
            weights=weights,
            judge=judge,
            digits=digits,
            scripts="\n".join(_text(script) for script in SCRIPTS),
        )
        .encode()
    )


def _text(name: str) -> str:
    return resources.files("scratchgen.explorer").joinpath(name).read_text("utf-8")


def _colours() -> list[str]:
    from scratchgen.figures import COLOURS  # imported here: matplotlib takes half a second to import

    return COLOURS


def _rounded(numbers: np.ndarray) -> Any:
    """Lists of numbers with four significant digits."""
    if numbers.ndim > 1:
        return [_rounded(row) for row in numbers]
    return [float(f"{number:.4g}") for number in numbers]


def _of_each_class(labels: np.ndarray) -> list[int]:
    """The places of the first digits of each class, all first ones before all second ones."""
    firsts = [np.flatnonzero(labels == label)[:DIGITS_A_CLASS] for label in range(len(DIGITS))]
    return [int(places[i]) for i in range(DIGITS_A_CLASS) for places in firsts if i < len(places)]


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
