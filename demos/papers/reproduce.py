"""What the scripts of this folder share: their options, and how a reproduced figure is recorded."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scratchgen import runs
from scratchgen.checkpoint import write_json, write_whole
from scratchgen.data import Dataset, load_dataset
from scratchgen.errors import UserError
from scratchgen.profile import processor
from scratchgen.recipes import RunConfig
from scratchgen.training import Interrupted

RESULTS = Path(__file__).parent / "results"
TRAINING = 50_000  # the first training images; the others validate


@dataclass(frozen=True)
class Figure:
    """A published figure, and how to name it.

    Attributes
    ----------
    measure : str
        The scale on which it compares with others: a heading of the table.
    what : str
        The model and the protocol.
    paper : str
        The figure, with its standard error where there is one.
    source : str
        Author, year and table.
    """

    measure: str
    what: str
    paper: str
    source: str


def options(description: str, rows: Iterable[str]) -> argparse.Namespace:
    """The command line of a script: the row, ``--quick``, ``--out`` and the data folder."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("row", choices=list(rows), help="which figure")
    parser.add_argument("--quick", action="store_true", help="a minute of it, to see it work; nothing is recorded")
    parser.add_argument(
        "--out", type=Path, help="folder of the run, which is continued if it is there (runs/papers/ROW)"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's four files")
    found = parser.parse_args()
    found.out = found.out or Path("runs/papers") / (f"{found.row}-quick" if found.quick else found.row)
    return found


def with_validation(folder: Path, data_dir: Path | None) -> tuple[Dataset, Path]:
    """MNIST with the last 10,000 training images as its test images, and the file in ``folder`` that holds it.

    What is chosen by such a run's test images is chosen by validation images.
    """
    data, path = load_dataset("mnist", data_dir), folder / f"mnist-{TRAINING}.npz"
    train, labels = data.train.images, data.train.labels
    labels_of = {"y_train": labels[:TRAINING], "y_test": labels[TRAINING:]}
    return data, as_file(path, data, train[:TRAINING], train[TRAINING:], labels_of)


def as_file(path: Path, data: Dataset, train: np.ndarray, test: np.ndarray, labels: Mapping[str, np.ndarray]) -> Path:
    """The file with these images (n, D) and (m, D) of the data and these labels, ``y_train`` and ``y_test``, if any.

    It is written if it is not there.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = {name: np.rint(255 * each).astype(np.uint8) for name, each in (("x_train", train), ("x_test", test))}
        whole = io.BytesIO()
        np.savez(whole, **{name: each.reshape(-1, *data.image_shape) for name, each in grey.items()}, **labels)
        write_whole(path, whole.getvalue())
    return path


def trained(config: RunConfig, folder: Path) -> dict:
    """The summary of a run, which is started, or continued where it was interrupted. UserError if it is another's."""
    if not (folder / "config.json").exists():
        return runs.start(config, folder)
    found = runs.load_config(folder)
    for setting in ("model", "network", "training", "epochs", "batch_size", "seed"):
        if getattr(found, setting) != getattr(config, setting):
            raise UserError(f"{folder} holds a run with another {setting}; give another --out, or delete that run")
    if (folder / "summary.json").exists():
        return json.loads((folder / "summary.json").read_text())
    return runs.resume(folder)


def command(main: Callable[[], None]) -> None:
    """Run a script. A user's mistake, and Ctrl-C, end it without a traceback."""
    try:
        main()
    except (UserError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt):
        print("stopped; the same command continues the run", file=sys.stderr)
        sys.exit(130)


def record(row: str, figure: Figure, ours: str, numbers: dict, seconds: float, seed: int | str, note: str = "") -> None:
    """Write a reproduced figure into the repository, and print it; ``seed`` may name several, such as "0 to 2"."""
    RESULTS.mkdir(exist_ok=True)
    content = {
        **asdict(figure),
        "ours": ours,
        "command": f"python demos/papers/{Path(sys.argv[0]).name} {row}",
        "numbers": numbers,
        "seconds": round(seconds),
        "seed": seed,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{processor()}, threads: {os.environ.get('NUMBA_NUM_THREADS') or os.cpu_count()}",
        "note": note,
    }
    write_json(RESULTS / f"{row}.json", content)
    print(f"{row}: {ours} (the paper: {figure.paper})")
