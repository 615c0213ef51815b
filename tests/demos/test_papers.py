"""The reproduced figures: their page is that of their files, their commands exist, and each script runs."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import tiny_data
from lesson_helpers import needs_mnist

from scratchgen import runs
from scratchgen.data import load_dataset
from scratchgen.data.strokes import FACTORS, draw_strokes
from scratchgen.errors import UserError
from scratchgen.evaluation import ais
from scratchgen.evaluation.decoder import vae_decoder
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.optim import SCHEDULES
from scratchgen.recipes import RECIPES
from scratchgen.training import Interrupted

PAPERS = Path(__file__).parents[2] / "demos" / "papers"
SCRIPTS = sorted(path.stem for path in PAPERS.glob("*.py") if path.stem not in ("reproduce", "table"))


@pytest.fixture
def module(monkeypatch):
    """A script as a module."""
    monkeypatch.syspath_prepend(str(PAPERS))
    return importlib.import_module


def test_page_is_that_of_the_results(module):
    assert (PAPERS / "README.md").read_text() == module("table").page()


@pytest.mark.parametrize("path", sorted((PAPERS / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_name_their_command(module, path):
    row = json.loads(path.read_text())
    python, script, name = row["command"].split()
    assert (python, Path(script).parent, name) == ("python", Path("demos/papers"), path.stem)
    figure, *_ = module(Path(script).stem).ROWS[name]
    assert {key: row[key] for key in ("measure", "what", "paper", "source")} == vars(figure)
    assert row["seconds"] > 0


def test_table_has_a_row_for_each_result_below_its_measure(module, monkeypatch, tmp_path):
    table, reproduce = module("table"), module("reproduce")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["anywhere/toy.py"])
    for name, measure, seconds in (("a", "nats", 7200), ("b", "errors", 90), ("c", "nats", 60)):
        figure = reproduce.Figure(measure, f"model {name}", "1.5", "Someone 2015, table 1")
        reproduce.record(name, figure, f"ours {name}", {"nll": 1.0}, seconds, 0, "a note")
    nats, errors = table.page().split("\n## ")[1:]
    assert nats.startswith("nats")
    assert [line.split("|")[3].strip() for line in nats.splitlines() if "model" in line] == ["ours a", "ours c"]
    assert "2.0 h, " in nats
    assert "| 2 min, " in errors
    assert "| model b: a note | 1.5 (Someone 2015, table 1) | ours b | `python demos/papers/toy.py b` |" in errors


def test_a_folder_with_another_training_is_refused(module, monkeypatch, tmp_path):
    reproduce, data = module("reproduce"), tiny_data()
    monkeypatch.setattr(runs, "load_dataset", lambda *_: data)
    network = VAEConfig(latent_dim=2, encoder_hidden=(5,), decoder_hidden=(5,))
    config = replace(RECIPES["vae"].configs["pytorch-example"], network=network, epochs=1, data="strokes")
    first = reproduce.trained(config, tmp_path)
    assert reproduce.trained(config, tmp_path) == first
    other = replace(config, training=replace(config.training, binarize="static"))
    for setting, another in (("epochs", replace(config, epochs=2)), ("training", other)):
        with pytest.raises(UserError, match=f"another {setting}; give another --out, or delete"):
            reproduce.trained(another, tmp_path)


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (UserError("no such data"), 2, "toy.py: no such data\n"),
        (Interrupted(), 130, "stopped; the same command continues the run\n"),
    ],
)
def test_a_script_ends_without_a_traceback(module, monkeypatch, capsys, end, status, said):
    monkeypatch.setattr(sys, "argv", ["demos/papers/toy.py"])
    with pytest.raises(SystemExit) as ended:
        module("reproduce").command(Mock(side_effect=end))
    assert (ended.value.code, capsys.readouterr().err) == (status, said)


def test_vae_is_trained_as_in_the_paper(module):
    _, config = module("vae_likelihood").ROWS["vae"]
    network, training = config.network, config.training
    assert (network.encoder_hidden, network.decoder_hidden, network.latent_dim) == ((200, 200), (200, 200), 50)
    assert (network.activation, network.initializer) == ("tanh", "glorot_uniform")
    assert (config.batch_size, config.epochs) == (20, 3280)
    assert (training.binarize, training.output_bias, training.samples) == ("dynamic", True, 1)
    rate = SCHEDULES[training.schedule](training.lr, 3280 * 3000)
    for stage in range(8):
        first = 3000 * (3**stage - 1) // 2
        assert rate(first) == rate(first + 3000 * 3**stage - 1) == pytest.approx(1e-3 * 10 ** (-stage / 7))


def test_clusters_are_named_by_the_image_that_is_surest(module):
    probabilities = np.array([[0.6, 0.3, 0.1], [0.9, 0.0, 0.1], [0.1, 0.5, 0.4], [0.3, 0.2, 0.5]])
    names = module("aae_labels").names_of(probabilities, np.array([7, 4, 2, 4]))
    assert names.tolist() == [4, 2, 4]  # two clusters of one class


def test_data_of_clusters_have_no_labels_and_no_validation_images(module, monkeypatch, tmp_path):
    script, data = module("aae_labels"), tiny_data()
    monkeypatch.setattr(script, "TRAINING", 500)
    seen = load_dataset(script.without_labels(data, tmp_path / "new"))
    assert seen.classes == ()
    half_a_level = 0.5001 / 255
    np.testing.assert_allclose(seen.train.images, data.train.images[:500], rtol=0, atol=half_a_level)
    np.testing.assert_allclose(seen.test.images, data.test.images, rtol=0, atol=half_a_level)


def test_ais_has_the_decoders_and_the_chains_of_the_paper(module):
    script = module("ais")
    vae, gan = (script.ROWS[row][1] for row in ("vae-50", "gan-50"))
    assert vae.network.decoder_hidden == gan.network.generator_hidden == (1024, 1024, 1024)
    assert (vae.network.latent_dim, gan.network.latent_dim, gan.network.noise) == (50, 50, "normal")
    assert (vae.network.likelihood, vae.training.binarize) == ("gaussian-fixed", "none")
    assert (script.PROTOCOL.chains, ais.LEAPFROG_STEPS, ais.ACCEPTANCE) == (16, 10, 0.65)


def test_ais_fills_the_steps_between_grey_levels(module):
    levels = np.tile(np.arange(256), (100, 1))
    found = module("ais").as_real((levels / 255).astype(np.float32), np.random.default_rng(0))
    assert found.dtype == np.float32
    beyond = 256 * found - levels
    assert -1e-4 < beyond.min() < 0.001
    assert 0.999 < beyond.max() < 1 + 1e-4
    assert abs(beyond.mean() - 0.5) < 0.01


def test_ais_chooses_sigma_without_test_images(module, monkeypatch):
    """Pixels scattered by 0.1 among the validation images and by 0.3 among the test images, around a constant."""
    model = VAE(VAEConfig(30, 2, (4,), (4,), likelihood="gaussian-fixed"), 0)
    model.eval()
    for p in model.decoder_out.parameters():
        p.write(np.full(p.shape, 0.5 if p.ndim == 1 else 0))
    rng = np.random.default_rng(0)
    validation, test = (0.5 + scatter * rng.standard_normal((100, 30)) for scatter in (0.1, 0.3))
    script = module("ais")
    protocol = ais.Protocol(images=50, chains=2, steps=20, simulate=3)
    found = script.measured(vae_decoder(model), protocol, validation, test)
    variance = np.mean((script.as_real(validation[:50], rng) - 0.5) ** 2)
    assert found["sigma"] == pytest.approx(variance**0.5, rel=0.02)
    errors = ((script.as_real(test[:50], rng) - 0.5) ** 2).sum(axis=1)
    exact = -errors / (2 * found["sigma"] ** 2) - 15 * np.log(2 * np.pi * found["sigma"] ** 2)
    assert found["log_p"] == pytest.approx(exact.mean(), rel=0.01)
    assert found["standard_error"] == pytest.approx(exact.std(ddof=1) / 50**0.5, rel=0.01)
    assert (found["images"], found["simulated"]["images"]) == (50, 3)
    assert abs(found["simulated"]["gap"]) < 1e-3


def test_disentanglement_rows_differ_only_in_what_they_compare(module):
    rows = {name: config for name, (_, config) in module("disentanglement").ROWS.items()}
    assert {config.data for config in rows.values()} == {"strokes"}
    sizes = {(c.network.latent_dim, c.network.encoder_hidden, c.network.decoder_hidden) for c in rows.values()}
    assert len(sizes) == 1
    vaes = {name: config for name, config in rows.items() if config.model == "vae"}
    assert rows.keys() - vaes.keys() == {"supervised-aae"}
    assert rows["supervised-aae"].network.labels_for == "decoder"
    for name, config in vaes.items():
        assert (config.training.beta, config.network.conditional) == (int(name[-1]), "conditional" in name)


def test_disentanglement_draws_codes_from_the_posterior(module):
    script = module("disentanglement")
    config = script.ROWS["conditional-beta-vae-4"][1]
    recipe = RECIPES["vae"]
    model, one = recipe.build(config), draw_strokes(1, rng=0)
    (bias,) = (p for p in model.encoder_logvar.parameters() if p.ndim == 1)
    bias.write(np.array([-4.0, -2.0, 0.0, 2.0]))
    many = np.repeat(one.images, 20_000, axis=0), np.repeat(one.labels, 20_000)
    found, codes = recipe.encode(config, model, one.images, one.labels), script.draws(config, model, *many)
    np.testing.assert_allclose(codes.mean(axis=0), found["codes"][0], atol=0.08)  # four standard errors
    np.testing.assert_allclose(codes.var(axis=0), np.exp(found["logvar"][0]), rtol=0.05)


def test_disentanglement_measures_each_factor_and_the_digit(module, monkeypatch):
    """An encoder that reads the factors: each code one of them, and none of them the digit."""
    script = module("disentanglement")
    drawn = draw_strokes(6_000, rng=3)
    codes = np.column_stack([drawn.factors[name] for name in FACTORS])

    class Known:
        def encode(self, config, model, images, labels):
            return {"codes": codes}

        def reconstruct(self, config, model, images, labels):
            return np.clip(images + 0.1, 0.1, None)

    config = script.ROWS["supervised-aae"][1]
    monkeypatch.setitem(script.RECIPES, "aae", Known())
    monkeypatch.setattr(script, "half_way", lambda *_: 0.7)
    found = script.measured(config, None, drawn)
    assert found["smoothness"] == 0.7
    assert found["gap"].keys() == found["r_squared"].keys() == FACTORS.keys()
    assert min(found["gap"].values()) > 0.7  # codes are in bins of equal width, factors in bins of equal numbers
    assert min(found["r_squared"].values()) == pytest.approx(1)
    assert found["digits_told"] == pytest.approx(0.1, abs=0.03)
    assert found["reconstruction_mse"] == pytest.approx(0.01, rel=1e-3)


def test_disentanglement_looks_at_the_digit_half_way(module, monkeypatch):
    """Codes that are the factors, and a decoder that draws with them, or fades."""
    script = module("disentanglement")
    drawn = draw_strokes(200, script.DRAWN_BY)
    seen = []

    class Known:
        def encode(self, config, model, images, labels):
            seen.append(images)
            np.testing.assert_array_equal(labels, drawn.labels)
            factors = drawn.factors if len(seen) == 1 else draw_strokes(200, rng=2).factors
            return {"codes": np.column_stack([factors[name] for name in FACTORS])}

    def draw(model, codes, labels):
        return draw_strokes(200, script.DRAWN_BY, factors=dict(zip(FACTORS, codes.T, strict=True))).images

    monkeypatch.setitem(script.RECIPES, "aae", Known())
    monkeypatch.setattr(script.aae, "decode", draw)
    config = script.ROWS["supervised-aae"][1]
    assert script.half_way(config, None, drawn) == pytest.approx(1, abs=1e-9)
    assert np.abs(seen[0] - seen[1]).mean() > 0.02
    monkeypatch.setattr(script.aae, "decode", lambda *_: (seen[0] + seen[1]) / 2)
    seen.clear()
    assert script.half_way(config, None, drawn) == pytest.approx(0, abs=1e-6)


def test_disentanglement_traverses_one_dimension_a_row(module):
    script = module("disentanglement")
    code = np.array([5.0, 6.0, 7.0])
    rows = script.traversed(code).reshape(3, len(script.STEPS), 3)
    for j, row in enumerate(rows):
        np.testing.assert_array_equal(row[:, j], script.STEPS)
        np.testing.assert_array_equal(np.delete(row, j, axis=1), np.delete(np.tile(code, (len(row), 1)), j, axis=1))


def test_disentanglement_in_words_is_of_means_over_factors_and_spreads_over_seeds(module):
    script = module("disentanglement")
    seeds = [
        {
            **{"gap": {"a": g, "b": g + 0.2}, "r_squared": {"a": 0.3, "b": 0.5}},
            **{"digits_told": 0.5, "smoothness": 0.6, "reconstruction_mse": e},
        }
        for g, e in ((0.1, 0.01), (0.2, 0.01), (0.3, 0.04))
    ]
    first, second = (
        "gap 0.300 ± 0.100; R² 0.40 ± 0.00; digits 0.50 ± 0.00; ",
        "smoothness 0.60 ± 0.00; error 0.0200 ± 0.0173",
    )
    assert script.in_words(seeds) == first + second
    assert script.in_words(seeds[:1]) == "gap 0.200; R² 0.40; digits 0.50; smoothness 0.60; error 0.0100"


@needs_mnist
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_quick_form_runs_and_records_nothing(module, tmp_path, script):
    before = (PAPERS / "README.md").read_text(), sorted((PAPERS / "results").iterdir())
    row = next(iter(module(script).ROWS))
    command = [sys.executable, str(PAPERS / f"{script}.py"), row, "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("test")
    assert before == ((PAPERS / "README.md").read_text(), sorted((PAPERS / "results").iterdir()))
