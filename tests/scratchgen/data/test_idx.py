"""The reader of IDX files, against damage of every kind."""

import contextlib
import gzip
import hashlib
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_helpers import idx, refusal

from scratchgen.data import idx as module
from scratchgen.data.idx import Unfinished, digest, read_idx
from scratchgen.errors import UserError

FUZZ = settings(derandomize=True, max_examples=200, deadline=None)

IMAGE = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = idx(IMAGE)
ZIPPED = gzip.compress(GOOD)
BAD_CRC = ZIPPED[:-8] + bytes([ZIPPED[-8] ^ 1]) + ZIPPED[-7:]
BAD = {
    "empty": (b"", "not IDX"),
    "magic cut": (GOOD[:3], "not IDX"),
    "text": (b"<html>404</html>", "not IDX"),
    "float IDX": (idx(IMAGE, kind=0x0D), "begins with '00000d03'"),
    "no dimension": (b"\0\0\x08\0" + b"x", "1 to 3 dimensions"),
    "four dimensions": (idx(IMAGE[None]), "1 to 3 dimensions"),
    "header cut": (GOOD[:15], "header"),
    "data cut": (GOOD[:-1], "24 bytes of data, but it holds only 23"),
    "data missing": (GOOD[:16], "holds only 0"),
    "trailing byte": (GOOD + b"\0", "holds more"),
    "absurd": (struct.pack(">2x2B3I", 8, 3, 2**31, 2**31, 2**31), "implausible shape"),
    "absurd and empty": (struct.pack(">2x2B3I", 8, 3, 0, 2**32 - 1, 2**32 - 1), "implausible shape"),
    "gzip cut": (ZIPPED[:-9], "end-of-stream"),
    "gzip trailer cut": (ZIPPED[:-1], "end-of-stream"),
    "gzip magic only": (ZIPPED[:2], ""),
    "gzip bad CRC": (BAD_CRC, "CRC"),
    "gzip bad length": (ZIPPED[:-1] + b"\1", "length"),
    "gzip bad method": (ZIPPED[:2] + b"\x09" + ZIPPED[3:], "compression method"),
    "gzip garbage within": (ZIPPED[:10] + b"\xff" * 20, "decompressing"),
    "gzip garbage after": (ZIPPED + b"garbage", "gzip"),
    "gzip of data cut": (gzip.compress(GOOD[:-1]), "holds only 23"),
    "gzip of trailing byte": (gzip.compress(GOOD + b"\0"), "holds more"),
    "gzip of gzip": (gzip.compress(ZIPPED), "begins with '1f8b"),
}


@pytest.mark.parametrize("content", [GOOD, ZIPPED], ids=["raw", "gzip"])
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_read_idx_decides_by_content_whether_it_is_gzip(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    array = read_idx(path)
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IMAGE, strict=True)


@pytest.mark.parametrize("kind", BAD)
def test_read_idx_refuses_damaged_files_and_says_why(tmp_path, kind):
    content, reason = BAD[kind]
    path = tmp_path / "file\nof two lines"
    path.write_bytes(content)
    message = refusal(read_idx, path)
    assert repr(str(path)) in message
    assert reason in message
    unfinished = kind.endswith((" cut", "missing", "of data cut")) or kind.startswith("gzip ") or kind == "empty"
    unfinished = unfinished and kind not in ("gzip of trailing byte", "gzip of gzip")
    with pytest.raises(UserError) as caught:
        read_idx(path)
    assert (caught.type is Unfinished) == unfinished  # the others may be somebody's data


def test_read_idx_refuses_what_is_no_readable_file(tmp_path):
    assert "No such file" in refusal(read_idx, tmp_path / "missing")
    assert "directory" in refusal(read_idx, tmp_path)
    assert "File name too long" in refusal(read_idx, tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in refusal(read_idx, tmp_path / "loop")


def test_read_idx_refuses_a_file_without_permission(tmp_path):
    path = tmp_path / "x"
    path.touch(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "Permission denied" in refusal(read_idx, path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">2x2B3I", 8, 3, 2**31, 2**31, 2**31),
        struct.pack(">2x2B3I", 8, 3, 2**10, 2**10, 2**10) + b"just below what is absurd",
        gzip.compress(struct.pack(">2x2BI", 8, 1, 1) + bytes(2**26), compresslevel=1),
    ],
    ids=["absurd", "large", "bomb"],
)
def test_read_idx_takes_little_memory_for_files_it_refuses(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        refusal(read_idx, path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * module.CHUNK_BYTES


def test_digest_is_that_of_the_uncompressed_file():
    assert digest(IMAGE) == hashlib.sha256(GOOD).hexdigest()
    assert digest(IMAGE.reshape(4, 3, 2)) != digest(IMAGE)  # it covers the header


def read_back(content):
    """Return what read_idx makes of these bytes, None for a UserError; it must leave the folder alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(content)
        array = None
        with contextlib.suppress(UserError):
            array = read_idx(path)
        assert os.listdir(folder) == ["x"]
        assert path.read_bytes() == content
        return array


shapes = st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)
arrays = st.builds(
    lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape, np.uint8),
    shapes,
    st.integers(0, 99),
)
headers = st.builds(
    lambda magic, lengths, rest: magic + struct.pack(f">{len(lengths)}I", *lengths) + rest,
    st.sampled_from([b"\0\0\x08" + bytes([ndim]) for ndim in (0, 1, 2, 3, 4, 255)]),
    st.lists(st.sampled_from([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1]), max_size=4),
    st.binary(max_size=20),
)


@FUZZ
@given(arrays, st.booleans())
def test_read_idx_returns_what_was_written(array, zipped):
    content = idx(array)
    np.testing.assert_array_equal(read_back(gzip.compress(content) if zipped else content), array, strict=True)


@FUZZ
@given(
    st.one_of(st.binary(max_size=60), headers),
    st.sampled_from([b"", b"\0\0\x08\1", b"\x1f\x8b\x08\0"]),
    st.booleans(),
)
def test_read_idx_reads_or_refuses_any_bytes(content, start, zipped):
    content = start + content
    array = read_back(gzip.compress(content) if zipped else content)
    if array is not None:
        assert idx(array) == content


@FUZZ
@given(arrays, st.booleans(), st.sampled_from(["flip", "cut", "append", "insert"]), st.data())
def test_read_idx_reads_or_refuses_damaged_files(array, zipped, damage, data):
    content = bytearray(gzip.compress(idx(array)) if zipped else idx(array))
    place = data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[place] ^= data.draw(st.integers(1, 255))
    elif damage == "cut":
        del content[place:]
    elif damage == "append":
        content += data.draw(st.binary(min_size=1, max_size=9))
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    found = read_back(bytes(content))
    if found is None:
        return
    if zipped:  # what gzip does not protect, its date or zeros after the end, may change, but not the data
        np.testing.assert_array_equal(found, array, strict=True)
    else:
        assert damage in ("flip", "insert")
        assert idx(found) == content
