"""What the tests of the command line share: a tiny run, and a caller."""

import shutil
from pathlib import Path

import pytest
from helpers import use_tiny, without_figures

from scratchgen import cli


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The command line knows ``TINY``, draws nothing and works in an empty folder."""
    use_tiny(monkeypatch.setattr)
    without_figures(monkeypatch.setattr)
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a run of ``TINY``, with its figures, to be read only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        assert cli.main(["train", "vae", "--config", "tiny", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def call(capsys):
    """Run a command that succeeds without a word on standard error; returns its standard output."""

    def call(*arguments):
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return call
