"""The trainer. It knows the algorithm of training and nothing of a model: a model brings a ``Task``.

    for every epoch:
        shuffle the training images
        for every batch: one step of the task
        measure on held-out images, write the metrics and a checkpoint

Everything that happens is a function of the seed and of what the checkpoint holds, so that a run which was killed and
resumed ends with the same bits as one that was not.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

import kernels
from scratchgen.checkpoint import load_checkpoint, save_checkpoint, write_whole
from scratchgen.data.dataset import Dataset
from scratchgen.errors import UserError
from scratchgen.nn import Module
from scratchgen.noise import REVISION
from scratchgen.tensor import Tensor

Metrics = dict[str, float]
Reading = Callable[[], Metrics]
UNREAD = 20  # steps at most whose metrics are still to be read


class Task(Protocol):
    """What the trainer asks of a model."""

    def step(self, images: Any, labels: np.ndarray, rng: np.random.Generator) -> Reading:
        """Take one training step on a batch; returns a function that says its metrics, means over the batch.

        Where kernels compute on a device, the images lie there, and only that function waits for it. No parameters are
        updated from a loss that is not finite.
        """

    def evaluate(self, dataset: Dataset, rng: np.random.Generator) -> Metrics:
        """The same metrics on held-out images."""

    def state(self) -> dict[str, np.ndarray]:
        """Every array that a resumed run needs: parameters, optimizer moments, counters."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from ``state()``; ValueError if it does not fit."""


class NotFinite(UserError):
    """A metric of a training step is NaN or infinite."""


def require_finite(metrics: Mapping[str, float]) -> None:
    """Raise NotFinite, naming the metrics that are not finite."""
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise NotFinite(", ".join(wrong))


def side_by_side(*numbers: Tensor) -> Any:
    """Numbers, of one element each, as an array (k,) where kernels compute, float64."""
    memory = kernels.active().memory
    out = memory.empty((len(numbers),), np.dtype(np.float64))
    memory.concatenate(out, [number._data.reshape(1) for number in numbers], 0)
    return out


def reading(metrics: Callable[..., Metrics], *found: Any) -> Reading:
    """``metrics`` of the numbers in these arrays, a list each, which are copied now and read when it is called."""
    memory = kernels.active().memory
    copies = [memory.copied(array) for array in found]
    return lambda: metrics(*(memory.to_host(array).tolist() for array in copies))


