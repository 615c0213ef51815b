"""MNIST's and Fashion-MNIST's files: the search for them, and the download from a local server."""

import errno
import functools
import gzip
import hashlib
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from idx_helpers import idx, refusal

from scratchgen import cli, commands
from scratchgen.data import load_dataset, mnist, own

REAL = os.environ.get("SCRATCHGEN_DATA")
NAMES = list(mnist.SHA256)


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """A user without MNIST: empty home and cache, no variable, no proxy before the local servers."""
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- find_mnist, load_mnist ---------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Stand-ins for the four files, 5 and 3 images; the bytes of each, uncompressed, by name."""
    rng = np.random.default_rng(0)
    contents = {}
    for name, n in zip(NAMES, (5, 5, 3, 3), strict=True):
        images = "idx3" in name
        contents[name] = idx(rng.integers(0, 256 if images else 10, (n, 28, 28) if images else n, np.uint8))
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(contents[name]).hexdigest())
    return contents


def place(folder, contents, spelling="{}.gz"):
    """Put files into the folder under a spelling of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        spelled = spelling.format(name.replace("-idx", ".idx") if spelling.startswith(".") else name).lstrip(".")
        (folder / spelled).write_bytes(gzip.compress(content) if spelled.endswith("gz") else content)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "scratchgen" / "mnist"


@pytest.mark.parametrize("spelling", ["{}.gz", "{}", ".{}.gz", ".{}"])
def test_load_mnist_reads_every_spelling(tmp_path, small, spelling):
    dataset = mnist.load_mnist(place(tmp_path / "here", small, spelling), download=False)
    assert dataset.name == "mnist"
    assert dataset.image_shape == (28, 28)
    for split, (images, labels) in zip((dataset.train, dataset.test), (NAMES[:2], NAMES[2:]), strict=True):
        pixels = np.frombuffer(small[images][16:], np.uint8).reshape(-1, 784)
        np.testing.assert_array_equal(split.images, pixels.astype(np.float32) / np.float32(255), strict=True)
        np.testing.assert_array_equal(
            split.labels, np.frombuffer(small[labels][8:], np.uint8).astype(np.int64), strict=True
        )
        assert split.images.max() == 1.0
        assert split.images.min() == 0.0


