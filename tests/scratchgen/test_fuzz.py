"""Damaged files of every kind end in a right result or in one line, with little memory and time."""

import gzip
import json
import resource
import time
from copy import deepcopy
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from idx_helpers import idx

from scratchgen import runs
from scratchgen.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from scratchgen.data.idx import read_idx
from scratchgen.errors import UserError
from scratchgen.recipes import RECIPES, RunConfig

# ---- trees of a configuration ----

CONFIGS = {f"{recipe.model} {name}": config for recipe in RECIPES.values() for name, config in recipe.configs.items()}
NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, -(2**70), 10**400]) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.sampled_from(["mnist", "adam", "\ud800\n\0"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def content_of(config):
    """What ``config.json`` holds."""
    return json.loads(json.dumps({"format": FORMAT, **asdict(config)}))


def paths(tree, path=()):
    """The paths of all nodes below the root."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def attempt(read):
    """What ``read()`` returns, or the message of its UserError."""
    try:
        return read()
    except UserError as error:
        return str(error)


def loaded_or_refused(folder, content):
    """The configuration that ``content`` gives, or the line that refuses it."""
    (folder / "config.json").write_text(json.dumps(content))
    found = attempt(lambda: runs.load_config(folder))
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
        assert len(found) < 2000
    else:
        assert runs.load_config(folder).fingerprint() == found.fingerprint()
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for files that are written over and over."""
    return tmp_path_factory.mktemp("place")


@given(data=st.data())
@pytest.mark.parametrize("name", CONFIGS)
def test_load_config_of_a_changed_tree(place, name, data):
    content = content_of(CONFIGS[name])
    path = data.draw(st.sampled_from(sorted(paths(content), key=str)))
    parent, key = at(content, path[:-1]), path[-1]
    change = data.draw(st.sampled_from(["replace", "delete", "add"]))
    if change == "replace":
        parent[key] = data.draw(VALUES)
    elif change == "delete":
        del parent[key]
    else:
        into = content[path[0]] if isinstance(content[path[0]], dict) else content
        into[data.draw(st.text(max_size=5))] = data.draw(VALUES)
    loaded_or_refused(place, content)


@pytest.mark.parametrize("name", CONFIGS)
def test_load_config_names_the_entry(place, name):
    """A value of a wrong type, an entry missing or unknown: the line has its name."""
    original = content_of(CONFIGS[name])
    for path in paths(original):
        key = next(part for part in reversed(path) if isinstance(part, str))
        if key in ("format", "versions"):
            continue
        before = at(original, path)
        for wrong in (None, True, False, [], [None], [[1]], {}, {"a": {}}, "\n", float("nan"), 2**64, -(10**400), 0.5):
            fits = (wrong is None and before is None) or type(wrong) is type(before) or (key == "data_dir")
            fits = fits or (key == "max_norm" and wrong in (None, 2**64, 0.5))  # a number or none
            if fits or (isinstance(before, float) and wrong == 2**64) or (isinstance(before, int) and wrong is before):
                continue
            content = deepcopy(original)
            at(content, path[:-1])[path[-1]] = wrong
            found = loaded_or_refused(place, content)
            if wrong != []:  # no hidden layers may be fine
                assert isinstance(found, str), (path, wrong)
            assert not isinstance(found, str) or key in found
    for part in ((), ("network",), ("training",)):
        content = deepcopy(original)
        at(content, part)["something\n"] = 1
        line = loaded_or_refused(place, content)
        assert "something" in line
        assert "is unknown" in line
    for key in ("model", "name", "network", "training", "epochs", "batch_size"):
        content = deepcopy(original)
        del content[key]
        assert key in loaded_or_refused(place, content)


# ---- bytes of files ----


def mutated(content, rng):
    """The bytes with up to three changes: bits flipped, cut off, extended, a part copied, removed or overwritten."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        a, b, c = (int(place) for place in np.sort(rng.integers(0, len(content) + 1, 3)))
        match rng.integers(6):
            case 0:
                for place in rng.integers(0, max(1, len(content)), rng.integers(1, 9)):
                    if content:
                        content[place] ^= 1 << int(rng.integers(8))
            case 1:
                del content[a:]
            case 2:
                content += rng.bytes(int(rng.integers(1, 50)))
            case 3:
                content[a:b] = content[b:c]
            case 4:
                del content[a : min(b, a + 20)]
            case 5:
                content[a : a + 4] = bytes([int(rng.choice([0, 1, 127, 255]))] * 4)
    return bytes(content)


IMAGE = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
ARRAYS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.array([True]), "c": np.zeros((0, 2))}


def check_idx(path, content):
    """Without a digest only the header says what is right."""
    array = read_idx(path)
    raw = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert idx(array) == raw


def check_checkpoint(path, content):
    arrays, progress = load_checkpoint(path)
    assert progress == {"epoch": 1}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def check_config(path, content):
    assert isinstance(runs.load_config(path.parent), RunConfig)


def files(place):
    """Each kind of file: its right bytes and what reads it."""
    save_checkpoint(place / "checkpoint.safetensors", ARRAYS, {"epoch": 1})
    config = json.dumps(content_of(CONFIGS["aae mixture"])).encode()
    return {
        "images": (idx(IMAGE), check_idx),
        "images.gz": (gzip.compress(idx(IMAGE)), check_idx),
        "checkpoint.safetensors": ((place / "checkpoint.safetensors").read_bytes(), check_checkpoint),
        "config.json": (config, check_config),
    }


def fuzz(place, seed, cases):
    """Read so many damaged files of each kind; returns how many of them were accepted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    accepted = 0
    for name, (content, check) in files(place).items():
        rng = np.random.default_rng([seed, len(name)])
        (place / name).write_bytes(content)
        check(place / name, content)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, hard))  # half a gigabyte more: else MemoryError
        try:
            for number in range(cases):
                damaged = mutated(content, rng)
                (place / name).write_bytes(damaged)
                started = time.process_time()
                line = attempt(lambda: check(place / name, damaged))  # noqa: B023 (called at once)
                if line is None:
                    accepted += 1
                else:
                    assert len(line.splitlines()) == 1, (name, number)
                    assert name in line
                assert time.process_time() - started < 5, (name, number)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return accepted


def test_thousands_of_damaged_files(place):
    assert 0 < fuzz(place, 0, 1000) < 4000 / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 26))
def test_a_hundred_thousand_damaged_files(place, seed):
    fuzz(place, seed, 1000)
