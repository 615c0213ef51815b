"""The trainer. It knows the loop of training and nothing of a model: a model brings a ``Task``.

    for every epoch:
        shuffle the training images
        for every batch: one step of the task
        measure on held-out images, write the metrics and a checkpoint

Everything that happens is a function of the seed and of what the checkpoint holds, so that a run which was killed and
resumed ends with the same bits as one that was not.

A loss that is not finite changes no parameters: the optimizer is given it and skips the update (``optim``). Metrics are
read every 20 steps, and then the trainer raises ``NotFinite``, naming the step; what came after it is never saved.
"""

import csv
import io
import json
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import kernels
from scratchgen.capture import Capture, PendingMetrics
from scratchgen.checkpoint import load_checkpoint, save_checkpoint, write_whole
from scratchgen.data.dataset import Dataset
from scratchgen.errors import UserError
from scratchgen.random import REVISION, stream
from scratchgen.tasks.task import Metrics, Task
from scratchgen.tensor import Tensor

UNREAD = 20  # steps at most whose metrics are still to be read


class NotFinite(UserError):
    """A metric of a training step is NaN or infinite."""


def require_finite(metrics: Mapping[str, float]) -> None:
    """Raise NotFinite, naming the metrics that are not finite."""
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise NotFinite(", ".join(wrong))


