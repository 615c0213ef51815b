"""The table of the three gradient checkers: what this project's must say of each formula."""

import pytest

from tests.benchmarks import gradient_checks
from tests.benchmarks.gradient_checks import RIGHT, WRONG, common, pytorch, scratchgen

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("formula", WRONG, ids=lambda formula: formula.name)
def test_scratchgen_catches_every_wrong_gradient(formula):
    assert scratchgen(formula) == "error"


@pytest.mark.parametrize("formula", RIGHT, ids=lambda formula: formula.name)
def test_scratchgen_raises_no_false_alarm(formula):
    assert scratchgen(formula) == ("undecided" if formula.name == "2x + 1e10" else "pass")


def test_the_others_catch_a_flipped_sign_and_pass_tanh():
    flipped = next(formula for formula in WRONG if formula.name == "tanh: sign flipped")
    assert (common(flipped), common(RIGHT[0])) == ("error", "pass")
    pytest.importorskip("torch")
    assert (pytorch(flipped), pytorch(RIGHT[0])) == ("error", "pass")


def test_the_table_does_without_pytorch(monkeypatch, capsys):
    monkeypatch.setattr(gradient_checks, "torch", None)
    for name in ("WRONG", "RIGHT"):
        monkeypatch.setattr(gradient_checks, name, getattr(gradient_checks, name)[:2])
    gradient_checks.main()
    said = capsys.readouterr().out
    assert said.startswith("PyTorch is not installed, so its checker is left out")
    assert "wrong gradient                      scratchgen   common\n" in said
    assert "2 of 2       1 of 2" in said