def prefixed(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state of a part of a task, under ``prefix``."""
    return {f"{prefix}{name}": array for name, array in state.items()}


def under(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a task's state, the part that stands under ``prefix``."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def load_parameters(model: Module, state: Mapping[str, np.ndarray]) -> None:
    """The parameters out of a task's state; ValueError if they are another model's."""
    model.load_state_dict(under("model.", state))


# What each random stream is for; a stream is seeded by the run's seed and its place in this list.
STREAMS = ("parameters", "shuffle", "noise", "evaluation", "pixels", "samples", "labels")


def stream(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """The run's random generator for one purpose; ``more`` (an epoch, say) gives further independent ones."""
    # Their number too: NumPy takes [seed, purpose] and [seed, purpose, 0] for the same seed.
    return np.random.default_rng([seed, STREAMS.index(purpose), len(more), *more])


def batches(images: Any, labels: np.ndarray, order: np.ndarray, batch_size: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Images (b, D) and labels (b,), a batch at a time, in the ``order`` of these indices; the last may be short.

    ``images`` (n, D) lie where kernels compute (``memory.to_device``), and so do batches of them.
    """
    memory = kernels.active().memory
    places = memory.to_device(order)
    for start in range(0, len(order), batch_size):
        chosen = slice(start, start + batch_size)
        yield memory.rows(images, places[chosen]), labels[order[chosen]]


@dataclass
class Progress:
    """Where a run stands: ``epoch`` epochs and ``batch`` batches of the next one are done.

    ``shuffle`` is the state of the shuffling stream at the beginning of this epoch, ``noise`` that of the noise stream
    now; ``sums`` holds the metrics of this epoch so far, times the number of images, and ``images`` that number, which
    may be smaller for a metric that not every step gives. ``fingerprint`` tells the settings that made all this from
    others, and ``revision`` what a seed meant (see ``noise``).
    """

    fingerprint: str
    shuffle: Mapping[str, Any]
    noise: Mapping[str, Any]
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    sums: Metrics = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    revision: int = 1


class Interrupted(Exception):
    """Ctrl-C came; the checkpoint is written."""


class Trainer:
    """Trains a task up to ``epochs`` epochs and keeps the run's folder: a checkpoint and a line of metrics an epoch.

    With ``resume`` it continues from the folder's checkpoint, or from the start where a run was stopped before its
    first one. UserError if the checkpoint does not fit, or was made with settings of another ``fingerprint``.
    """

    def __init__(
        self,
        task: Task,
        data: Dataset,
        folder: Path,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        fingerprint: str,
        resume: bool = False,
    ) -> None:
        self.task, self.data, self.folder = task, data, folder
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.checkpoint = folder / "checkpoint.safetensors"
        self.shuffle, self.noise = stream(seed, "shuffle"), stream(seed, "noise")
        self.unread: list[tuple[int, Reading]] = []  # of the last steps, the number of images and the metrics
        shuffle, noise = self.shuffle.bit_generator.state, self.noise.bit_generator.state
        self.progress = Progress(fingerprint, shuffle, noise, revision=REVISION)
        if resume and self.checkpoint.exists():
            self._restore()
        self.started = time.perf_counter() - self.progress.seconds

    def run(self) -> list[dict[str, Any]]:
        """Train; returns the history, an entry an epoch.

        Raises Interrupted after Ctrl-C, with a checkpoint of that very step, and NotFinite when a metric is not
        finite: the last checkpoint, and the good parameters in it, stay.
        """
        self.images = kernels.active().memory.to_device(self.data.train.images)  # once: a device keeps them
        with _ctrl_c() as interrupted, np.errstate(all="ignore"):  # require_finite says it better than a warning
            while self.progress.epoch < self.epochs:
                for images, labels in self._batches():
                    self._step(images, labels)
                    if interrupted():
                        self._save(self._finite_state())
                        raise Interrupted
                self._finish_epoch()
                if interrupted():  # while it measured
                    raise Interrupted
        return self.progress.history

    def _batches(self) -> Iterator[tuple[Any, np.ndarray]]:
        """The batches of this epoch that are still to come, behind a progress bar."""
        order = self.shuffle.permutation(len(self.data.train))
        name, total = f"epoch {self.progress.epoch + 1}/{self.epochs}", math.ceil(len(order) / self.batch_size)
        with tqdm(desc=name, total=total, initial=self.progress.batch, leave=False, disable=None) as self.bar:
            left = order[self.progress.batch * self.batch_size :]
            yield from batches(self.images, self.data.train.labels, left, self.batch_size)

    def _step(self, images: Any, labels: np.ndarray) -> None:
        self.unread.append((len(images), self.task.step(images, labels, self.noise)))
        self.progress.batch += 1
        if len(self.unread) == UNREAD:
            metrics = self._read()
            self.bar.set_postfix({name: readable(value) for name, value in metrics.items()}, refresh=False)
        self.bar.update()

    def _read(self) -> Metrics:
        """Add up the metrics that are still to be read; returns those of the last step."""
        progress, metrics, unread = self.progress, Metrics(), self.unread
        self.unread = []
        for number, (count, read) in enumerate(unread, start=progress.batch + 1 - len(unread)):
            metrics = read()
            try:
                require_finite(metrics)
            except NotFinite as error:
                raise self._stopped(f"step {number}", error) from None
            for name, value in metrics.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value * count
                progress.images[name] = progress.images.get(name, 0) + count
        return metrics

    def _finish_epoch(self) -> None:
        """Measure on held-out images, then a checkpoint, then the line of metrics."""
        progress = self.progress
        self._read()
        test = self.task.evaluate(self.data, stream(self.seed, "evaluation", progress.epoch))
        try:
            require_finite(test)
        except NotFinite as error:
            raise self._stopped("its evaluation", error) from None
        entry = {
            "epoch": progress.epoch + 1,
            "seconds": time.perf_counter() - self.started,
            "train": {name: total / progress.images[name] for name, total in progress.sums.items()},
            "test": test,
        }
        progress.history.append(entry)
        state = self._finite_state()
        progress.epoch, progress.batch, progress.sums, progress.images = progress.epoch + 1, 0, {}, {}
        progress.shuffle = self.shuffle.bit_generator.state
        self._save(state)
        write_metrics(self.folder, progress.history)
        tqdm.write(describe(entry, self.epochs))

    def _stopped(self, where: str, error: NotFinite) -> NotFinite:
        kept = f"; the last good checkpoint is {self.checkpoint}" if self.checkpoint.exists() else ""
        return NotFinite(
            f"training stopped in epoch {self.progress.epoch + 1}, {where}: {error}{kept}; try a lower learning rate"
        )

    def _finite_state(self) -> dict[str, np.ndarray]:
        """The task's state, all steps having been read. NotFinite if any of it is not finite."""
        self._read()
        state = self.task.state()
        broken = [name for name, array in state.items() if not np.isfinite(array).all()]
        if broken:  # an update may break what a finite loss did not show
            raise self._stopped(f"step {self.progress.batch}", NotFinite(f"{broken[0]} is not finite"))
        return state

    def _save(self, state: dict[str, np.ndarray]) -> None:
        self.progress.noise = self.noise.bit_generator.state
        self.progress.seconds = time.perf_counter() - self.started
        save_checkpoint(self.checkpoint, state, vars(self.progress))

    def _restore(self) -> None:
        arrays, saved = load_checkpoint(self.checkpoint)
        try:
            self.task.load_state(arrays)
            fingerprint, self.progress = self.progress.fingerprint, Progress(**saved)
            if self.progress.fingerprint != fingerprint:
                raise ValueError("it was made with other settings")
            self.shuffle.bit_generator.state = self.progress.shuffle
            self.noise.bit_generator.state = self.progress.noise
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.checkpoint} does not fit the run's config.json: {error}") from None
        if self.progress.revision != REVISION:
            raise UserError(f"{self.checkpoint} was begun by a version whose seeds meant other numbers; train anew")
        write_metrics(self.folder, self.progress.history)  # a kill may have come between checkpoint and metrics


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write ``metrics.jsonl`` from the history, which the checkpoint keeps too."""
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history).encode())


def describe(entry: Mapping[str, Any], epochs: int) -> str:
    """One line about an epoch."""
    parts = [
        f"{split} " + "  ".join(f"{name} {readable(value)}" for name, value in entry[split].items())
        for split in ("train", "test")
    ]
    return f"epoch {entry['epoch']:>{len(str(epochs))}}/{epochs}  {entry['seconds']:6.1f} s   " + "   ".join(parts)


def readable(value: float) -> str:
    """A metric with two decimals, or with two digits where that would leave next to nothing."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"


@contextmanager
def _ctrl_c() -> Iterator[Any]:
    """Within, the first Ctrl-C only makes the yielded function true; a second one interrupts at once."""
    asked = False

    def remember(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
