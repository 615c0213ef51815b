"""A run from its configuration to its summary: what the command line and the demos call."""

import hashlib
import json
import math
import platform
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import numba
import numpy as np

import kernels
from scratchgen import checkpoint
from scratchgen.data import SOURCES, Dataset, load_dataset
from scratchgen.data.mnist import missing_files
from scratchgen.data.pixels import binarized, describe
from scratchgen.errors import UserError
from scratchgen.evaluation import evaluate_vae, latent_means
from scratchgen.models.vae import VAE, VAEConfig, VAETask, VAETraining, load_parameters
from scratchgen.tensor import Tensor, no_grad
from scratchgen.training import Trainer, stream
from scratchgen.version import __version__

IW_SAMPLES, NLL_IMAGES = 500, 1000  # of the summary: L_500 over the first 1,000 test images


@dataclass(frozen=True)
class RunConfig:
    """All that makes a run: two of one configuration have the same bits, on one machine and number of BLAS threads."""

    name: str
    network: VAEConfig
    training: VAETraining
    epochs: int
    batch_size: int
    data: str = "auto"
    seed: int = 0
    kernels: str = "cpu"
    model: str = "vae"
    data_dir: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needs = {"epochs >= 1": self.epochs >= 1, "batch_size >= 1": self.batch_size >= 1, "seed >= 0": self.seed >= 0}
        for need, met in needs.items():
            if not met:
                raise ValueError(f"{need} is needed")
        if self.data not in SOURCES:
            raise ValueError(f"data {self.data!r} is not one of {', '.join(SOURCES)}")
        if self.kernels not in kernels.SETS:
            raise ValueError(f"kernels {self.kernels!r} is not one of {', '.join(kernels.SETS)}")

    def fingerprint(self) -> str:
        """A digest of all that makes the bits of training: a checkpoint fits no configuration of another one."""
        content = asdict(self)
        made_of = {name: content[name] for name in ("network", "training", "seed", "batch_size", "data", "kernels")}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "RunConfig":
        """The configuration out of ``config.json``; ValueError, TypeError and the like if it is not one."""
        network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["network"].items()}
        parts = {"network": _build(VAEConfig, network), "training": _build(VAETraining, content["training"])}
        return _build(cls, {**content, **parts})


def _build(kind: Any, content: dict[str, Any]) -> Any:
    """``kind(**content)``. TypeError if a value is not what its field declares: a file may hold anything."""
    for name, declared in get_type_hints(kind).items():
        if name in content and not _fits(content[name], declared):
            raise TypeError(f"{name} cannot be {content[name]!r}")
    return kind(**content)


def _fits(value: Any, declared: Any) -> bool:
    if declared is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if get_origin(declared) is tuple:
        return isinstance(value, tuple) and all(isinstance(size, int) for size in value)
    return isinstance(value, dict if get_origin(declared) is dict else declared)


VAE_CONFIGS = {
    # The example of the PyTorch repository, whose loss so many people have seen.
    "pytorch-example": RunConfig(
        "pytorch-example", VAEConfig(initializer="fan_in_uniform"), VAETraining(), epochs=10, batch_size=128
    ),
    # J. H. Metzen's variational autoencoder in TensorFlow; with --latent-dim 2 for its scatter and manifold (L21).
    "metzen": RunConfig(
        "metzen",
        VAEConfig(encoder_hidden=(500, 500), decoder_hidden=(500, 500), activation="softplus"),
        VAETraining(),
        epochs=20,
        batch_size=100,
    ),
    # The one-layer VAE of Burda et al. 2015, with its initialisation and binarisation. Its schedule ("tripling") is
    # made for 3,280 epochs; in minutes, three times the learning rate and half a cosine get further.
    "iwae": RunConfig(
        "iwae",
        VAEConfig(latent_dim=50, encoder_hidden=(200, 200), decoder_hidden=(200, 200), activation="tanh"),
        VAETraining(lr=3e-3, schedule="cosine", binarize="dynamic", output_bias=True),
        epochs=150,
        batch_size=100,
    ),
}

