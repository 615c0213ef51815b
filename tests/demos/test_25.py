"""The lesson on adversarial autoencoders: what it prints of a short run."""

import pytest
from lesson_helpers import run


@pytest.mark.slow
def test_lesson_25_prints_all_rows_and_draws(tmp_path):
    got, files = run("25_aae_mnist", tmp_path, "--quick", "--data", "strokes")
    assert len(got) == 10
    assert float(got["the same without adversary"]) < float(got["fresh discriminator's bce, ln 2 = 0.693"]) < 0.72
    assert {"latent.png", "manifold.png", "styles.png", "samples.png"} <= {file.name for file in files}
