"""Whether operations build a graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_recording = ContextVar("recording", default=True)  # of this thread or asynchronous task alone


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside the ``with`` block no graph is built: results need no gradient and nothing is saved for one."""
    before = _recording.get()
    _recording.set(False)
    try:
        yield
    finally:
        _recording.set(before)


def graphs_are_built() -> bool:
    """Whether operations build a graph: not inside ``no_grad``."""
    return _recording.get()