def test_find_mnist_prefers_argument_to_variable_to_cache(tmp_path, small, cache, monkeypatch):
    assert mnist.find_mnist() is None
    place(cache, small)
    assert mnist.find_mnist(None) == cache
    monkeypatch.setenv("SCRATCHGEN_DATA", str(place(tmp_path / "variable", small)))
    assert mnist.find_mnist() == tmp_path / "variable"
    assert mnist.find_mnist(place(tmp_path / "argument", small)) == tmp_path / "argument"


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_find_mnist_uses_home_without_an_absolute_xdg_cache_home(tmp_path, small, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", value) if value is not None else monkeypatch.delenv("XDG_CACHE_HOME")
    folder = place(tmp_path / "home" / ".cache" / "scratchgen" / "mnist", small)
    assert mnist.find_mnist() == folder


def test_find_mnist_takes_an_empty_variable_for_none(monkeypatch):
    monkeypatch.setenv("SCRATCHGEN_DATA", "")
    assert mnist.find_mnist() is None


def test_find_mnist_names_the_variable_to_set_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert "SCRATCHGEN_DATA" in refusal(mnist.find_mnist)


@pytest.mark.parametrize("wish", ["--data-dir", "SCRATCHGEN_DATA"])
@pytest.mark.parametrize("absent", [NAMES, NAMES[2:3]], ids=["all", "one"])
def test_find_mnist_refuses_an_incomplete_folder_that_was_asked_for(tmp_path, small, cache, monkeypatch, wish, absent):
    """An incomplete folder that was asked for is an error even if the cache has everything."""
    place(cache, small)
    folder = place(tmp_path / "wish", {name: small[name] for name in NAMES if name not in absent})
    (folder / f"{absent[0]}.gz").mkdir()  # a folder of that name is no file
    if wish == "SCRATCHGEN_DATA":
        monkeypatch.setenv(wish, str(folder))
    for call in (mnist.find_mnist, mnist.load_mnist):
        message = refusal(call, folder if wish == "--data-dir" else None)
        assert wish in message
        assert str(folder) in message
        assert [name for name in NAMES if name in message] == absent


def test_find_mnist_refuses_a_folder_that_is_not_there(tmp_path):
    assert "is not a folder" in refusal(mnist.find_mnist, tmp_path / "missing")


@pytest.mark.parametrize("name", NAMES)
def test_load_mnist_refuses_other_content(tmp_path, small, name):
    swapped = bytearray(small[name])
    swapped[-1] ^= 1
    folder = place(tmp_path / "here", small | {name: bytes(swapped)})
    message = refusal(mnist.load_mnist, folder)
    assert "SHA-256" in message
    assert f"{name}.gz" in message


def test_load_mnist_says_how_to_get_missing_files(cache):
    message = refusal(mnist.load_mnist, download=False)
    for way in ("scratchgen data fetch", "--data-dir", "SCRATCHGEN_DATA", "--data strokes"):
        assert way in message
    assert not cache.exists()


@pytest.mark.skipif(REAL is None, reason="SCRATCHGEN_DATA does not name a folder with MNIST")
def test_load_mnist_reads_the_real_files():
    dataset = mnist.load_mnist(Path(REAL or ""))
    assert dataset.train.images.shape == (60000, 784)
    assert dataset.test.images.shape == (10000, 784)
    for split, per_digit in (
        (dataset.train, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        (dataset.test, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ):
        assert split.images.dtype == np.float32
        assert (split.images.min(), split.images.max()) == (0.0, 1.0)
        assert split.labels.dtype == np.int64
        assert np.bincount(split.labels).tolist() == per_digit


def test_import_of_mnist_loads_no_packages_for_downloads():
    code = "import sys, scratchgen.data.mnist; print({'pooch', 'requests', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- fetch_mnist --------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    contents: dict[str, bytes]
    requests: list[str]  # the paths asked for

    def mirror(self, manner):
        return f"http://127.0.0.1:{self.server_port}/{manner}/"


class Handler(BaseHTTPRequestHandler):
    """Serves each file in the manner that the first folder of its path names."""

    server: Server

    def do_GET(self):
        _, manner, file = self.path.split("/")
        self.server.requests.append(self.path)
        name = file.removesuffix(".gz")
        body = gzip.compress(self.server.contents[name])
        if manner == "forbidden":
            self.send_error(403)
            return
        if manner == "garbage":
            body = b"<html>Please log in to this network</html>"
        elif manner == "wrong":
            body = gzip.compress(self.server.contents[name][:-1] + b"\xff")
        elif manner == "uncompressed":  # what arrives from a server that declares .gz a Content-Encoding
            body = self.server.contents[name]
        elif manner == "one" and name != NAMES[0]:
            self.send_error(404)
            return
        self.send_response(200)
        if manner != "unannounced":
            length = {"shorter": len(body) + 9, "nothing": 9, "silent": len(body) + 9, "nonsense": "many"}
            self.send_header("Content-Length", str(length.get(manner, len(body))))
        self.end_headers()
        self.wfile.write(b"" if manner == "nothing" else body[:-3] if manner == "unannounced" else body)
        if manner == "silent":
            self.wfile.flush()
            time.sleep(3)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(small):
    """A local server of the stand-ins."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.contents = small
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}/"


def test_fetch_mnist_fills_the_cache(server, small, cache, capfd):
    assert mnist.fetch_mnist(mirrors=[server.mirror("good").rstrip("/")]) == cache
    assert sorted(os.listdir(cache)) == sorted(f"{name}.gz" for name in NAMES)
    assert {name: gzip.decompress((cache / f"{name}.gz").read_bytes()) for name in NAMES} == small
    assert mnist.find_mnist() == cache
    assert capfd.readouterr() == ("", "")
    mnist.fetch_mnist(mirrors=[server.mirror("good")])
    assert len(server.requests) == 4, "what is there and right is not asked for again"


FAILURES = {
    "forbidden": "HTTP 403",
    "garbage": "sent a wrong file",
    "wrong": "sent a wrong file",
    "shorter": "stopped midway",
    "silent": "stopped midway",
    "nothing": "stopped midway",
    "unannounced": "sent a wrong file",
    "nonsense": "sent a wrong file",
}


@pytest.mark.parametrize("manner", FAILURES)
def test_fetch_mnist_says_what_is_wrong_with_a_mirror(server, tmp_path, monkeypatch, capfd, manner):
    monkeypatch.setattr(mnist, "TIMEOUT_S", 0.3)
    start = time.monotonic()
    message = refusal(mnist.fetch_mnist, tmp_path / "new" / "target", [server.mirror(manner)])
    assert time.monotonic() - start < 2, "the silent mirror was waited for"
    assert f"{server.mirror(manner)} {FAILURES[manner]}" in message
    assert os.listdir(tmp_path / "new" / "target") == []
    assert capfd.readouterr() == ("", "")


def test_fetch_mnist_explains_each_failure_and_the_manual_way(server, tmp_path):
    gone = closed_port()
    mirrors = [server.mirror("forbidden"), server.mirror("shorter"), gone, server.mirror("wrong")]
    message = refusal(mnist.fetch_mnist, tmp_path / "target", mirrors)
    assert f"{gone} unreachable" in message
    assert f"{mirrors[0]} HTTP 403; {mirrors[1]} stopped midway" in message
    assert f"{mirrors[3]} sent a wrong file" in message
    assert f"{str(tmp_path / 'target')!r} by hand" in message
    assert len(server.requests) == 3, "one file that nobody has is enough"


def test_fetch_mnist_goes_on_to_the_next_mirror(server, tmp_path):
    manners = [*FAILURES, "good"]
    manners.remove("silent")
    mnist.fetch_mnist(tmp_path, [closed_port(), *map(server.mirror, manners)])
    assert len(mnist.load_mnist(tmp_path).train) == 5


@pytest.mark.parametrize("manner", ["nonsense", "uncompressed"])
def test_fetch_mnist_takes_right_content_however_it_is_sent(server, tmp_path, manner):
    """A server may unpack what it sends; one whose Content-Length is nonsense is passed over for the next."""
    mnist.fetch_mnist(tmp_path, [server.mirror(manner), server.mirror("uncompressed")])
    assert len(mnist.load_mnist(tmp_path).test) == 3


def test_fetch_mnist_keeps_files_fetched_before(server, tmp_path):
    assert NAMES[1] in refusal(mnist.fetch_mnist, tmp_path, [server.mirror("one")])
    assert os.listdir(tmp_path) == [f"{NAMES[0]}.gz"]
    before = (tmp_path / f"{NAMES[0]}.gz").stat()
    server.requests.clear()
    mnist.fetch_mnist(tmp_path, [server.mirror("good")])
    assert server.requests == [f"/good/{name}.gz" for name in NAMES[1:]]
    assert (tmp_path / f"{NAMES[0]}.gz").stat() == before


@pytest.mark.parametrize("spelling", ["{}.gz", "{}", ".{}"])
def test_fetch_mnist_replaces_only_damaged_files(server, small, tmp_path, spelling):
    place(tmp_path, small | {NAMES[2]: small[NAMES[2]][:-1]}, spelling)
    mnist.fetch_mnist(tmp_path, [server.mirror("good")])
    assert server.requests == [f"/good/{NAMES[2]}.gz"]
    assert len(mnist.load_mnist(tmp_path).test) == 3


def test_load_mnist_names_the_command_that_mends_a_damaged_file(server, small, tmp_path, monkeypatch):
    folder = place(tmp_path / "my digits", small | {NAMES[2]: small[NAMES[2]][:-1]})
    monkeypatch.setenv("SCRATCHGEN_DATA", str(folder))
    command = re.search("`(.*)`", refusal(mnist.load_mnist))[1]
    monkeypatch.setattr(
        commands.data, "fetch_mnist", functools.partial(mnist.fetch_mnist, mirrors=[server.mirror("good")])
    )
    assert cli.main(shlex.split(command)[1:]) == 0
    assert len(mnist.load_mnist().test) == 3


def test_fetch_mnist_needs_no_mirror_and_no_writing_for_complete_files(small, tmp_path):
    place(tmp_path, small)
    tmp_path.chmod(0o555)
    try:
        assert mnist.fetch_mnist(tmp_path, []) == tmp_path
    finally:
        tmp_path.chmod(0o755)


def test_fetch_mnist_refuses_a_target_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refusal(mnist.fetch_mnist, target, [server.mirror("good")])
        assert f"cannot write to {str(target)!r}" in message
    (tmp_path / "target" / f"{NAMES[0]}.gz").mkdir(parents=True)
    assert "directory" in refusal(mnist.fetch_mnist, tmp_path / "target", [server.mirror("good")])
    assert server.requests == [f"/good/{NAMES[0]}.gz"]
    assert os.listdir(tmp_path / "target") == [f"{NAMES[0]}.gz"]


def test_fetch_mnist_reports_missing_permission(server, tmp_path):
    target = tmp_path / "target"
    target.mkdir(0o555)
    if os.access(target, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "Permission denied" in refusal(mnist.fetch_mnist, target, [server.mirror("good")])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_fetch_mnist_leaves_nothing_when_interrupted(tmp_path, monkeypatch, error):
    def downloader(**options):
        def download(url, path, pup):
            path.write_bytes(b"begun")
            raise error

        return download

    monkeypatch.setattr(pooch, "HTTPDownloader", downloader)
    if isinstance(error, OSError):
        assert "No space left" in refusal(mnist.fetch_mnist, tmp_path, ["http://a/", "http://b/"])
    else:
        with pytest.raises(KeyboardInterrupt):
            mnist.fetch_mnist(tmp_path)
    assert os.listdir(tmp_path) == []


def test_load_mnist_downloads_what_the_cache_lacks(server, small, cache, monkeypatch, capfd):
    place(cache, {NAMES[0]: small[NAMES[0]]})
    monkeypatch.setattr(mnist, "fetch_mnist", functools.partial(mnist.fetch_mnist, mirrors=[server.mirror("good")]))
    assert len(mnist.load_mnist().train) == 5
    assert len(server.requests) == 3
    mnist.load_mnist(download=False)
    assert capfd.readouterr() == ("", "MNIST not found: downloading 11 MB into your cache\n")


def test_fetch_mnist_waits_ten_seconds_at_most_for_its_mirrors():
    assert mnist.TIMEOUT_S <= 10
    assert [len(which.mirrors) for which in mnist.PUBLISHED.values()] == [3, 3]


OTHER_DATA = {
    "an IDX file": idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)),
    "an IDX file of other numbers": idx(np.ones((2, 3), np.uint8), kind=0x0D),
    "an IDX file with more": idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)) + b"notes",
    "a text": b"my notes",
    "a short text": b"abc",
}


@pytest.mark.parametrize("spelling", ["{}.gz", "{}", ".{}"])
@pytest.mark.parametrize("content", OTHER_DATA.values(), ids=OTHER_DATA)
def test_fetch_mnist_leaves_other_data_alone(server, small, tmp_path, spelling, content):
    folder = place(tmp_path / "mine", dict.fromkeys(NAMES[1:], content), spelling)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for call in (mnist.fetch_mnist, mnist.load_mnist):
        message = refusal(call, folder, [server.mirror("good")] if call is mnist.fetch_mnist else False)
        assert "data fetch" not in message
        assert message.endswith(("move it away, or give another --data-dir", "leave --data-dir out"))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert server.requests == []


@pytest.mark.parametrize("spelling", ["{}.gz", "{}"])
def test_find_mnist_where_torchvision_puts_it(tmp_path, small, spelling):
    place(tmp_path / "MNIST" / "raw", small, spelling)
    assert mnist.find_mnist(tmp_path) == tmp_path
    assert mnist.missing_files(tmp_path) == []
    assert len(mnist.load_mnist(tmp_path).train) == 5
    assert mnist.fetch_mnist(tmp_path, []) == tmp_path, "nothing is needed"
    place(tmp_path, {NAMES[0]: small[NAMES[0]][:-1]})
    assert f"{NAMES[0]}.gz" in refusal(mnist.load_mnist, tmp_path), "the folder itself comes first"


def test_fetch_mnist_mends_an_unfinished_file_of_torchvision(server, small, tmp_path):
    place(tmp_path / "MNIST" / "raw", small | {NAMES[2]: small[NAMES[2]][:-1]}, "{}")
    mnist.fetch_mnist(tmp_path, [server.mirror("good")])
    assert server.requests == [f"/good/{NAMES[2]}.gz"]
    assert len(mnist.load_mnist(tmp_path).test) == 3


# --- Fashion-MNIST ------------------------------------------------------------------------------------------

FASHION = mnist.FASHION_MNIST


@pytest.fixture
def fashion(small, monkeypatch):
    """Stand-ins for Fashion-MNIST's four .gz files, by name."""
    contents = {name: gzip.compress(content, mtime=0) for name, content in small.items()}
    for name, content in contents.items():
        monkeypatch.setitem(FASHION.sha256, name, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(mnist.SHA256, name, "0")  # else they would be MNIST's, too
    monkeypatch.setattr(gzip, "compress", functools.partial(gzip.compress, mtime=0))  # as the server sends them
    return contents


def test_fetch_mnist_fetches_fashion_mnist_into_a_cache_of_its_own(server, fashion, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SCRATCHGEN_DATA", str(tmp_path))  # which names MNIST's folder
    cache = tmp_path / "cache" / "scratchgen" / "fashion-mnist"
    assert NAMES[1] in refusal(mnist.fetch_mnist, None, [server.mirror("one")], FASHION)
    assert os.listdir(cache) == [f"{NAMES[0]}.gz"]
    server.requests.clear()
    assert mnist.fetch_mnist(None, [server.mirror("wrong"), server.mirror("good")], FASHION) == cache
    assert f"/good/{NAMES[0]}.gz" not in server.requests, "what is there and right is not asked for again"
    assert {name: (cache / f"{name}.gz").read_bytes() for name in NAMES} == fashion
    capfd.readouterr()
    data = load_dataset("fashion-mnist")
    assert capfd.readouterr() == ("", "")
    assert (data.name, data.image_shape, data.classes[:2]) == ("fashion-mnist", (28, 28), ("T-shirt/top", "Trouser"))
    assert (len(data.train), len(data.test)) == (5, 3)
    monkeypatch.setattr(own, "LEAST_TRAINING", 5)
    assert load_dataset(str(cache)).name == "fashion-mnist"
    assert "put the Fashion-MNIST files into" in refusal(mnist.fetch_mnist, tmp_path / "x", [closed_port()], FASHION)


def test_load_mnist_downloads_fashion_mnist(server, fashion, monkeypatch, capfd):
    fetch = functools.partial(mnist.fetch_mnist, mirrors=[server.mirror("good")])
    monkeypatch.setattr(mnist, "fetch_mnist", fetch)
    assert load_dataset("fashion-mnist").name == "fashion-mnist"
    assert capfd.readouterr().err == "Fashion-MNIST not found: downloading 31 MB into your cache\n"
    monkeypatch.setattr(commands.data, "fetch_mnist", fetch)
    assert cli.main(["data", "fetch", "--data", "fashion-mnist"]) == 0


def test_fashion_mnist_is_known_by_its_gz_files_only(fashion, small, tmp_path):
    """Their checksums are published; others of the same content are one's own data, by their path."""
    place(tmp_path, small, "{}")
    message = refusal(mnist.load_mnist, tmp_path, which=FASHION)
    assert "not the Fashion-MNIST file, whose published .gz SHA-256 begins with" in message
    for name, content in fashion.items():
        (tmp_path / f"{name}.gz").write_bytes(content)
    assert len(mnist.load_mnist(tmp_path, which=FASHION).train) == 5
    (tmp_path / f"{NAMES[2]}.gz").write_bytes(fashion[NAMES[2]][:-9])
    message = refusal(mnist.load_mnist, tmp_path, which=FASHION)
    assert f"`scratchgen data fetch --data fashion-mnist --data-dir {tmp_path}`" in message
    download = refusal(mnist.load_mnist, None, False, FASHION)
    assert "`scratchgen data fetch --data fashion-mnist`" in download
    assert "SCRATCHGEN_DATA" not in download


def test_fashion_mnist_where_torchvision_puts_it(fashion, tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in fashion.items():
        (folder / f"{name}.gz").write_bytes(content)
    assert len(mnist.load_mnist(tmp_path, which=FASHION).train) == 5
    assert mnist.missing_files(tmp_path) == NAMES, "not MNIST's"
