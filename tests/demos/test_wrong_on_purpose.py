"""The gallery of what is wrong on purpose: a test for each entry, of what is wrong and of what is right."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from lesson_helpers import load


@pytest.fixture(scope="module")
def gallery():
    """The lesson with its short trainings."""
    return load("wrong_on_purpose")


def values(entry):
    """The rows of an entry as two dictionaries: what is written, and what is right."""
    rows = entry()
    return {what: written for what, written, _ in rows}, {what: right for what, _, right in rows}


def test_the_encoder_sums_to_one_over_codes(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_encoder))
    assert written[0] < 0.9
    assert right[0] == pytest.approx(1, abs=1e-12)
    assert right[1] == pytest.approx(right[2], abs=1e-12)
    assert abs(written[1] - written[2]) > 0.2
    assert right[2] == pytest.approx(math.log(1 / 3 * 0.7 + 2 / 3 * 0.1), abs=1e-12)


def test_the_decoder_gives_the_data_s_distribution_and_the_bound_is_of_log_p(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_decoder))
    assert written[0] > 0.05
    assert right[0] == pytest.approx(0, abs=1e-12)
    assert written[1] > 1  # above log p(x|z), of which it is no bound
    assert -1e-3 < right[1] <= 0  # never above log p(x), and nearly there for the best of the thousand


def test_the_logarithm_makes_a_bound_whose_best_q_is_the_posterior(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_logarithm))
    assert written[0] > 1
    assert right[0] == pytest.approx(0, abs=1e-12)
    assert written[1] > 0.1
    q = gallery.POSTERIOR + np.array([[0.05], [-0.05]])  # any other q is worse
    assert (gallery.bound(q) < gallery.bound(gallery.POSTERIOR)).all()


def test_the_sample_index_lowers_the_variance(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_sample_index))
    assert written[0] == pytest.approx(right[0], abs=0.03)
    p = gallery.POSTERIOR[0, 0]
    variance = p * (1 - p) * math.log(7) ** 2  # of log 0.7 and log 0.1
    assert written[1] == pytest.approx(variance, rel=0.05)
    assert right[1] == pytest.approx(variance / 10, rel=0.05)


def test_the_pixels_are_all_summed_with_the_constant(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_pixels))
    assert right[0] - written[0] > 400
    assert written[1] == pytest.approx(math.sqrt(2 * math.pi), abs=1e-3)
    assert right[1] == pytest.approx(1, abs=1e-6)


def test_the_normal_takes_a_variance_and_new_noise_for_each_sample(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_normal))
    assert written[0] == pytest.approx(0.3, rel=0.02)
    assert right[0] == pytest.approx(0.09, rel=0.02)
    assert (written[1], right[1]) == (1, 10)


def test_the_perfect_reconstruction_has_no_largest_density(gallery):
    _, right = values(gallery.the_perfect_reconstruction)
    constant = 392 * math.log(2 * math.pi)
    assert list(right.values()) == pytest.approx([0, 784 * math.log(10) - constant, -constant], abs=1e-9)


def test_the_condition_is_on_x(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_condition))
    assert (written[0], right[0]) == (2, 1)
    assert right[1] == pytest.approx(1 / 3, abs=1e-12)


def test_the_intractable_is_the_evidence(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_intractable))
    assert (right[0], right[1]) == (1, 4096)
    assert (written[0], written[1]) == ("too many", "not said")
    assert right[2] - written[2] > 10


def test_the_discriminator_of_the_product_is_a_threshold(gallery):
    written, right = (np.array(list(column.values())) for column in values(gallery.the_discriminator))
    assert written.tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(right, gallery.P / (gallery.P + gallery.P_G), atol=1e-4)


def test_the_generator_has_its_gradient_where_samples_are_rejected(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_generator))
    assert written == pytest.approx([0.0099, 0.25, 0.0099], abs=1e-12)
    assert right == pytest.approx([0.99, 0.5, 0.01], abs=1e-12)


def test_the_end_of_the_game_is_a_draw(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_end_of_the_game))
    assert right == pytest.approx([-math.log(4), 0, 0.5], abs=1e-9)
    assert written[1] > 0.2  # it began elsewhere


def test_the_large_error_is_one_half(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_large_error))
    assert right == pytest.approx([0.5, math.log(2)], abs=1e-9)
    assert written[1] == pytest.approx(-(math.log(0.9) + math.log(0.1)) / 2, abs=1e-9)


def test_the_label_of_the_prior_draws_codes_to_it(gallery):
    written, right = (list(column.values()) for column in values(gallery.the_label))
    assert abs(right[0]) < 0.05
    assert written[0] > 3


def test_a_variance_as_standard_deviation_reports_less_than_a_bound_can(gallery):
    written, right = values(gallery.a_variance_as_standard_deviation)
    assert written["Var[z] / e^logvar at logvar = -2"] == pytest.approx(math.exp(-2), rel=0.02)
    assert right["Var[z] / e^logvar at logvar = -2"] == pytest.approx(1, abs=0.02)
    assert written["Var[z] / e^logvar at logvar = 0"] == pytest.approx(1, abs=0.02)  # there it does not show
    reported, honest, nll = list(written.values())[2:]
    assert reported < nll < honest - 2
    reported, honest, nll = list(right.values())[2:]
    assert nll < reported == honest


def test_a_mean_beside_a_sum_lets_the_kl_collapse(gallery):
    written, right = (list(column.values()) for column in values(gallery.a_mean_beside_a_sum))
    kl, active, spread, loss = written
    assert kl < 0.01
    assert active == 0
    assert spread < 0.03
    assert loss > right[3] + 30
    assert right[0] > 5
    assert right[1] >= 6
    assert right[2] > 0.08


def test_a_leaking_gradient_makes_samples_narrow(gallery):
    written, right = (list(column.values()) for column in values(gallery.a_leaking_gradient))
    assert written[0] > 0.05
    assert right[0] == 0
    assert (written[1], right[1]) == (0, -0.5)
    assert right[2] < 0.25 < 0.4 < written[2]
    assert written[3] < 0.8 < right[3]


def test_gallery_has_a_test_for_each_entry(gallery):
    entries = re.findall(r"^@entry\ndef (\w+)", Path(gallery.__file__).read_text(), re.MULTILINE)
    assert len(entries) == 14 + 3
    tests = [name.removeprefix("test_") for name in globals()]
    assert [entry for entry in entries if not any(test.startswith(entry) for test in tests)] == []


def test_gallery_draws_the_symptoms(gallery, tmp_path):
    gallery.draw(tmp_path / "symptoms.png")
    assert (tmp_path / "symptoms.png").read_bytes().startswith(b"\x89PNG")