def batches(images: Any, labels: np.ndarray, order: np.ndarray, batch_size: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Images (b, D) and labels (b,), a batch at a time, in the ``order`` of these indices; the last may be short.

    ``images`` (n, D) is an array of the kernel set in use (``memory.to_device``).
    """
    memory = kernels.active().memory
    indices = memory.to_device(order)
    for start in range(0, len(order), batch_size):
        chosen = slice(start, start + batch_size)
        batch = memory.empty((len(order[chosen]), *images.shape[1:]), images.dtype)
        memory.rows(batch, images, indices[chosen])
        yield Tensor.wrap(batch), labels[order[chosen]]


@dataclass
class Progress:
    """Where a run stands: ``epoch`` epochs and ``batch`` batches of the next one are done.

    ``shuffle`` is the state of the shuffling generator at the beginning of this epoch, ``noise`` that of the task's
    random stream now; ``sums`` holds the metrics of this epoch so far, times the number of images, and ``images`` that
    number, which may be smaller for a metric that not every step gives. ``fingerprint`` tells the settings that made
    all this from others, and ``revision`` what a seed meant (see ``random``).
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


@dataclass(frozen=True)
class Selection:
    """The test metrics by which epochs are compared, the next ones among equals: smaller is better, or ``larger``."""

    metrics: tuple[str, ...]
    larger: bool = False

    def best(self, history: Sequence[Mapping[str, Any]]) -> int:
        """The number, from 1, of the best epoch of a history that has one; of equal ones the first."""
        figures = [tuple(entry["test"][name] for name in self.metrics) for entry in history]
        return 1 + figures.index(max(figures) if self.larger else min(figures))


class Interrupted(Exception):
    """Ctrl-C came; the checkpoint is written."""


class Trainer:
    """Trains a task up to ``epochs`` epochs and keeps the run's folder: a checkpoint and a line of metrics an epoch.

    With ``resume`` it continues from the folder's checkpoint, or from the start where a run was stopped before its
    first one. UserError if the checkpoint does not fit, or was made with settings of another ``fingerprint``.

    With ``patience`` it stops when no epoch has been better, by ``selection``, for so many epochs, and
    ``best.safetensors`` is the checkpoint of the best one. Which that is, follows from the history: there is no other
    state that a resumed run would have to restore.
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
        selection: Selection = Selection(()),
        patience: int | None = None,
        log: str | None = None,
        resume: bool = False,
    ) -> None:
        self.selection, self.patience, self.log = selection, patience, log
        self.task, self.data, self.folder = task, data, folder
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.checkpoint, self.best = folder / "checkpoint.safetensors", folder / "best.safetensors"
        self.step = Capture(task.train_step, *task.modules())
        self.shuffle, self.noise = stream(seed, "shuffle"), task.random.generator
        self.unread: list[tuple[int, PendingMetrics]] = []  # of the last steps, the number of images and the metrics
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
            while self.progress.epoch < self.epochs and not self.out_of_patience():
                for x, labels in self._batches():
                    self._step(x, labels)
                    if interrupted():
                        self._save(self._finite_state())
                        raise Interrupted
                self._finish_epoch()
                if interrupted():  # while it measured
                    raise Interrupted
        return self.progress.history

    def out_of_patience(self) -> bool:
        """Whether the last ``patience`` epochs have not been better than all before."""
        history = self.progress.history
        if self.patience is None or not history:
            return False
        return len(history) - self.selection.best(history) >= self.patience

    def _batches(self) -> Iterator[tuple[Any, np.ndarray]]:
        """The batches of this epoch that are still to come, behind a progress bar."""
        order = self.shuffle.permutation(len(self.data.train))
        name, total = f"epoch {self.progress.epoch + 1}/{self.epochs}", math.ceil(len(order) / self.batch_size)
        with tqdm(desc=name, total=total, initial=self.progress.batch, leave=False, disable=None) as self.bar:
            left = order[self.progress.batch * self.batch_size :]
            yield from batches(self.images, self.data.train.labels, left, self.batch_size)

    def _step(self, x: Tensor, labels: np.ndarray) -> None:
        self.unread.append((len(x), self.step(x, labels, **self.task.step_options())))
        self.progress.batch += 1
        if len(self.unread) == UNREAD:
            metrics = self._read()
            self.bar.set_postfix({name: readable(value) for name, value in metrics.items()}, refresh=False)
        self.bar.update()

    def _read(self) -> Metrics:
        """Add up the metrics that are still to be read; returns those of the last step."""
        progress, metrics, unread = self.progress, Metrics(), self.unread
        self.unread = []
        for number, (count, pending) in enumerate(unread, start=progress.batch + 1 - len(unread)):
            metrics = pending.read()
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
        if self.patience is not None and self.selection.best(progress.history) == progress.epoch:
            self._save(state, self.best)  # first: a run that is killed here measures this epoch, and writes it, again
        self._save(state)
        write_metrics(self.folder, progress.history, self.log)
        tqdm.write(describe(entry, self.epochs))

    def _stopped(self, where: str, error: NotFinite) -> NotFinite:
        kept = f"; the last good checkpoint is {self.checkpoint}" if self.checkpoint.exists() else ""
        return NotFinite(
            f"training stopped in epoch {self.progress.epoch + 1}, {where}: {error}{kept}; try a lower learning rate"
        )

    def _finite_state(self) -> dict[str, np.ndarray]:
        """The task's state, all steps having been read. NotFinite if any of it is not finite."""
        self._read()
        state = self.task.state_dict()
        broken = [name for name, array in state.items() if not np.isfinite(array).all()]
        if broken:  # an update may break what a finite loss did not show
            raise self._stopped(f"step {self.progress.batch}", NotFinite(f"{broken[0]} is not finite"))
        return state

    def _save(self, state: dict[str, np.ndarray], path: Path | None = None) -> None:
        self.progress.noise = self.noise.bit_generator.state
        self.progress.seconds = time.perf_counter() - self.started
        save_checkpoint(path or self.checkpoint, state, vars(self.progress))

    def _restore(self) -> None:
        arrays, saved = load_checkpoint(self.checkpoint)
        try:
            self.task.load_state_dict(arrays)
            fingerprint, self.progress = self.progress.fingerprint, Progress(**saved)
            if self.progress.fingerprint != fingerprint:
                raise ValueError("it was made with other settings")
            self.shuffle.bit_generator.state = self.progress.shuffle
            self.noise.bit_generator.state = self.progress.noise
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.checkpoint} does not fit the run's config.json: {error}") from None
        if self.progress.revision != REVISION:
            raise UserError(f"{self.checkpoint} was begun by a version whose seeds meant other numbers; train anew")
        # A kill may have come between checkpoint and metrics.
        write_metrics(self.folder, self.progress.history, self.log)


LOGS = ("csv",)  # formats in which metrics can be written too


def write_metrics(folder: Path, history: list[dict[str, Any]], log: str | None = None) -> None:
    """Write ``metrics.jsonl`` from the history, which the checkpoint keeps too; ``metrics.csv`` for the log "csv"."""
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in history).encode())
    if log == "csv":
        write_whole(folder / "metrics.csv", _table(history).encode())


def _table(history: list[dict[str, Any]]) -> str:
    """A line of names, then one an epoch: its number, seconds, and metrics (``train_kl``), empty where missing."""
    rows = [
        {"epoch": entry["epoch"], "seconds": entry["seconds"]}
        | {f"{split}_{name}": value for split in ("train", "test") for name, value in entry[split].items()}
        for entry in history
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, {name: None for row in rows for name in row}, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


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
