"""The VAE's recipe: named configurations, evaluation, figures."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scratchgen.data import Dataset
from scratchgen.data.pixels import describe
from scratchgen.errors import UserError
from scratchgen.evaluation.decoder import Decoder, vae_decoder
from scratchgen.evaluation.likelihood import evaluate_vae, posteriors
from scratchgen.inference import in_batches
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.nn import Sequential
from scratchgen.priors import Gaussian
from scratchgen.random import RandomStream, stream
from scratchgen.recipes.binarizing import BinarizingRecipe
from scratchgen.recipes.recipe import (
    Explorable,
    RunConfig,
    by_class,
    named,
    require_each_label,
    require_labels,
    sample_labels,
    walk_classes,
)
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.training import Selection

ROWS = 1_000  # codes decoded at a time
IW_SAMPLES, NLL_IMAGES = 500, 1000  # of the summary: L_500 over the first 1,000 test images


class VAERecipe(BinarizingRecipe):
    """Variational autoencoders."""

    model = "vae"
    network, training = VAEConfig, VAETraining
    configs: ClassVar = named(
        # The VAE of PyTorch's examples, whose loss is widely known.
        RunConfig(
            "vae",
            "pytorch-example",
            VAEConfig(initializer="fan_in_uniform"),
            VAETraining(),
            epochs=10,
            batch_size=128,
        ),
        # J. H. Metzen's variational autoencoder in TensorFlow; with --latent-dim 2 for its scatter and manifold (L21).
        RunConfig(
            "vae",
            "metzen",
            VAEConfig(encoder_hidden=(500, 500), decoder_hidden=(500, 500), activation="softplus"),
            VAETraining(),
            epochs=20,
            batch_size=100,
        ),
        # The one-layer VAE of Burda et al. 2015, with its initialisation and binarisation. Its schedule ("tripling") is
        # for 3,280 epochs; in minutes, three times the learning rate with a cosine schedule gets further.
        RunConfig(
            "vae",
            "iwae",
            VAEConfig(latent_dim=50, encoder_hidden=(200, 200), decoder_hidden=(200, 200), activation="tanh"),
            VAETraining(lr=3e-3, schedule="cosine", binarize="dynamic", output_bias=True),
            epochs=150,
            batch_size=100,
        ),
        # Two convolutions on the way to the code and two on the way back, on pixels binarised anew for each batch. With
        # the importance-weighted bound of five draws the nll is 1.7 nats lower after eight epochs than with the ELBO.
        RunConfig(
            "vae",
            "conv",
            VAEConfig(
                latent_dim=40,
                encoder_hidden=(256,),
                decoder_hidden=(256,),
                encoder_channels=(32, 64),
                decoder_channels=(64, 32),
                initializer="he_normal",
            ),
            VAETraining(objective="iwae", samples=5, lr=3e-3, schedule="cosine", binarize="dynamic", output_bias=True),
            epochs=60,
            batch_size=100,
        ),
    )
    # Nats per test image.
    expected: ClassVar = {
        ("pytorch-example", "mnist"): "neg_elbo 105 to 106.5",
        ("pytorch-example", "strokes"): "neg_elbo 93 to 94.5",
        ("metzen", "mnist"): "neg_elbo 100 to 102",
        ("iwae", "mnist"): "neg_elbo about 93, nll about 88",
        ("conv", "mnist"): "neg_elbo about 93, nll about 84",
    }

    def pixels(self, config: RunConfig) -> str:
        """The pixels that the model sees, in words."""
        return describe(config.training.binarize, config.network.likelihood)

    def selection(self, config: RunConfig) -> Selection:
        """The bound that training maximises."""
        return Selection(("neg_elbo" if config.training.objective == "elbo" else "neg_iwae",))

    def build(self, config: RunConfig) -> VAE:
        """A new VAE."""
        return VAE(config.network, stream(config.seed, "parameters"))

    def task(self, config: RunConfig, model: VAE, data: Dataset) -> VAETask:
        """The VAE in training. UserError for images without a label if it is conditional."""
        if config.network.conditional:
            require_labels(data.train, config.network.classes)
        if config.training.output_bias:
            model.set_output_bias(data.train.images.mean(axis=0))
        steps_per_epoch = math.ceil(len(data.train) / config.batch_size)
        random = RandomStream(stream(config.seed, "noise"))
        return VAETask(model, config.training, random, steps_per_epoch, config.epochs)

    def evaluate(
        self, config: RunConfig, model: VAE, data: Dataset, limit: int | None = None, iw_samples: int | None = None
    ) -> dict[str, Any]:
        """The bound over the first ``limit`` test images, and L_K; without a limit, L_K over ``NLL_IMAGES``.

        Of a conditional VAE they bound log p(x|y), given the images' labels.
        """
        images, iw_samples = self.as_seen(config, data.test.images, "test")[:limit], iw_samples or IW_SAMPLES
        nll_images = min(NLL_IMAGES, len(images)) if limit is None else limit
        rng = stream(config.seed, "final evaluation")
        return evaluate_vae(model, images, rng, iw_samples, nll_images, data.test.labels[:limit])

    def decoder(self, config: RunConfig, model: VAE, sigma: float | None) -> Decoder:
        """The decoder. UserError for the likelihood "gaussian" without ``sigma``: its variance is not fixed."""
        if sigma is None and config.network.likelihood == "gaussian":
            raise UserError("the likelihood gaussian has a variance for every pixel, so --ais needs --sigma")
        return vae_decoder(model, sigma)

    def report(self, config: RunConfig, test: dict[str, Any]) -> str:
        """The terms of the bound, the likelihood, the active units."""
        given = " given its label" if config.network.conditional else ""
        return (
            f"test, nats an image{given}: neg_elbo {test['neg_elbo']:.2f} = "
            f"reconstruction {test['reconstruction']:.2f} + kl {test['kl']:.2f};  "
            f"nll {test['nll']:.2f} (L_{test['iw_samples']}, {test['nll_images']} images);  "
            f"{test['active_units']} of {config.network.latent_dim} latent units active"
        )

    def sample(
        self, config: RunConfig, model: VAE, n: int, rng: np.random.Generator, label: int | None = None
    ) -> np.ndarray:
        """The decoder's means (n, D) for n draws from the prior, and ``label`` or uniform labels if it takes them."""
        labels = sample_labels(model, n, rng, label)
        return decode(model, _codes(model, n, rng), labels)

    def walk(
        self,
        config: RunConfig,
        model: VAE,
        frames: int,
        waves: int,
        rng: np.random.Generator,
        label: int | None = None,
    ) -> np.ndarray:
        """The decoder's means (frames, D) along a closed path through N(0, I)."""
        classes = walk_classes(model, frames, label)
        return _means(model, Gaussian(config.network.latent_dim).loop(frames, waves, rng), classes)

    def encode(self, config: RunConfig, model: VAE, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """``codes`` and ``logvar`` (n, J): the means of q(z|x) and the logarithms of its variances."""
        if config.network.conditional:
            require_each_label(labels)
        mu, logvar = posteriors(model, images, labels)
        return {"codes": mu, "logvar": logvar}

    def reconstruct(self, config: RunConfig, model: VAE, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The decoder's means (n, D) for the posterior means of images (n, D)."""
        return decode(model, self.encode(config, model, images, labels)["codes"], labels)

    def explorable(self, config: RunConfig, model: VAE, data: Dataset) -> Explorable:
        """Both networks, and the posterior means of the test images."""
        images, network = self.as_seen(config, data.test.images, "test"), config.network
        codes, _ = posteriors(model, images, data.test.labels)
        networks = {
            "images": Sequential(),
            "encoder": model.encoder,
            "mean": model.encoder_mu,
            "logvar": model.encoder_logvar,
            "decoder": model.decoder,
            "output": model.decoder_out,
        }
        if network.likelihood == "gaussian":
            networks["pixel_logvar"] = model.decoder_logvar
        facts = {
            "posterior": "gaussian",
            "encoderClasses": classes_beside(network),
            "decoderClasses": network.conditional,
            "decoderGives": "logits" if network.likelihood == "bernoulli" else "means",
            "likelihood": network.likelihood,
            "sigma": network.sigma,
            "sigmaFloor": network.sigma_floor,
            "binary": config.training.binarize != "none",
        }
        return Explorable(networks, Gaussian(network.latent_dim), codes.var(axis=0), facts, images, codes)

    def draw(
        self, config: RunConfig, model: VAE, data: Dataset, history: list[dict[str, Any]], folder: Path
    ) -> list[Path]:
        """The figures of a run: of two-dimensional codes also the scatter plot, and the manifold unless conditional.

        The samples of a conditional VAE have a code each row and a class each column.
        """
        from scratchgen import figures  # imported here: matplotlib takes half a second to import

        images, shape = self.as_seen(config, data.test.images, "test"), data.image_shape
        rng, conditional = stream(config.seed, "samples"), config.network.conditional
        if conditional:
            columns = config.network.classes
            samples = decode(model, *by_class(_codes(model, 10, rng), columns))
        else:
            columns, samples = 10, self.sample(config, model, 100, rng)
        reconstructions = self.reconstruct(config, model, images[:20], data.test.labels[:20])
        paths = [
            figures.save_samples(folder / "samples.png", samples, shape, columns),
            figures.save_pairs(folder / "reconstructions.png", images[:20], reconstructions, shape),
            figures.save_loss_curves(folder / "losses.png", history),
        ]
        if config.network.latent_dim == 2:
            codes, _ = posteriors(model, images, data.test.labels)
            labels = data.test.labels if data.classes else None
            paths.append(figures.save_latent_scatter(folder / "latent.png", codes, labels, classes=data.classes))
            if not conditional:
                grid = decode(model, Gaussian(2).walk(20, 20))
                paths.append(figures.save_manifold(folder / "manifold.png", grid, 20, 20, shape))
        return paths


def classes_beside(network: VAEConfig) -> str | None:
    """How the encoder takes classes, in the words of ``explorer/models.js``; None if it takes none."""
    if not network.conditional:
        return None
    return "beside each pixel" if network.encoder_channels else "beside the pixels"


def decode(model: VAE, codes: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """The decoder's means (n, D) of codes (n, J) and of labels (n,), which are used only if it takes them."""
    return _means(model, codes, model.labels_given(labels))


def _means(model: VAE, codes: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """The decoder's means (n, D) of codes (n, J) and, if it takes them, classes (n, C)."""
    given = [codes] if classes is None else [codes, classes]
    return in_batches(lambda *rows: (model.mean(*rows),), *given, size=ROWS, dtype=model.dtype)[0]


def _codes(model: VAE, n: int, rng: np.random.Generator) -> np.ndarray:
    """n draws z (n, J) from the prior."""
    return rng.standard_normal((n, model.config.latent_dim), dtype=model.dtype.type)
