"""A run's folder, whose files are written atomically.

``config.json``             the configuration, with the versions of the software
``metrics.jsonl``           one line an epoch; ``metrics.csv``, if asked for, the same as a table
``checkpoint.safetensors``  parameters, optimizer state, counters, random states: all that a resumed run needs
``best.safetensors``        of a run with patience, the checkpoint of its best epoch
``summary.json``            the result

While a process trains the run, it holds a lock on the file ``.scratchgen-lock``, which names its pid.
"""

import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from scratchgen.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

FILES = (
    "config.json", "metrics.jsonl", "metrics.csv", "checkpoint.safetensors", "best.safetensors", "summary.json",
)  # fmt: skip
FORMAT = 2  # version of the folder's format; incremented when older folders can no longer be read


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file atomically, at once or part by part: after a crash it has either the old or the new content.

    UserError if it cannot be written. Only a kill leaves a temporary file, which ``sweep`` removes.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # another process may be writing the same file
    try:
        with open(temporary, "wb") as file:
            for part in [content] if isinstance(content, bytes) else content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if hasattr(os, "O_DIRECTORY"):  # where folders can be opened: sync the new name too
            folder = os.open(path.parent, os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # after a success it has been renamed
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Remove the temporary files that a kill left in a run's folder."""
    for name in FILES:
        for temporary in folder.glob(f"{name}.[0-9]*.tmp"):
            if temporary.is_file():
                temporary.unlink(missing_ok=True)
    for scratch in folder.glob(".figure-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def save_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], progress: Mapping[str, Any]) -> None:
    """Write arrays and a JSON-serialisable ``progress`` into one safetensors file, in this machine's byte order.

    TypeError for arrays that are not boolean, integer or real: safetensors cannot hold them.
    """
    arrays = {name: _storable(name, array) for name, array in arrays.items()}
    metadata = {"format": str(FORMAT), "progress": json.dumps(progress)}
    metadata["sha256"] = _digest(arrays, metadata["progress"])
    write_whole(path, to_safetensors(arrays, metadata))


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"save_checkpoint: {name} is {array.dtype}; give booleans, integers or floats of at most 64 bits"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and ``progress`` of a checkpoint. UserError if it is missing, damaged, or of another format."""
    try:
        content = path.read_bytes()
        arrays = parse_safetensors(content)
        (size,) = struct.unpack("<Q", content[:8])
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        _require_format(path, metadata["format"])
        if metadata["sha256"] != _digest(arrays, metadata["progress"]):
            raise ValueError("wrong checksum")
        return arrays, json.loads(metadata["progress"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; train first") from None
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
        raise UserError(f"{path}: not a checkpoint of scratchgen, or damaged ({error})") from None


def _digest(arrays: Mapping[str, np.ndarray], progress: str) -> str:
    """SHA-256 of a checkpoint's contents: without it, a flipped bit in a parameter would go unnoticed."""
    digest = hashlib.sha256(progress.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def create_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Create a run's folder with its ``config.json``. UserError if it holds a run already or cannot be written.

    Whoever may compete for the folder creates it (``create_folder``) and takes its lock (``locked``) first.
    """
    create_folder(folder)
    require_no_run(folder)
    sweep(folder)  # a kill may have come before there was a config.json
    write_json(folder / "config.json", {"format": FORMAT, **config})


def require_no_run(folder: Path) -> None:
    """UserError if the folder holds a run, or pictures, which a run's could replace."""
    if any((folder / name).exists() for name in FILES):
        raise UserError(f"{folder} holds a run already; continue it with --resume {folder}, or give another --out")
    if pictures := sorted(path.name for path in folder.glob("*.png")):
        raise UserError(f"{folder} holds pictures ({pictures[0]}) that the run's could replace; give another --out")


def create_folder(folder: Path) -> None:
    """Create a folder for a run if it is not there. UserError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write a run there ({error.strerror}); give another --out") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process can train the run in ``folder``. UserError, naming the process, if one does.

    The operating system releases the lock of a process that is killed; the file that then stays locks nothing.
    """
    path = folder / ".scratchgen-lock"
    lock = _take(path)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()
        os.close(lock)


def _take(path: Path) -> int:
    """Open and lock a file; returns its descriptor."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None
        if not _lock(lock):
            holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise UserError(f"{path.parent}: another process (pid {holder}) is training this run; wait for it to end")
        try:
            same = os.path.samestat(os.fstat(lock), os.stat(path))
        except OSError:
            same = False
        if same:
            with suppress(OSError):  # on a full disk the lock holds without a pid
                os.ftruncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
            return lock
        os.close(lock)  # its holder has just ended and removed it: it is not the file that others see


def _lock(file: int) -> bool:
    """Lock an open file until it is closed; whether that worked. True too where files cannot be locked."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            os.lseek(file, 2**20, os.SEEK_SET)  # beyond the pid, for nobody else may read what is locked
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(file, 0, os.SEEK_SET)
    except OSError as error:
        os.lseek(file, 0, os.SEEK_SET)
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a run. UserError if it is missing, damaged, or of another format."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        found = config.pop("format", None)
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: there is no config.json in it") from None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    _require_format(path, found)
    return config


def _require_format(path: Path, found: Any) -> None:
    if str(found) != str(FORMAT):
        raise UserError(f"{path}: written in format {found!r}, but this version reads {FORMAT}; train again")
