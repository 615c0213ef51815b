"""Disentanglement on strokes, digits drawn by a program from known factors: beta-VAEs, and codes of style.

    python demos/papers/disentanglement.py beta-vae-1                some minutes on a core, as each row
    python demos/papers/disentanglement.py beta-vae-4
    python demos/papers/disentanglement.py conditional-beta-vae-1    encoder and decoder are given the digit
    python demos/papers/disentanglement.py conditional-beta-vae-4
    python demos/papers/disentanglement.py conditional-beta-vae-8
    python demos/papers/disentanglement.py supervised-aae            the decoder is given the digit
    python demos/papers/disentanglement.py ROW --quick               less than half a minute

An image of strokes is made of a digit and of seven factors: slant, rotation, height, aspect, width, dx and dy. Codes
have four dimensions and are drawn from q(z|x), of 10,000 images drawn for this. A row gives, over three seeds, the mean
and the standard deviation of:

- the mutual information gap (Chen et al. 2018, equation 6), averaged over the seven: by how much the dimension of the
  code that tells most of a factor tells more than the next, as a share of the factor's entropy;
- R², averaged over the seven: the share of a factor's variance that a linear function of the codes predicts;
- the digits that a linear classifier of the codes gets right: by chance a tenth;
- smoothness: how much nearer the picture of a code half-way between two comes to the digit with all factors half-way
  than the two images faded into one another do: 1 is that digit, 0 is no nearer (codes are means of q(z|x) here);
- the mean squared error a pixel of reconstructions.

Each command prints the first two for each factor, and the path of a picture: what each dimension of a VAE's code
changes, or the styles of an AAE in each digit. No paper has figures for strokes, so the rows compare with each other.

A code that has to tell the digit tells little else, whatever beta is. Where the networks are given the digit, it tells
of style, and with a beta of 4 or 8 the gap is wider and the error larger; but the gaps of beta 1 and 4 are only about
two standard errors apart, and most of the gap is that of slant. The AAE's codes still tell some digits, with the digit
given to the decoder: its adversary compares the codes of all digits together with the prior, not those of each digit.
The divergence in a VAE's loss is a price for all that a code tells. No decoder moves strokes far: half-way between two
codes only the conditional VAEs with a beta of 1 or 4 come nearer to the digit half-way than a cross-fade, by little.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from reproduce import Figure, command, options, record, trained

from scratchgen import figures, runs
from scratchgen.data.strokes import FACTORS, Strokes, draw_strokes
from scratchgen.evaluation.factors import linear_accuracy, linear_predictability, mutual_information_gap, smoothness
from scratchgen.random import stream
from scratchgen.recipes import RECIPES, RunConfig, aae, vae

MEASURE = "Disentanglement on strokes: mutual information gap and R² of factors, digits told, smoothness, error a pixel"
SEEDS, IMAGES, DRAWN_BY = (0, 1, 2), 10_000, 1  # seeds of the trainings, images, the seed that draws them
STEPS = np.linspace(-2.5, 2.5, 11)


def beta_vae(beta: float, conditional: bool = False) -> RunConfig:
    """A beta-VAE (Higgins et al. 2017) of the AAE's size.

    beta rises over half of the epochs: from the beginning a large one keeps codes at the prior, and the error is larger
    at the end.
    """
    config, size = RECIPES["vae"].configs["pytorch-example"], RECIPES["aae"].configs["supervised"].network
    network = replace(
        config.network,
        latent_dim=size.latent_dim,
        encoder_hidden=size.encoder_hidden,
        decoder_hidden=size.decoder_hidden,
        conditional=conditional,
    )
    training = replace(config.training, beta=beta, beta_warmup=15, lr=2e-3, schedule="cosine")
    return replace(config, network=network, training=training, data="strokes", epochs=30)


def row(what: str, config: RunConfig) -> tuple[Figure, RunConfig]:
    """A row of the table, for which there is nothing to compare with but the other rows."""
    return Figure(MEASURE, what, "no published figure", "the gap: Chen et al. 2018, equation 6"), config


ROWS: dict[str, tuple[Figure, RunConfig]] = {
    "beta-vae-1": row("VAE", beta_vae(1)),
    "beta-vae-4": row("beta-VAE, beta = 4", beta_vae(4)),
    "conditional-beta-vae-1": row("conditional VAE", beta_vae(1, conditional=True)),
    "conditional-beta-vae-4": row("conditional beta-VAE, beta = 4", beta_vae(4, conditional=True)),
    "conditional-beta-vae-8": row("conditional beta-VAE, beta = 8", beta_vae(8, conditional=True)),
    "supervised-aae": row(
        "adversarial autoencoder whose decoder is given the digit",
        replace(RECIPES["aae"].configs["supervised"], data="strokes", epochs=20),
    ),
}


def draws(config: RunConfig, model: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draws (n, J) of q(z|x) of images (n, D) with labels (n,)."""
    found = RECIPES[config.model].encode(config, model, images, labels)
    if "logvar" not in found:
        return found["codes"]
    noise = stream(config.seed, "final evaluation").standard_normal(found["codes"].shape)
    return found["codes"] + np.exp(found["logvar"] / 2) * noise


