"""``scratchgen compare``: a table of runs, finished or not, and a figure of the metrics that they share."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import STOPPING, TINIES, TINY, edit, files, use_tiny, without_figures
from matplotlib.image import imread

import scratchgen.figures
from scratchgen import cli, runs

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folders of finished runs, by name, to be read only."""
    folder = tmp_path_factory.mktemp("compare")
    wider = replace(TINY, name="wider", seed=3, network=replace(TINY.network, decoder_hidden=(16, 8)))
    grey = replace(TINY, training=replace(TINY.training, binarize="none"))
    configs = {"a": TINY, "wider": wider, "grey": grey, "stopped": STOPPING, "gan": TINIES["gan"]}
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        without_figures(patch.setattr)
        for name, config in configs.items():
            runs.start(config, folder / name)
    return folder


@pytest.fixture
def these(finished, tmp_path):
    """Copies of them, in the folder where we are."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def compare(capsys):
    """Compare runs; returns the rows of the table by their labels, the other lines, and standard error."""

    def compare(*arguments):
        capsys.readouterr()
        assert cli.main(["compare", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        table = lines[:-1] if lines[-1].endswith(".png") else lines
        return {label: cells for label, *cells in (re.split(" {2,}", line) for line in table)}, lines[len(table) :], err

    return compare


def summary(name):
    return json.loads(Path(name, "summary.json").read_text())


def test_table_shows_what_differs_and_what_was_reached(these, compare):
    rows, rest, err = compare("a", "wider")
    assert err == ""
    assert rest == ["compare.png"]
    reached = {
        f"test {name}": [f"{value:.4g}" if isinstance(value, float) else str(value), other]
        for (name, value), other in zip(
            summary("a")["test"].items(),
            (f"{v:.4g}" if isinstance(v, float) else str(v) for v in summary("wider")["test"].values()),
            strict=True,
        )
    }
    seconds = rows.pop("seconds")
    assert [float(each) for each in seconds] == pytest.approx([summary(name)["seconds"] for name in ("a", "wider")])
    assert rows == {
        "": ["a", "wider"],
        "model": ["vae", "vae"],
        "config": ["tiny", "wider"],
        "network.decoder_hidden": ["16", "16 8"],
        "seed": ["0", "3"],
        "epochs": ["3", "3"],
        **reached,
    }


def test_unfinished_run_is_shown_by_its_last_epoch(these, compare):
    Path("wider/summary.json").unlink()
    last = json.loads(Path("wider/metrics.jsonl").read_text().splitlines()[-1])
    rows, _, _ = compare("a", "wider")
    assert rows["epochs"] == ["3", "3 of 3, unfinished"]
    assert rows["test neg_elbo"][1] == f"{last['test']['neg_elbo']:.4g}"
    assert rows["test nll"][1] == "-"


def test_resumed_run_is_not_shown_by_its_old_summary(these, compare):
    with open("wider/metrics.jsonl", "a") as file:
        entry = {"epoch": 4, "seconds": 9.5, "train": {}, "test": {"neg_elbo": 123.4567}}
        file.write(json.dumps(entry) + "\n")
    edit(Path("wider"), ["epochs"], 7)
    rows, _, _ = compare("a", "wider")
    assert (rows["epochs"][1], rows["seconds"][1]) == ("4 of 7, unfinished", "9.5")
    assert rows["test neg_elbo"][1] == "123.5"


def test_run_without_an_epoch_is_shown_too(these, compare):
    for name in ("summary.json", "metrics.jsonl"):
        Path("wider", name).unlink()
    rows, rest, err = compare("a", "wider")
    assert (rows["epochs"], rows["seconds"][1], rows["test kl"][1]) == (["3", "0 of 3, unfinished"], "-", "-")
    assert (rest, err) == (["compare.png"], "")
    for name in ("summary.json", "metrics.jsonl"):
        Path("a", name).unlink()
    _, rest, err = compare("a", "wider")
    assert rest == []
    assert err == "there is no figure: the runs share no test metric over the epochs\n"


def test_run_that_stopped_early_is_shown_with_its_best_epoch(these, compare):
    rows, _, _ = compare("a", "stopped")
    assert rows["epochs"] == ["3", "3, best 2"]
    assert rows["patience"] == ["-", "1"]
    assert rows["training.beta"] == ["1", "10"]


def test_other_pixels_are_named_in_one_line(these, compare):
    _, rest, err = compare("a", "grey", "--out", "b.png")
    assert rest == []
    assert not Path("b.png").exists()
    assert len(err.splitlines()) == 1
    assert err.startswith("there is no figure: their pixels differ, so their losses cannot be compared: a: strokes, ")
    assert "; grey: strokes, grey levels in [0, 1] as soft targets" in err


def test_other_data_are_named_in_one_line(these, compare, monkeypatch):
    edit(Path("wider"), ["data"], "mnist")
    rows, _, err = compare("a", "wider")
    assert rows["data"] == ["strokes", "mnist"]
    assert "a: strokes, " in err
    assert "; wider: mnist, " in err


def test_data_of_one_s_own_are_known_by_their_digest(these, compare):
    for name, data, digest in (("a", "/old/five", "12345678ab"), ("wider", "/new/five", "12345678ab")):
        edit(Path(name), ["data"], data)
        edit(Path(name), ["data_digest"], digest)
    rows, _, err = compare("a", "wider")
    assert rows["data"] == ["/old/five", "/new/five"]
    assert not {"data_digest", "classes"} & rows.keys()
    assert err == ""
    edit(Path("wider"), ["data_digest"], "87654321ab")
    _, _, err = compare("a", "wider")
    assert "a: five (digest 12345678), binarised" in err
    assert "; wider: five (digest 87654321), binarised" in err


def test_runs_of_different_models_compare_the_settings_that_all_have(these, compare):
    rows, rest, err = compare("gan", "a")
    assert rows["model"] == ["gan", "vae"]
    assert rows["network.latent_dim"] == ["3", "2"]
    assert "training.lr" not in rows
    assert "test class_histogram" not in rows
    assert (rows["test kl"][0], rows["test overlap"][1]) == ("-", "-")
    assert rest == []
    assert err.splitlines()[-1] == "there is no figure: the runs share no test metric over the epochs"
    assert not Path("compare.png").exists()


def test_figure_has_the_test_metrics_that_all_share(these, compare, monkeypatch):
    lines = Path("wider/metrics.jsonl").read_text().splitlines()
    without = [{**entry, "test": {**entry["test"], "mine": 1.0}} for entry in map(json.loads, lines)]
    for entry in without:
        del entry["test"]["kl"]
    Path("wider/metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in without))
    drawn, save = [], scratchgen.figures.save_comparison
    monkeypatch.setattr(scratchgen.figures, "save_comparison", lambda *a: drawn.append(a) or save(*a))
    compare("a", "wider")
    ((_, histories, metrics),) = drawn
    assert metrics == ["neg_elbo", "reconstruction"]
    assert list(histories) == ["a", "wider"]
    assert [entry["epoch"] for entry in histories["wider"]] == [1, 2, 3]
    assert imread("compare.png").std() > 0.01


# ---- mistakes ----


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("a", "two runs or more"),
        ("a a", "each once"),
        ("a ./a/", "each once"),
        ("a nowhere", "nowhere holds no run"),
        ("a wider --out b.txt", "b.txt: give a name that ends in .png"),
        ("a grey --out b.txt", "b.txt: give a name that ends in .png"),  # though there is no figure
        ("a wider --out nowhere/b.png", "nowhere/b.png: cannot be written"),
        ("", "run"),
    ],
)
def test_compare_names_the_mistake_in_one_line(these, capsys, tmp_path, arguments, named):
    before = files(tmp_path)
    assert cli.main(["compare", *arguments.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scratchgen: ")
    assert named in line
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json"])
@pytest.mark.parametrize(
    "content",
    [
        b'{"epoch": 1',
        b"[1]\n",
        b'{"epochs": 3}\n',
        b'{"test": 3, "epochs": 3, "seconds": 1}\n',
        b'{"test": {}, "epochs": 3}\n',
        b'{"test": {}, "epochs": 3, "seconds": "1"}\n',
        b"\xff",
    ],
)
def test_compare_refuses_a_damaged_run(these, capsys, name, content):
    Path("wider", name).write_bytes(content)
    assert cli.main(["compare", "a", "wider"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scratchgen: wider: its metrics.jsonl or summary.json cannot be read (")
