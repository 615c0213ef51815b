"""The run's folder: what is written is whole, what is read comes back to the last bit, and damage is one line."""

import errno
import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from scratchgen import checkpoint
from scratchgen.checkpoint import create_run, load_checkpoint, read_config, save_checkpoint, write_json, write_whole
from scratchgen.errors import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "model.weight": RNG.standard_normal((3, 4), dtype=np.float32),
    "model.double": RNG.standard_normal((2, 1, 5)),
    "model.odd": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7e308]),
    "model.empty": np.zeros((0, 3), np.float32),
    "model.transposed": RNG.standard_normal((4, 3), dtype=np.float32).T,
    "model.strided": np.arange(12.0, dtype=np.float32)[::3],
    "model.scalar": np.array(0.1, np.float32),
    "optimizer.steps": np.array([2**62 + 1]),
}
PROGRESS = {
    "shuffle": np.random.default_rng(1).bit_generator.state,  # its integers have 128 bits
    "epoch": 3,
    "seconds": 0.1 + 0.2,
    "sums": {"kl": math.pi * 1e300, "reconstruction": 5e-324, "neg_elbo": -0.0},
    "history": [{"train": {"kl": 1 / 3}, "note": "é \u2028 \n"}],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("saved") / "checkpoint.safetensors"
    save_checkpoint(path, ARRAYS, PROGRESS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for files that Hypothesis writes over and over."""
    return tmp_path_factory.mktemp("place")


def refused(read, named, path=None):
    """Have ``read(path)`` refuse with one line that names the file; returns the line."""
    with pytest.raises(UserError) as refusal:
        read(path or named)
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    assert str(named) in message
    return message


def refused_checkpoint(path, content):
    path.write_bytes(content)
    return refused(load_checkpoint, path)


def refused_config(folder, content):
    (folder / "config.json").write_bytes(content)
    return refused(read_config, folder / "config.json", folder)


# ---- writing ----


def failing(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_write_whole_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch, name, error):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(error))
        if isinstance(error, OSError):
            assert "(disk full)" in refused(lambda path: write_whole(path, b"new"), path)
        else:
            with pytest.raises(KeyboardInterrupt):
                write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_whole_names_the_file_when_there_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none" / "a", tmp_path / "file" / "a", tmp_path / ("n" * 300)):
        refused(lambda path: write_whole(path, b"new"), path)


def test_write_whole_lets_two_processes_write_one_file(tmp_path):
    """Whichever is last, the file is whole, and neither takes the other's temporary file away."""
    code = "import sys, pathlib; from scratchgen.checkpoint import write_whole\n"
    code += "for _ in range(200): write_whole(pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 100_000)"
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    processes = [subprocess.Popen([*command, letter], stderr=subprocess.PIPE) for letter in "ab"]
    assert [process.communicate(timeout=100)[1] for process in processes] == [b"", b""]
    assert (tmp_path / "file").read_bytes() in (b"a" * 100_000, b"b" * 100_000)
    assert os.listdir(tmp_path) == ["file"]


def test_write_whole_syncs_the_content_before_renaming(tmp_path, monkeypatch):
    calls = []

    def fsync(number, original=os.fsync):
        calls.append("folder" if os.path.samestat(os.fstat(number), os.stat(tmp_path)) else "content")
        assert calls[-1] == "folder" or os.fstat(number).st_size == 3
        original(number)

    def replace(*names, original=os.replace):
        calls.append("name")
        original(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_whole(tmp_path / "file", b"new")
    assert calls == ["content", "name", "folder"]


def test_write_whole_overwrites_a_temporary_file_left_by_a_kill(tmp_path):
    (tmp_path / f"file.{os.getpid()}.tmp").write_bytes(b"x" * 1000)
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_load_checkpoint_and_read_config_ignore_temporary_files(tmp_path, saved):
    (tmp_path / "checkpoint.safetensors.1.tmp").write_bytes(saved)
    (tmp_path / "config.json.1.tmp").write_text('{"format": 1}')
    assert "train first" in refused(load_checkpoint, tmp_path / "checkpoint.safetensors")
    assert "holds no run" in refused(read_config, tmp_path)


# ---- there and back ----


def test_load_checkpoint_returns_every_bit_that_was_saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, ARRAYS, PROGRESS)
    arrays, progress = load_checkpoint(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()
    assert progress == PROGRESS
    assert math.copysign(1, progress["sums"]["neg_elbo"]) == -1


@given(metrics=st.dictionaries(st.text(), st.floats(allow_nan=False) | st.integers()))
def test_load_checkpoint_returns_metrics_and_counters_exactly(place, metrics):
    save_checkpoint(place / "metrics", {"a": np.zeros(1)}, metrics)
    assert load_checkpoint(place / "metrics")[1] == metrics


def test_save_checkpoint_writes_what_the_safetensors_package_reads(tmp_path, saved):
    (tmp_path / "file").write_bytes(saved)
    with safe_open(tmp_path / "file", framework="numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        assert np.array_equal(file.get_tensor("model.transposed"), ARRAYS["model.transposed"])
        assert json.loads(file.metadata()["progress"]) == PROGRESS


# ---- damaged checkpoints ----


def header(content):
    """Where the header of a safetensors file ends."""
    return 8 + struct.unpack("<Q", content[:8])[0]


def test_load_checkpoint_refuses_a_file_cut_off_anywhere(tmp_path, saved):
    lengths = {*range(0, 20), *range(0, len(saved), 37), header(saved) - 1, header(saved), len(saved) - 1}
    for length in lengths:
        refused_checkpoint(tmp_path / "cut", saved[:length])


@given(data=st.data())
def test_load_checkpoint_refuses_one_flipped_bit_anywhere(place, saved, data):
    position, bit = data.draw(st.integers(0, len(saved) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(saved)
    damaged[position] ^= 1 << bit
    refused_checkpoint(place / "flipped", damaged)


def test_load_checkpoint_refuses_flipped_bits_in_the_header(place, saved):
    for position in range(0, header(saved), 3):
        damaged = bytearray(saved)
        damaged[position] ^= 1 << position % 8
        refused_checkpoint(place / "flipped", damaged)


@given(content=st.binary(max_size=100))
def test_load_checkpoint_refuses_garbage(place, content):
    refused_checkpoint(place / "garbage", content)


@given(content=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_load_checkpoint_refuses_garbage_with_a_json_header(place, content):
    text = json.dumps(content).encode()
    refused_checkpoint(place / "garbage", struct.pack("<Q", len(text)) + text)


def test_load_checkpoint_refuses_bytes_after_the_end(tmp_path, saved):
    refused_checkpoint(tmp_path / "longer", saved + b"\0")


def test_load_checkpoint_refuses_a_missing_file_or_a_folder(tmp_path):
    assert "no such checkpoint" in refused(load_checkpoint, tmp_path / "none")
    (tmp_path / "folder").mkdir()
    refused(load_checkpoint, tmp_path / "folder")
    (tmp_path / "file").write_bytes(b"")
    refused(load_checkpoint, tmp_path / "file" / "checkpoint.safetensors")
    refused(load_checkpoint, tmp_path / ("n" * 300))


def with_metadata(saved, **changes):
    """The checkpoint with entries of its metadata replaced, or left out where they are None."""
    end = header(saved)
    content = json.loads(saved[8:end])
    metadata = content.pop("__metadata__") | changes
    content["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    text = json.dumps({key: value for key, value in content.items() if value}).encode()  # none at all, not an empty one
    return struct.pack("<Q", len(text)) + text + saved[end:]


def test_with_metadata_without_changes_keeps_the_checkpoint_valid(tmp_path, saved):
    (tmp_path / "same").write_bytes(with_metadata(saved))
    assert load_checkpoint(tmp_path / "same")[1] == PROGRESS


@pytest.mark.parametrize(
    "changes",
    [
        {"format": None, "progress": None, "sha256": None},
        {"format": None},
        {"progress": None},
        {"sha256": None},
        {"sha256": "0" * 64},
        {"progress": json.dumps({**PROGRESS, "epoch": 4})},
        {"progress": "[" * 100_000},
        {"progress": ""},
    ],
)
def test_load_checkpoint_refuses_missing_or_changed_metadata(tmp_path, saved, changes):
    assert "damaged" in refused_checkpoint(tmp_path / "file", with_metadata(saved, **changes))


@pytest.mark.parametrize("found", ["0", "1", "3", "pt", "2\n", "", "9" * 50])
def test_load_checkpoint_refuses_another_format(tmp_path, saved, found):
    assert f"this version reads {checkpoint.FORMAT}" in refused_checkpoint(
        tmp_path / "file", with_metadata(saved, format=found)
    )


# ---- the configuration ----


def test_read_config_returns_what_create_run_wrote(tmp_path):
    config = {"name": "a", "lr": 0.1 + 0.2, "network": {"sizes": [1, 2]}, "note": "é\n"}
    create_run(tmp_path / "some" / "run", config)
    assert read_config(tmp_path / "some" / "run") == config
    assert os.listdir(tmp_path / "some" / "run") == ["config.json"]


def test_create_run_leaves_an_existing_run_alone(tmp_path):
    create_run(tmp_path, {"name": "first"})
    before = (tmp_path / "config.json").read_bytes()
    assert "--resume" in refused(lambda folder: create_run(folder, {"name": "second"}), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_create_run_takes_a_folder_with_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    create_run(tmp_path, {})
    assert sorted(os.listdir(tmp_path)) == ["config.json", "notes.txt"]


def test_create_run_removes_what_a_kill_left_of_an_earlier_beginning(tmp_path):
    (tmp_path / "config.json.4711.tmp").write_text("half a conf")
    create_run(tmp_path, {})
    assert os.listdir(tmp_path) == ["config.json"]


def test_create_run_refuses_a_folder_with_pictures(tmp_path):
    (tmp_path / "samples.png").write_bytes(b"mine")
    assert "pictures (samples.png)" in refused(lambda folder: create_run(folder, {}), tmp_path)
    assert os.listdir(tmp_path) == ["samples.png"]


def test_sweep_leaves_folders_alone(tmp_path):
    (tmp_path / "config.json.9.tmp").mkdir()
    checkpoint.sweep(tmp_path)
    assert (tmp_path / "config.json.9.tmp").is_dir()


@pytest.mark.parametrize("content", ["[]", "1", "null", '"text"'])
def test_read_config_says_that_it_holds_no_object(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert "cannot be read (it holds no object)" in refused(read_config, tmp_path)


def test_create_run_refuses_a_folder_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("a file, no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("n" * 300)):
        assert "give another --out" in refused(lambda path: create_run(path, {}), folder)
    assert os.listdir(tmp_path) == ["file"]


def test_create_run_leaves_no_run_on_a_full_disk(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "disk full")))
        assert "disk full" in refused(lambda path: create_run(path, {}), tmp_path / "run")
    assert "holds no run" in refused(read_config, tmp_path / "run")
    create_run(tmp_path / "run", {})
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_read_config_refuses_a_file_cut_off_anywhere(tmp_path):
    write_json(tmp_path / "config.json", {"format": checkpoint.FORMAT, "name": "é", "sizes": [1, 2]})
    content = (tmp_path / "config.json").read_bytes()
    for length in range(len(content) - 1):  # all but the newline at its end
        refused_config(tmp_path, content[:length])


@given(content=st.binary(max_size=50))
def test_read_config_refuses_garbage(place, content):
    refused_config(place, content)


@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists))
def test_read_config_refuses_json_that_is_no_config(place, value):
    if str(value) != str(checkpoint.FORMAT):
        refused_config(place, json.dumps({"format": value}).encode())
    refused_config(place, json.dumps(value).encode())


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"format": 1e999}', b'{"format": ' + b"9" * 5000 + b"}", b"{}"])
def test_read_config_refuses_json_that_breaks_parsers(tmp_path, content):
    refused_config(tmp_path, content)


def test_read_config_refuses_a_missing_file_or_a_folder(tmp_path):
    refused(read_config, tmp_path / "none")
    (tmp_path / "config.json").mkdir()
    refused(read_config, tmp_path)


# ---- arrays of every layout ----


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype=">i8")[::2],
        np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        np.array(1.5, ">f8"),
        np.zeros((0, 3), ">u2"),
        np.array([True, False]),
        np.arange(4, dtype=np.float16)[::-1],
        np.arange(4, dtype=np.uint8),
        np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (3, 2), (0, 0)),
        np.broadcast_to(np.float32(2), (2, 2)),  # read-only
        np.frombuffer(b"12345678", "<f4"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_save_checkpoint_of_every_layout(tmp_path, array):
    before = array.copy()
    save_checkpoint(tmp_path / "file", {"a": array}, {})
    loaded = load_checkpoint(tmp_path / "file")[0]["a"]
    np.testing.assert_array_equal(loaded, array)
    assert (loaded.shape, loaded.dtype) == (array.shape, array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, [("x", "f4"), ("y", "i4")]),
        np.array(["a"]),
        np.array([None]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(1, complex),
        np.zeros(1, np.longdouble),
        np.zeros(1, "V4"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_save_checkpoint_names_an_array_that_it_cannot_keep(tmp_path, array):
    with pytest.raises(TypeError, match=r"^save_checkpoint: odd is .*; give booleans, integers or floats"):
        save_checkpoint(tmp_path / "file", {"a": np.zeros(1), "odd": array}, {})
    assert os.listdir(tmp_path) == []


# ---- two processes, one folder ----

CLAIMS = """
import pathlib, sys, time
from scratchgen.checkpoint import create_folder, create_run, locked
from scratchgen.errors import UserError
root, me = pathlib.Path(sys.argv[1]), sys.argv[2]
(root / f"ready {me}").touch()
while not (root / "go").exists():
    time.sleep(0.001)
for i in range(100):
    folder = root / f"run {i}"
    try:
        create_folder(folder)
        with locked(folder):
            create_run(folder, {"by": me})
            print(i, flush=True)
            time.sleep(0.002)
    except UserError as error:
        assert "is training this run" in str(error) or "holds a run already" in str(error), error
"""


def test_create_run_gives_a_folder_to_one_of_many(tmp_path):
    command = [sys.executable, "-c", CLAIMS, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(me)], **pipes) for me in range(4)]
    while len(list(tmp_path.glob("ready *"))) < 4:
        assert all(process.poll() is None for process in processes)
    (tmp_path / "go").touch()
    claimed = {}
    for me, process in enumerate(processes):
        out, err = process.communicate(timeout=100)
        assert err == ""
        claimed |= {(int(i), me): read_config(tmp_path / f"run {i}")["by"] for i in out.split()}
    assert sorted(i for i, _ in claimed) == list(range(100)), "each folder has one owner"
    assert all(by == str(me) for (_, me), by in claimed.items())
    assert {len(os.listdir(folder)) for folder in tmp_path.glob("run *")} == {1}


def test_locked_names_the_process_that_holds_the_folder(tmp_path):
    with checkpoint.locked(tmp_path):
        for _ in range(2):
            assert f"another process (pid {os.getpid()}) is training this run" in refused(
                lambda folder: checkpoint.locked(folder).__enter__(), tmp_path
            )
    assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError), checkpoint.locked(tmp_path):
        _ = 1 / 0
    with checkpoint.locked(tmp_path):
        pass


def test_locked_takes_over_from_a_killed_process(tmp_path):
    code = "import os, pathlib, sys\nfrom scratchgen.checkpoint import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert os.listdir(tmp_path) == [".scratchgen-lock"]
    with checkpoint.locked(tmp_path):
        assert (tmp_path / ".scratchgen-lock").read_text() == str(os.getpid())


def test_locked_where_nothing_can_be_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "fcntl", None)
    with checkpoint.locked(tmp_path), checkpoint.locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_locked_on_windows(tmp_path, monkeypatch):
    """With a stand-in for msvcrt, that locks the byte at the file's position."""
    places, real = [], checkpoint.fcntl

    class msvcrt:
        LK_NBLCK = 2

        @staticmethod
        def locking(file, mode, count):
            places.append(os.lseek(file, 0, os.SEEK_CUR))
            try:
                real.flock(file, real.LOCK_EX | real.LOCK_NB)
            except OSError:
                raise OSError(errno.EACCES, "Permission denied") from None

    monkeypatch.setattr(checkpoint, "fcntl", None)
    monkeypatch.setattr(checkpoint, "msvcrt", msvcrt)
    with checkpoint.locked(tmp_path):
        assert f"(pid {os.getpid()})" in refused(lambda folder: checkpoint.locked(folder).__enter__(), tmp_path)
    assert places == [2**20] * 2, "beyond what others read"


def test_locked_on_a_full_disk_or_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(OSError(errno.ENOSPC, "disk full")))
        with checkpoint.locked(tmp_path):
            assert "(pid unknown)" in refused(lambda folder: checkpoint.locked(folder).__enter__(), tmp_path)
    (tmp_path / ".scratchgen-lock").mkdir()
    refused(lambda folder: checkpoint.locked(folder).__enter__(), tmp_path)