def half_way(config: RunConfig, model: Any, drawn: Strokes) -> float:
    """The smoothness of a model between digits and the same digits with other factors, both as ``drawn``."""
    n, others = len(drawn.images), draw_strokes(len(drawn.images), rng=2).factors
    other = draw_strokes(n, DRAWN_BY, factors={name: others[name] for name in FACTORS})
    between = draw_strokes(n, DRAWN_BY, factors={name: (drawn.factors[name] + others[name]) / 2 for name in FACTORS})
    codes = [RECIPES[config.model].encode(config, model, each.images, each.labels)["codes"] for each in (drawn, other)]
    decode = {"vae": vae.decode, "aae": aae.decode}[config.model]
    return smoothness(decode(model, sum(codes) / 2, drawn.labels), between.images, drawn.images, other.images)


def measured(config: RunConfig, model: Any, drawn: Strokes) -> dict[str, Any]:
    """The measures of a model on drawn digits, the first two by factor."""
    codes = draws(config, model, drawn.images, drawn.labels)
    pictures = RECIPES[config.model].reconstruct(config, model, drawn.images, drawn.labels)
    return {
        "gap": {name: mutual_information_gap(codes, drawn.factors[name]) for name in FACTORS},
        "r_squared": {name: linear_predictability(codes, drawn.factors[name]) for name in FACTORS},
        "digits_told": linear_accuracy(codes, drawn.labels),
        "smoothness": half_way(config, model, drawn),
        "reconstruction_mse": float(np.mean((pictures - drawn.images) ** 2, dtype=np.float64)),
    }


def traversed(code: np.ndarray) -> np.ndarray:
    """Codes (J * 11, J): a code (J,) with one dimension after the other replaced by each of ``STEPS``."""
    codes = np.tile(code, (len(code), len(STEPS), 1))
    for j, line in enumerate(codes):
        line[:, j] = STEPS
    return codes.reshape(-1, len(code))


def pictured(config: RunConfig, model: Any, drawn: Strokes, folder: Path) -> Path:
    """The picture of a VAE's code, that of the first digit, in ``folder``."""
    codes = RECIPES["vae"].encode(config, model, drawn.images[:1], drawn.labels[:1])["codes"]
    around = traversed(codes[0])
    pictures = vae.decode(model, around, np.repeat(drawn.labels[:1], len(around)))
    title = f"each row one dimension of the code, from {STEPS[0]} to {STEPS[-1]}; beta = {config.training.beta:g}"
    return figures.save_samples(folder / "traversals.png", pictures, columns=len(STEPS), title=title)


def by_factor(found: list[dict[str, Any]], measure: str) -> dict[str, float]:
    """A measure of each factor, "gap" or "r_squared": its mean over the seeds."""
    return {name: float(np.mean([each[measure][name] for each in found])) for name in FACTORS}


def in_words(found: list[dict[str, Any]]) -> str:
    """The measures of each seed: their means and, of several seeds, their standard deviations."""

    def words(values: list[float], digits: int) -> str:
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    gap, r_squared = ([np.mean(list(each[name].values())) for each in found] for name in ("gap", "r_squared"))
    told, smooth, error = (
        [each[name] for each in found] for name in ("digits_told", "smoothness", "reconstruction_mse")
    )
    return (
        f"gap {words(gap, 3)}; R² {words(r_squared, 2)}; digits {words(told, 2)}; smoothness {words(smooth, 2)}; "
        f"error {words(error, 4)}"
    )


def main() -> None:
    """Train, measure, draw, record."""
    given = options("How codes relate to the factors that digits are drawn from.", ROWS)
    figure, config = ROWS[given.row]
    if given.quick:
        config = replace(config, network=replace(config.network, encoder_hidden=(64,), decoder_hidden=(64,)), epochs=1)
    drawn, seconds, found = draw_strokes(IMAGES, DRAWN_BY), 0.0, []
    for seed in SEEDS[: 1 if given.quick else None]:
        folder = given.out / f"seed-{seed}"
        seconds += trained(replace(config, seed=seed), folder)["seconds"]
        trained_as, model = runs.load_model(folder)
        found.append(measured(trained_as, model, drawn))
    gap, r_squared = by_factor(found, "gap"), by_factor(found, "r_squared")
    print("factor     gap    R²", *(f"{name:8} {gap[name]:6.3f} {r_squared[name]:5.2f}" for name in FACTORS), sep="\n")
    print(pictured(trained_as, model, drawn, folder) if config.model == "vae" else folder / "styles.png")
    if given.quick:
        print(f"test: {in_words(found)}")
        return
    most = max(gap, key=lambda name: gap[name])
    note = f"{config.epochs} epochs; most of {most}: gap {gap[most]:.3f}, R² {r_squared[most]:.2f}"
    numbers = {f"seed {seed}": each for seed, each in zip(SEEDS, found, strict=True)}
    record(given.row, figure, in_words(found), numbers, seconds, f"{SEEDS[0]} to {SEEDS[-1]}", note)


if __name__ == "__main__":
    command(main)