# (configuration, data, pixels) to what a test image costs, in nats, after the configuration's epochs, over two seeds or
# three. See README.md.
EXPECTED = {
    ("pytorch-example", "mnist", "none"): "neg_elbo 105 to 106.5",
    ("pytorch-example", "strokes", "none"): "neg_elbo 93 to 94.5",
    ("metzen", "mnist", "none"): "neg_elbo 100 to 102",
    ("iwae", "mnist", "dynamic"): "neg_elbo about 93, nll about 88",
}


def versions() -> dict[str, str]:
    """Of what a run's bits depend on besides its configuration."""
    return {
        "scratchgen": __version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
    }


def start(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train a new run in ``folder``; returns its summary."""
    if config.data_dir is not None:
        config = replace(config, data_dir=str(Path(config.data_dir).absolute()))
    data = load_dataset(config.data, Path(config.data_dir) if config.data_dir else None)
    config = replace(config, data=data.name, versions=versions())
    model, trainer = _prepare(config, data, folder)  # first, so that what cannot be trained leaves no folder
    checkpoint.create_run(folder, asdict(config))
    return _train(config, model, trainer)


def resume(folder: Path, epochs: int | None = None, data_dir: Path | None = None) -> dict[str, Any]:
    """Continue the run in ``folder``, to its own number of epochs or to more; returns its summary."""
    config = before = load_config(folder)
    if data_dir is not None:
        config = replace(config, data_dir=str(data_dir.absolute()))
    if epochs is not None and epochs < config.epochs:
        raise UserError(f"{folder} is a run of {config.epochs} epochs; --epochs can only add to them")
    config = replace(config, epochs=epochs or config.epochs)
    model, trainer = _prepare(config, load_data(config, folder, data_dir), folder, resume=True)
    schedule = config.training.schedule
    if config.epochs > before.epochs and schedule != "constant":
        print(
            f"{before.epochs} epochs become {config.epochs}: the {schedule} schedule is stretched over all of them, "
            "and the learning rate rises again",
            file=sys.stderr,
        )
    checkpoint.sweep(folder)
    if config != before:
        checkpoint.write_json(folder / "config.json", {"format": checkpoint.FORMAT, **asdict(config)})
    return _train(config, model, trainer)


def load_config(folder: Path) -> RunConfig:
    """The configuration of the run in ``folder``."""
    content = checkpoint.read_config(folder)
    try:
        return RunConfig.from_json(content)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder / 'config.json'}: not a configuration of this version ({error})") from None


def load_model(folder: Path) -> tuple[RunConfig, VAE]:
    """The trained model of the run in ``folder``, from its checkpoint alone."""
    config = load_config(folder)
    model = _model(config)
    arrays, progress = checkpoint.load_checkpoint(folder / "checkpoint.safetensors")
    try:
        load_parameters(model, arrays)
        if progress["fingerprint"] != config.fingerprint():
            raise ValueError("it was made with other settings")
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder}: its checkpoint does not fit its config.json: {error}") from None
    return config, model


def load_data(config: RunConfig, folder: Path, data_dir: Path | None = None) -> Dataset:
    """The data of the run in ``folder``, out of ``data_dir`` or else of the folder that its ``config.json`` names."""
    recorded = Path(config.data_dir) if config.data_dir else None
    if data_dir is None and recorded and config.data == "mnist" and missing_files(recorded):
        raise UserError(
            f"{folder / 'config.json'} names the data's folder {config.data_dir!r}, and MNIST is not there (any more); "
            "say by --data-dir where it is"
        )
    return load_dataset(config.data, data_dir or recorded)


def test_images(config: RunConfig, data: Dataset) -> np.ndarray:
    """The test images (n, D) as the model sees pixels; those already binarised stay as they are."""
    binarize = config.training.binarize
    return data.test.images if binarize == "none" else binarized(data.test.images, stream(config.seed, "pixels", 1))


def evaluate(
    config: RunConfig, model: VAE, data: Dataset, iw_samples: int = IW_SAMPLES, limit: int | None = None
) -> dict[str, Any]:
    """The metrics of the summary's ``test``, over the first ``limit`` test images."""
    images = test_images(config, data)[:limit]
    rng = stream(config.seed, "evaluation", 10**6)  # a stream that no epoch uses
    return evaluate_vae(model, images, rng, iw_samples, min(NLL_IMAGES, len(images)) if limit is None else limit)


def sample(model: VAE, n: int, rng: np.random.Generator) -> np.ndarray:
    """Mean pictures (n, D) of n draws from the prior."""
    noise = rng.standard_normal((n, model.config.latent_dim), dtype=model.dtype.type)
    with no_grad():
        return model.mean(Tensor.wrap(noise)).data


def reconstruct(model: VAE, images: np.ndarray) -> np.ndarray:
    """Mean pictures (n, D) of the codes' means of images (n, D)."""
    with no_grad():
        return model.mean(model.encode(Tensor(images, dtype=model.dtype))[0]).data


def _model(config: RunConfig) -> VAE:
    try:
        return VAE(config.network, stream(config.seed, "parameters"))
    except (ValueError, OverflowError) as error:
        raise UserError(f"there is no such network: {error}") from None


def _prepare(config: RunConfig, data: Dataset, folder: Path, resume: bool = False) -> tuple[VAE, Trainer]:
    pixels = data.train.images.shape[1]
    if pixels != config.network.input_dim:
        raise UserError(f"{data.name} has images of {pixels} pixels, and the network takes {config.network.input_dim}")
    if config.training.binarize == "static":
        train = replace(data.train, images=binarized(data.train.images, stream(config.seed, "pixels", 0)))
        data = replace(data, train=train, test=replace(data.test, images=test_images(config, data)))
    model = _model(config)
    if config.training.output_bias:
        model.set_output_bias(data.train.images.mean(axis=0))
    task = VAETask(model, config.training, math.ceil(len(data.train) / config.batch_size), config.epochs)
    trainer = Trainer(
        task,
        data,
        folder,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        fingerprint=config.fingerprint(),
        resume=resume,
    )
    return model, trainer


def _train(config: RunConfig, model: VAE, trainer: Trainer) -> dict[str, Any]:
    data, folder = trainer.data, trainer.folder
    with kernels.use(config.kernels):
        history = trainer.run()
        print(f"measuring L_{IW_SAMPLES} on {min(NLL_IMAGES, len(data.test)):,} test images", flush=True)
        summary = {
            "model": config.model,
            "config": config.name,
            "data": data.name,
            "pixels": describe(config.training.binarize, config.network.likelihood),
            "epochs": config.epochs,
            "seconds": round(history[-1]["seconds"], 1),
            "test": evaluate(config, model, data, IW_SAMPLES),
        }
        checkpoint.write_json(folder / "summary.json", summary)
        draw(config, model, data, history, folder)
    return summary


def expectation(config: RunConfig, summary: dict[str, Any]) -> str | None:
    """What others see for this configuration, if it was left as it is: an answer to "is this loss normal?"."""
    named = VAE_CONFIGS.get(config.name)
    same = named is not None and (named.network, named.training, named.epochs, named.batch_size) == (
        config.network,
        config.training,
        config.epochs,
        config.batch_size,
    )
    return EXPECTED.get((config.name, summary["data"], config.training.binarize)) if same else None


def draw(config: RunConfig, model: VAE, data: Dataset, history: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The figures of a run; the manifold and the scatter only where the code has two dimensions."""
    from scratchgen import figures  # matplotlib takes half a second to import: only those who draw wait for it

    images, shape = test_images(config, data), data.image_shape
    draws = sample(model, 100, stream(config.seed, "samples"))
    paths = [
        figures.save_samples(folder / "samples.png", draws, shape),
        figures.save_reconstructions(
            folder / "reconstructions.png", images[:20], reconstruct(model, images[:20]), shape
        ),
        figures.save_loss_curves(folder / "losses.png", history),
    ]
    if config.network.latent_dim == 2:
        codes = latent_means(model, images)
        paths.append(figures.save_latent_scatter(folder / "latent.png", codes, data.test.labels))
        with no_grad():
            grid = model.mean(Tensor(figures.normal_quantile_grid(20), dtype=model.dtype)).data
        paths.append(figures.save_manifold(folder / "manifold.png", grid, 20, 20, shape))
    return paths
