"""Images through trained runs: those of the data, or pictures of one's own."""

import argparse
import io
import sys
from typing import Any

import numpy as np

import kernels
from scratchgen import runs
from scratchgen.checkpoint import write_whole
from scratchgen.commands.output import require_suffix, write
from scratchgen.data.dataset import UNLABELLED, Split
from scratchgen.data.pictures import digit_of, read_grey
from scratchgen.errors import UserError
from scratchgen.recipes import RECIPES, RunConfig

MOST_PICTURED = 1000  # images in a picture: more take minutes to draw and are too small to see
SHOWN = 20  # test images beside their reconstructions


def encode(options: argparse.Namespace) -> int:
    """Write the codes of images."""
    out = options.out or options.run / ("own-codes.npz" if options.image else "codes.npz")
    require_suffix(out, ".npz")
    config, model = runs.load_model(options.run)
    images, archive = _chosen(options, config, options.split), io.BytesIO()
    with kernels.use(config.kernels):
        arrays: dict[str, Any] = RECIPES[config.model].encode(config, model, images.images, images.labels)
    if options.image:
        arrays["files"] = np.array([str(path) for path in options.image])
    if (images.labels != UNLABELLED).any():
        arrays["labels"] = images.labels
    if config.classes:
        arrays["classes"] = np.array(config.classes)
    np.savez(archive, **arrays)
    write(out, lambda: write_whole(out, archive.getvalue()), (".npz",))
    return 0


def reconstruct(options: argparse.Namespace) -> int:
    """Show images beside their reconstructions."""
    from scratchgen.figures import save_pairs

    fits_a_picture(len(options.image or ()) or options.n)
    config, model = runs.load_model(options.run)
    images = _chosen(options, config, "test", options.n)
    with kernels.use(config.kernels):
        found = RECIPES[config.model].reconstruct(config, model, images.images, images.labels)
    out = options.out or options.run / ("own-reconstructed.png" if options.image else "reconstructed.png")
    write(out, lambda: save_pairs(out, images.images, found, config.image_shape))
    return 0


def label_of(config: RunConfig, class_name: str | None) -> int | None:
    """The label of the class of that name in the run's data, None for none. UserError if there is no such class."""
    if class_name is None:
        return None
    if class_name not in config.classes:
        known = ", ".join(config.classes) or "none: its data have no labels"
        raise UserError(f"the run has no class {class_name!r}; its classes are {known}")
    return config.classes.index(class_name)


def fits_a_picture(n: int) -> None:
    """UserError for too many images."""
    if n > MOST_PICTURED:
        raise UserError(
            f"a picture holds at most {MOST_PICTURED} images, not {n}; `sample --out FILE.npy` takes any number"
        )


def _chosen(options: argparse.Namespace, config: RunConfig, split: str, n: int | None = None) -> Split:
    """The pictures given with --image, or the first ``n`` images of a split, as the model sees pixels."""
    recipe = RECIPES[config.model]
    if options.image:
        own = _pictures(options, config)
        return Split(recipe.as_seen(config, own.images, None), own.labels)
    if options.class_names or options.background:
        raise UserError("--class and --background are for pictures given with --image")
    data = runs.load_data(config, options.run, options.data_dir)
    part = data.train if split == "train" else data.test
    return Split(recipe.as_seen(config, part.images, split)[:n], part.labels[:n])


def _pictures(options: argparse.Namespace, config: RunConfig) -> Split:
    """The pictures given with --image, made like the data's, and their labels. Of each found background a notice."""
    height, width = config.image_shape
    images = []
    if options.background and not config.centred:
        raise UserError("--background is for images like MNIST's; pictures for this run are taken as they are")
    for path in options.image:
        picture = read_grey(path)
        if config.centred:
            image, background = digit_of(picture, options.background)
            if not image.any():
                brighter = {"light": " as darker", "dark": " as lighter"}.get(options.background, "")
                raise UserError(
                    f"{path}: nothing found that stands out{brighter}; it needs a margin and an even background"
                )
            if not options.background:
                drawn = "dark" if background == "light" else "light"
                print(f"{path}: {drawn} on {background}, by its edge (or say --background)", file=sys.stderr)
        elif picture.shape == config.image_shape:
            image = np.divide(picture, 255, dtype=np.float32)
        else:
            sizes = f"{picture.shape[0]} by {picture.shape[1]} pixels, and the run's images {height} by {width}"
            raise UserError(f"{path} has {sizes}; only images like MNIST's are scaled: make it that size")
        images.append(image.ravel())
    names = options.class_names or ()
    network = config.network
    if names and not (getattr(network, "conditional", False) or getattr(network, "labels_for", None) == "decoder"):
        raise UserError("the run's networks take no labels of images to encode or reconstruct; leave --class out")
    if len(names) not in (0, 1, len(images)):
        raise UserError(f"there are {len(images)} pictures and {len(names)} classes; give one --class for all, or each")
    labels = [label_of(config, name) for name in names] * (len(images) if len(names) == 1 else 1)
    return Split(np.stack(images), np.array(labels or [UNLABELLED] * len(images), np.int64))
