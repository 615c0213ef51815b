"""The bound and the gap of L14: its terms against sums written out, EM's half steps, and what the lesson prints."""

import numpy as np
import pytest
from lesson_helpers import load, run

from scratchgen.models.bernoulli_mixture import BernoulliMixture

LESSON = "14_bound_and_gap"


@pytest.fixture(scope="module")
def demo():
    return load(LESSON)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What ``--quick`` prints: the figures by name, and its files."""
    return run(LESSON, tmp_path_factory.mktemp("lesson"), "--quick")


@pytest.fixture
def model(demo):
    """p(z) (4,), p(x|z) (6, 4) and log p(x, z) (6, 4)."""
    prior, likelihood = demo.draw_model(np.random.default_rng(0))
    return prior, likelihood, np.log(prior * likelihood)


# ---- the identity ----


def test_draw_model_draws_distributions(model):
    prior, likelihood, _ = model
    assert (prior.shape, likelihood.shape) == ((4,), (6, 4))
    np.testing.assert_allclose(prior.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(likelihood.sum(axis=0), 1, rtol=1e-12)  # over x, for each z


def test_posterior_is_the_share_of_each_code_among_joint_draws(demo, model):
    prior, likelihood, _ = model
    rng = np.random.default_rng(1)
    z = rng.choice(4, 200_000, p=prior)
    x = (rng.random((200_000, 1)) > likelihood.cumsum(axis=0).T[z]).sum(axis=1)
    counts = np.zeros((6, 4))
    np.add.at(counts, (x, z), 1)
    np.testing.assert_allclose(demo.evidence(prior, likelihood), counts.sum(axis=1) / 200_000, atol=0.006)
    np.testing.assert_allclose(demo.posterior(prior, likelihood), counts / counts.sum(axis=1)[:, None], atol=0.02)


def test_bound_and_kl_are_their_sums(demo, model):
    _, _, log_joint = model
    q = np.random.default_rng(2).dirichlet(np.ones(4), 6)
    other = np.random.default_rng(3).dirichlet(np.ones(4), 6)
    for x in range(6):
        lower = sum(q[x, z] * (log_joint[x, z] - np.log(q[x, z])) for z in range(4))
        divergence = sum(q[x, z] * np.log(q[x, z] / other[x, z]) for z in range(4))
        assert demo.bound(q, log_joint)[x] == pytest.approx(lower, rel=1e-12)
        assert demo.kl(q, other)[x] == pytest.approx(divergence, rel=1e-12)


def test_bound_and_kl_take_0_log_0_for_0(demo, model):
    prior, _, log_joint = model
    certain = np.eye(4)
    np.testing.assert_allclose(demo.kl(certain, prior), -np.log(prior), rtol=1e-12)
    np.testing.assert_allclose(demo.bound(certain, log_joint[:1]), log_joint[0], rtol=1e-12)


def test_bound_and_gap_add_up_to_log_p(demo, model):
    prior, likelihood, log_joint = model
    q = demo.draw_q(np.random.default_rng(4), 500, 6, 4)
    total = demo.bound(q, log_joint) + demo.kl(q, demo.posterior(prior, likelihood))
    np.testing.assert_allclose(total, np.broadcast_to(np.log(likelihood @ prior), total.shape), atol=1e-12)


def test_gap_is_zero_for_the_posterior_alone(demo, model):
    prior, likelihood, log_joint = model
    p = demo.posterior(prior, likelihood)

    def gap(q):
        return np.log(likelihood @ prior) - demo.bound(q, log_joint)

    np.testing.assert_allclose(gap(p), 0, atol=1e-12)
    for z in range(4):
        for nudge in (1e-3, -1e-3):
            q = p.copy()
            q[:, z] *= 1 + nudge
            q /= q.sum(axis=1, keepdims=True)
            assert (gap(q) > 1e-9).all()


def test_draw_q_draws_distributions_and_every_certain_one(demo):
    q = demo.draw_q(np.random.default_rng(5), 50, 6, 4)
    np.testing.assert_allclose(q.sum(axis=-1), 1, rtol=1e-12)
    np.testing.assert_array_equal(q[-4:, 0], np.eye(4))


# ---- gradient ascent ----


def test_ascend_takes_its_first_step_along_the_gradient(demo, model):
    _, _, log_joint = model
    # at q = 1/4: dL/da_z = (log p(x, z) - mean over z of log p(x, z)) / 4
    logits = 0.1 * (log_joint - log_joint.mean(axis=1, keepdims=True)) / 4
    q, bounds = demo.ascend(log_joint, 1, lr=0.1)
    np.testing.assert_allclose(q, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(bounds[0], log_joint.mean(axis=1) + np.log(4), rtol=1e-12)


def test_ascend_raises_the_bound_to_log_p(demo, model):
    prior, likelihood, log_joint = model
    q, bounds = demo.ascend(log_joint, 3_000)
    assert np.diff(bounds, axis=0).min() > -1e-14
    np.testing.assert_allclose(q, demo.posterior(prior, likelihood), atol=1e-6)
    np.testing.assert_allclose(demo.bound(q, log_joint), np.log(likelihood @ prior), atol=1e-12)


# ---- EM ----


@pytest.fixture
def images(demo):
    return demo.draw_images(300, np.random.default_rng(6))


def test_m_step_maximises_the_bound(demo, images):
    mixture = demo.first_mixture(images, np.random.default_rng(7))
    q = demo.e_step(mixture, images)
    demo.m_step(mixture, images, q)
    best = demo.bound(q, mixture.log_joint(images)).sum()
    weights, templates = np.exp(mixture.log_weights), mixture.templates
    for change in (1.01, 0.99):
        for k in range(demo.COMPONENTS):
            moved = weights * np.where(np.arange(demo.COMPONENTS) == k, change, 1)
            mixture.log_weights, mixture.templates = np.log(moved / moved.sum()), templates
            assert demo.bound(q, mixture.log_joint(images)).sum() < best
            for d in range(demo.PIXELS):
                mixture.log_weights, mixture.templates = np.log(weights), templates.copy()
                mixture.templates[k, d] *= change
                assert demo.bound(q, mixture.log_joint(images)).sum() < best


def test_run_em_touches_log_p_after_every_e_step_and_never_falls(demo, images):
    mixture = demo.first_mixture(images, np.random.default_rng(8))
    seen = demo.run_em(mixture, images, 15)
    lower, log_p = seen.T
    assert seen.shape == (31, 2)
    np.testing.assert_allclose(lower[1::2], log_p[1::2], atol=1e-12)
    assert (lower <= log_p + 1e-12).all()
    assert np.diff(lower).min() > -1e-12
    np.testing.assert_array_equal(np.diff(log_p)[::2], 0)  # an E-step changes no parameter
    assert np.diff(log_p)[1::2].min() > -1e-12
    assert log_p[-1] - log_p[0] > 0.5


def test_run_em_ends_where_the_mixture_s_own_fit_does(demo, images):
    mixture = demo.first_mixture(images, np.random.default_rng(9))
    demo.run_em(mixture, images, 10)
    fitted = BernoulliMixture(demo.COMPONENTS, 1e-9).fit(images, rng=np.random.default_rng(9), iterations=10)
    np.testing.assert_allclose(mixture.templates, fitted.templates, atol=1e-7)
    np.testing.assert_allclose(mixture.log_weights, fitted.log_weights, atol=1e-7)


# ---- amortisation ----


def test_train_encoder_closes_the_gap_only_where_it_sees_all_pixels(demo, images):
    mixture = demo.first_mixture(images, np.random.default_rng(10))
    demo.run_em(mixture, images, 10)
    held_out = demo.draw_images(1_000, np.random.default_rng(11))
    full = demo.train_encoder(mixture, images, held_out, np.random.default_rng(12), 200)
    poor = demo.train_encoder(mixture, images, held_out, np.random.default_rng(12), 200, visible=3)
    assert full.shape == (200, 2)
    assert full.min() > -1e-12
    assert full[-1].max() < 0.05 < 0.2 < poor[-1].min()
    assert full[0].min() > 0.2


# ---- what the lesson prints ----


def test_lesson_14_prints_the_identity(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["|log p(x) - L - KL(q || p(z|x))|, largest"] < 1e-12
    assert got["|L - (E_q[log p(x|z)] - KL(q || p(z)))|"] < 1e-12
    assert got["smallest gap of these q"] > 0
    assert got["smallest gap / its lower limit by Pinsker"] >= 1
    assert got["|log p(x) - L(p(z|x))|, largest"] < 1e-12


def test_lesson_14_prints_that_ascent_and_em_close_the_gap(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert got["ascent of q: gap at its end, largest"] < 1e-12
    assert got["|q - p(z|x)| at its end, largest"] < 1e-6
    assert got["EM: |log p(x) - L| after an E-step, largest"] < 1e-12
    assert got["EM: log p(x) - L after the first M-step"] > 1e-3
    assert got["EM: smallest rise of L in a half step"] > -1e-12
    assert got["EM: smallest rise of log p(x) in an M-step"] > -1e-12
    assert got["EM: that rise - the rise of L, smallest"] > -1e-12
    assert got["EM: rise of log p(x) in all"] > 0.1
    assert got["|templates - BernoulliMixture.fit's|, largest"] < 1e-6


def test_lesson_14_prints_the_gaps_of_encoders(table):
    got = {name: float(value) for name, value in table[0].items()}
    assert 0 <= got["encoder: mean gap, images trained on"] < 0.05
    assert 0 <= got["encoder: mean gap, held-out images"] < 0.05
    assert got["the same where it sees half of the pixels"] > 0.1


def test_lesson_14_ends_with_its_figure(table):
    (picture,) = table[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
