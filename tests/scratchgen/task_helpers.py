"""A task's steps as a trainer takes them."""

import numpy as np

from scratchgen.capture import Capture
from scratchgen.tensor import Tensor


def captured(task):
    """A function of images (b, D) and labels (b,), zeros unless given: a step of the task, captured; its metrics."""
    step = Capture(task.train_step, *task.modules())

    def take(images, labels=None):
        labels = np.zeros(len(images), np.int64) if labels is None else labels
        return step(Tensor(images), labels, **task.step_options()).read()

    take.capture = step
    return take


def eager(task):
    """The same without capture."""

    def take(images, labels=None):
        labels = np.zeros(len(images), np.int64) if labels is None else labels
        metrics = task.train_step(Tensor(images), labels, **task.step_options())
        return {name: metric.item() for name, metric in metrics.items()}

    return take


def bits(task):
    """The state of a task, to the bit."""
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in task.state_dict().items()}
