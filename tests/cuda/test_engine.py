"""The engine on the GPU: gradients of every operation, and a step of each model equal to the reference's."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

pytest.importorskip("numba_cuda", reason="there are no CUDA kernels to test, for numba-cuda is not installed")

from helpers import TINIES, use_tiny
from task_helpers import bits, captured, eager

import kernels
from kernels.cuda import array as arrays
from kernels.cuda import device, memory
from kernels.cuda.array import DeviceArray
from kernels.cuda.device import SIMULATED, cuda
from kernels.cuda.memory import to_device, to_host
from scratchgen import cli, runs
from scratchgen.capture import Capture, Captured
from scratchgen.data.dataset import Dataset, Split
from scratchgen.gradcheck import LONG, check_registry, format_table
from scratchgen.models.aae import AAE, AAEConfig
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.op import REGISTRY
from scratchgen.random import RandomStream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.aae import AAETask, AAETraining
from scratchgen.tasks.gan import GANTask, GANTraining
from scratchgen.tasks.vae import VAETask, VAETraining
from scratchgen.tasks.wgan import WGANTask
from scratchgen.tensor import Tensor
from tests.cuda.test_cuda_graph import Graph

pytestmark = pytest.mark.skipif(
    not (SIMULATED or cuda.is_available()), reason="there is no GPU; the simulated run has these tests"
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# ---- arrays on the device behave as NumPy's ----

VIEWS = {
    "rows": lambda x: x[1:3],
    "a row": lambda x: x[-1],
    "an element": lambda x: x[1, 2, 3],
    "columns": lambda x: x[:, 1:],
    "backwards": lambda x: x[::-1, :, ::-2],
    "a new axis": lambda x: x[None],
    "the last": lambda x: x[..., -1],
    "by an array": lambda x: x[np.array([2, 0, 2])],
    "by a truth": lambda x: x[True],
    "none": lambda x: x[3:1],
    "turned": lambda x: x.transpose(2, 0, 1),
    "turned round": lambda x: x.transpose(),
    "reshaped": lambda x: x.reshape(2, -1),
    "summed": lambda x: x.sum(axis=(0, 2)),
    "summed and kept": lambda x: x.sum(axis=(1,), keepdims=True),
    "summed to nothing": lambda x: x.sum(axis=()),
    "zeros": lambda x: np.zeros_like(x),
    "sum": lambda x: x + x,
    "difference": lambda x: x - 2 * x,
    "product": lambda x: x * x,
    "scaled": lambda x: -(1.5 * x),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_device_array_acts_like_numpy(view, dtype, rng):
    x = rng.standard_normal((4, 3, 5)).astype(dtype)
    found, wanted = view(to_device(x)), np.asarray(view(x))
    assert isinstance(found, DeviceArray)
    assert (found.shape, found.dtype, len(found.shape)) == (wanted.shape, wanted.dtype, found.ndim)
    np.testing.assert_allclose(to_host(found), wanted, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14)


def test_device_array_is_written_by_slices(rng):
    x, y = rng.standard_normal((4, 5)), rng.standard_normal((4, 1))
    array = to_device(x)
    for index, value in ((..., 2.0), ((slice(None), slice(1, 3)), y), ((0,), x[1]), (slice(2, 4), to_device(x[:2]))):
        array[index] = value
        x[index] = to_host(value) if isinstance(value, DeviceArray) else value
        np.testing.assert_array_equal(to_host(array), x)
    with pytest.raises(ValueError, match="broadcast"):
        array[...] = np.zeros(3)


@pytest.mark.parametrize(("to", "source"), [((slice(1, None),), (slice(-1),)), ((slice(-1),), (slice(1, None),))])
def test_device_array_is_written_by_its_own_numbers(to, source, rng):
    x = rng.standard_normal((4, 3))
    array = to_device(x)
    array[to] = array[source]
    x[to] = x[source]
    np.testing.assert_array_equal(to_host(array), x)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate_puts_arrays_one_after_the_other(axis, rng):
    parts = [rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))]
    expected = np.concatenate(parts, axis)
    out = to_device(np.full(expected.shape, np.nan))
    memory.concatenate(out, [to_device(part) for part in parts], axis)
    np.testing.assert_array_equal(to_host(out), expected)


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), slice(0)], ids=["all", "some", "none"])
def test_rows_writes_those_that_are_chosen(part, rng):
    x, chosen = rng.standard_normal((7, 3)), np.array([6, 0, 6, 2, 5])
    out = to_device(np.full((len(chosen[part]), 3), np.nan))
    memory.rows(out, to_device(x), to_device(chosen)[part])
    np.testing.assert_array_equal(to_host(out), x[chosen[part]])


def test_block_gives_back_what_nobody_holds_where_no_memory_is_left(monkeypatch):
    to_device(np.zeros(1_234))  # so that there is some: nobody holds it
    plain, asked = cuda.device_array, []

    def out_of_memory(size, dtype):
        asked.append(size)
        if any(device.Block.free.values()):
            raise MemoryError("none left")
        return plain(size, dtype)

    monkeypatch.setattr(cuda, "device_array", out_of_memory)
    np.testing.assert_array_equal(to_host(to_device(np.arange(4_321.0))), np.arange(4_321.0))
    assert asked == [4_321, 4_321]
    monkeypatch.setattr(cuda, "device_array", lambda size, dtype: bytes(-1))
    with pytest.raises(ValueError, match="negative"):  # where that does not help, the driver's error stays
        to_device(np.zeros(777))


def test_block_is_not_given_away_while_somebody_holds_it():
    array = to_device(np.arange(6.0))
    row = array.reshape(2, 3)[1]
    del array
    others = [to_device(np.zeros(6)) for _ in range(3)]
    np.testing.assert_array_equal(to_host(row), [3, 4, 5])
    where = row._block.numbers
    del row
    assert to_device(np.zeros(6))._block.numbers is where
    assert all(other._block.numbers is not where for other in others)


# ---- operations ----


@pytest.mark.parametrize(
    "name",
    # conv_transpose2d_bias stays
    [pytest.param(name, marks=pytest.mark.slow if name == "conv_transpose2d" else ()) for name in REGISTRY],
)
def test_gradcheck_passes(name):
    long = () if SIMULATED else LONG  # in the simulator a long dimension takes a minute
    (row,) = check_registry([name], ["cuda"], repeats=1, long=long)
    assert row.passed, format_table([row])


def test_tensor_lies_on_the_device():
    with kernels.use("cuda"):
        x = Tensor(np.ones((2, 3)), requires_grad=True)
        y = (x * 2.0 + np.ones(3)).sum()
        y.backward()
        assert all(isinstance(a, DeviceArray) for a in (x._data, y._data, x.grad))
    assert y.item() == 18
    np.testing.assert_array_equal(np.asarray(x.grad), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(x.data, np.ones((2, 3)))
    assert "shape (2, 3)" in repr(x)


# ---- models ----


def vae(**training):
    config = VAEConfig(11, 3, (7,), (6,), likelihood=training.pop("likelihood", "bernoulli"))
    model = VAE(config, np.random.default_rng(1), np.float64)
    return VAETask(model, VAETraining(**training), RandomStream(4), 3, 2)


def gan(discriminator="leaky_relu", optimizer="adam"):
    dropout = 0.3 if discriminator == "maxout" else 0.0
    config = GANConfig(
        11, 3, "normal", (6, 7), True, (7, 5), discriminator, 3, input_dropout=dropout, hidden_dropout=dropout
    )
    model = GAN(config, np.random.default_rng(1), np.float64)
    return GANTask(model, GANTraining(optimizer=optimizer), RandomStream(4), 3, 2, lambda *_: {})


def aae(
    posterior="deterministic",
    prior="gaussian",
    labels_for="discriminator",
    optimizer="sgd",
    known=9,
    moved=0,
    heads=0.0,
):
    config = AAEConfig(11, 2, (7,), (6,), (5,), posterior, 3, prior, labels_for, head_distance=heads)
    labelled = Split(np.random.default_rng(3).random((known, 11), np.float32), np.arange(known))
    object.__setattr__(labelled, "images", labelled.images.astype(np.float64))  # to check, not to train
    model = AAE(config, np.random.default_rng(1), np.float64)
    settings = AAETraining(encoder_optimizer=optimizer, consistency=float(moved > 0), moved=moved)
    return AAETask(model, settings, RandomStream(4), 3, 2, labelled, lambda *_: {}, (1, 11))


def conv_vae():
    config = VAEConfig(16, 3, (7,), (6,), encoder_channels=(2,), decoder_channels=(3,))
    return VAETask(VAE(config, np.random.default_rng(1), np.float64), VAETraining(), RandomStream(4), 3, 2)


def conv_gan(objective="non-saturating", **options):
    config = GANConfig(
        *(16, 3, "normal", (), True, ()), pack=1, generator_channels=(3,), discriminator_channels=(2,), **options
    )
    kind, model = WGANTask if objective == "wasserstein" else GANTask, GAN(config, np.random.default_rng(1), np.float64)
    return kind(model, GANTraining(objective=objective), RandomStream(4), 3, 2, lambda *_: {})


def late_vae():
    """Adam's corrections are 1 by now: no rate changes."""
    task = vae()
    task.optimizer.steps = 10**6
    return task


TASKS = {
    "vae": vae,
    "vae-late": late_vae,
    "vae-samples": lambda: vae(samples=2, monte_carlo_kl=True),
    "vae-gaussian": lambda: vae(likelihood="gaussian"),
    "vae-gaussian-fixed": lambda: vae(likelihood="gaussian-fixed", beta=0.5),
    "vae-conv": conv_vae,
    "gan": gan,
    "gan-maxout": lambda: gan("maxout", "momentum"),
    "gan-conv": conv_gan,
    "gan-wasserstein": lambda: conv_gan("wasserstein", discriminator_batch_norm=False),
    "aae": aae,
    "aae-gaussian-adam": lambda: aae("gaussian", optimizer="adam"),
    "aae-mixture": lambda: aae("universal", "mixture"),
    "aae-labels": lambda: aae(labels_for="encoder"),
    "aae-one-label": lambda: aae(labels_for="encoder", known=1),
    "aae-moved": lambda: aae(labels_for="encoder", moved=2, heads=3.0),
}
FAST = ("vae", "vae-conv", "gan", "aae-mixture")  # in the simulator
EACH_TASK = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TASKS]


def trained(make, kernel_set, steps, way=eager):
    """The state after so many steps on a kernel set, its bits, the last metrics, and what took the steps."""
    rng = np.random.default_rng(2)
    with kernels.use(kernel_set):
        task = make()
        take = way(task)
        for _ in range(steps):
            metrics = take(rng.random((6, task.model.config.input_dim)), rng.integers(0, 10, 6))
        return task.state_dict(), bits(task), metrics, take


def assert_the_same(state, expected, metrics, wanted):
    """States and metrics, up to the rounding of a few steps in float64."""
    assert metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        assert metrics[name] == pytest.approx(value, rel=1e-10), name
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        assert isinstance(state[name], np.ndarray)
        np.testing.assert_allclose(state[name], array, rtol=0, atol=1e-10 * max(1.0, np.abs(array).max(initial=0)))


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
def test_train_step_matches_the_reference(make):
    state, _, metrics, _ = trained(make, "cuda", 2)
    expected, _, wanted, _ = trained(make, "reference", 2)
    assert_the_same(state, expected, metrics, wanted)


@pytest.mark.parametrize("name", EACH_TASK)
def test_capture_replays_a_step_of_training(name):
    make = TASKS[name]
    state, found, metrics, take = trained(make, "cuda", 5, captured)
    *_, captured_step = take.capture.states.values()
    assert isinstance(captured_step, Captured)
    assert captured_step.verified
    _, one_by_one, plain, _ = trained(make, "cuda", 5)
    assert found == one_by_one
    assert metrics == plain
    expected, _, wanted, _ = trained(make, "reference", 5)
    assert_the_same(state, expected, metrics, wanted)


def steps(make, count):
    """A function that takes another step of a task, after so many, on images that lie on the device."""
    task, rng = TASKS[make](), np.random.default_rng(2)
    capture, labels = Capture(task.train_step, *task.modules()), rng.integers(0, 10, 6)

    def step():
        return capture(
            Tensor.wrap(to_device(rng.random((6, task.model.config.input_dim)))), labels, **task.step_options()
        )

    for _ in range(count):
        step()
    return step


@pytest.mark.parametrize("make", EACH_TASK)
def test_capture_fits_a_whole_step_into_a_graph(make, monkeypatch):
    """Updates included: nothing that it launches copies from or to the host."""
    graphs = []

    def with_graph(run):
        graphs.append(Graph(run))
        with monkeypatch.context() as patch:
            patch.setattr(device, "SIMULATED", False)
            patch.setattr(device, "_new_graph", lambda: (graphs[-1], "stream"))
            return device.captured(run)

    with kernels.use("cuda"), warnings.catch_warnings():
        warnings.simplefilter("error")  # that launches stay one by one, say
        if SIMULATED:
            monkeypatch.setattr(memory, "captured", with_graph)
        steps(make, 6)()
    assert not SIMULATED or [graph.events for graph in graphs] == [
        ["end", "complete", "close"] + 4 * ["launch into stream"]
    ]


@pytest.mark.parametrize(
    ("make", "written"),
    [
        ("vae", [1, 1, 2]),  # the key of the noise, beta, rates
        pytest.param("vae-late", [1, 1, 2], marks=pytest.mark.slow),
        pytest.param("vae-samples", [1, 1, 2], marks=pytest.mark.slow),
        ("gan", [1, 2, 2, 1]),  # the key of the noise, D's rates, G's rates, the average's decay
        # beside them keys of masks: D has three in each of its passes
        pytest.param("gan-maxout", [1, *6 * [1], 2, *3 * [1], 2, 1], marks=pytest.mark.slow),
        ("aae", [2, 12, 2, 2]),  # rates, draws of the prior (6, 2), rates, rates
        pytest.param(
            "aae-gaussian-adam", [1, 2, 1, 12, 2, 2], marks=pytest.mark.slow
        ),  # beside them keys of the posterior's noise
        ("aae-mixture", [66, 1, 2, 1, 12, 2, 2]),  # first the labels as rows (6, 11)
        pytest.param(
            "aae-labels", [2, 12, 60, 2, 2, 6, 2], marks=pytest.mark.slow
        ),  # draws of the classes (6, 10); which labelled images, and rates
        pytest.param("aae-one-label", [2, 12, 60, 2, 2, 6, 2], marks=pytest.mark.slow),
    ],
)
def test_capture_reads_nothing_back_in_a_replay(make, written, monkeypatch):
    """Of the host it needs a few numbers, in the order in which the step takes them: a key is one, rates are two.

    Labels, and a late VAE's rates, may be the same at each step; to see that, nothing is read either.
    """
    uploads = []

    def refuse(*_):
        raise AssertionError("read from the device")

    def upload(numbers, values):
        uploads.append(values.size)
        device.upload(numbers, values)

    with kernels.use("cuda"):
        step = steps(make, 4)
        with monkeypatch.context() as patch:
            patch.setattr(DeviceArray, "__array__", refuse)
            patch.setattr(arrays, "upload", upload)
            metrics = step()
            with pytest.raises(AssertionError, match="read from the device"):
                metrics.read()
        assert np.isfinite(list(metrics.read().values())).all()
    assert uploads == [6 * 11, *written]  # first the images, which a trainer has there already


@pytest.mark.parametrize("size", [3, 2**14 + 1, 2**22], ids=["few", "more than 64 KB", "16 MB"])
def test_write_keeps_its_place_among_launches_and_copies_its_values(size):
    """It comes after what was launched before it, and takes its values over before the host may change them."""
    if SIMULATED:
        size = min(size, 2**14 + 1)
    x, total = to_device(np.ones(size, np.float32)), to_device(np.zeros((1, 1), np.float32))
    busy = to_device(np.ones(64 if SIMULATED else 2**26, np.float32))
    values = np.full(size, 2, np.float32)
    for _ in range(20):  # on a GPU some milliseconds
        kernels.find("cuda").elementwise.scale(busy, busy, 1.0)
    kernels.find("cuda").reductions.sum_axis(total, x.reshape(1, size, 1))
    memory.write(x, values)
    values[:] = 3
    np.testing.assert_array_equal(to_host(x), 2)
    assert total.item() == size


def test_write_leaves_an_array_where_it_is(rng):
    x = rng.random((3, 4))
    out, other = to_device(np.zeros((3, 4))), to_device(x)
    place = out._numbers
    narrow = to_device(x.astype(np.float32))
    for values in (x, x.astype(np.float32), x[:1], np.asfortranarray(x), other, other[1:2], narrow, 2.5):
        memory.write(out, values)
        expected = to_host(values) if isinstance(values, DeviceArray) else np.asarray(values)
        np.testing.assert_array_equal(to_host(out), np.broadcast_to(expected, (3, 4)))
    assert out._numbers is place
    rows = to_device(x)
    memory.write(rows[1:], rows[:-1])  # each row before it is overwritten
    np.testing.assert_array_equal(to_host(rows), x[[0, 0, 1]])


def test_load_state_dict_restores_a_state_on_the_device():
    state, *_ = trained(vae, "cuda", 1)
    with kernels.use("cuda"):
        other = vae()
        other.load_state_dict(state)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_evaluate_matches_the_reference():
    rng = np.random.default_rng(0)
    split = Split(rng.random((5, 11), np.float32), np.arange(5))
    found = []
    for kernel_set in ("cuda", "reference"):
        with kernels.use(kernel_set):
            found.append(vae().evaluate(Dataset("drawn", split, split), np.random.default_rng(1)))
    assert found[0] == pytest.approx(found[1], rel=1e-10)


# ---- whole runs, whose kernels would take the simulator hours: the reference computes, on the device's arrays ----


@pytest.fixture
def computed_by_reference(monkeypatch):
    def borrowed(function):
        def call(*arguments):
            arrays = [(a, getattr(a, "_numbers", a)) for a in arguments]
            values = [
                numbers.copy_to_host().reshape(a.shape) if hasattr(numbers, "copy_to_host") else a
                for a, numbers in arrays
            ]
            function(*values)
            for (_, numbers), value in zip(arrays, values, strict=True):
                if isinstance(value, np.ndarray) and value.size:
                    numbers.copy_to_device(value.reshape(-1))

        call.__module__ = function.__module__.replace("reference", "cuda")  # it is one of the set's kernels
        return call

    def elements(numbers, layout):
        begin = numbers[arrays._start(layout) :] if layout.size else numbers
        return as_strided(begin, layout.shape, [stride * numbers.itemsize for stride in layout.strides])

    def copy_strided(out, out_layout, x, x_layout):
        assert x_layout.shape == out_layout.shape
        values = out.copy_to_host()
        elements(values, out_layout)[...] = elements(x.copy_to_host(), x_layout)
        out.copy_to_device(values)

    monkeypatch.setattr(arrays, "copy_strided", copy_strided)
    monkeypatch.setattr(memory, "rows", borrowed(kernels.reference.memory.rows))
    cuda_set = kernels.find("cuda")
    for file in cuda_set.__all__:
        if file != "memory":
            module = getattr(kernels.reference, file)
            for name, function in vars(module).items():
                if getattr(function, "__module__", "") == module.__name__ and not name.startswith("_"):
                    monkeypatch.setattr(getattr(cuda_set, file), name, borrowed(function))


@pytest.mark.skipif(not SIMULATED, reason="a GPU computes itself")
@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=() if model == "vae" else pytest.mark.slow) for model in TINIES]
)
def test_runs_train_resume_and_sample_on_the_device(model, computed_by_reference, monkeypatch, tmp_path):
    """Training, stopping and going on, evaluation and figures, of which each gets arrays of the host."""
    use_tiny(monkeypatch.setattr)
    epochs = {"dbn": 2, "dbm": 3}.get(model, 1)  # of which those have one for each of their parts
    config = replace(TINIES[model], epochs=epochs, kernels="cuda")
    runs.start(config, tmp_path / "run")
    summary = runs.resume(tmp_path / "run", epochs=epochs + 1)
    assert np.isfinite([value for value in summary["test"].values() if isinstance(value, float)]).all()
    assert list((tmp_path / "run").glob("*.png"))
    expected = runs.start(replace(config, kernels="reference"), tmp_path / "other")
    first, second = (json.loads((tmp_path / r / "metrics.jsonl").read_text().splitlines()[0]) for r in ("run", "other"))
    for name, value in second.items():
        if isinstance(value, float) and name != "seconds":
            assert first[name] == pytest.approx(value, rel=1e-3), name
    assert summary["test"].keys() == expected["test"].keys()
    assert cli.main(["sample", str(tmp_path / "run"), "-n", "5", "--out", str(tmp_path / "five.npy")]) == 0
    assert np.load(tmp_path / "five.npy").shape == (5, 784)


@pytest.mark.skipif(SIMULATED, reason="the simulator would take days")
def test_runs_of_five_epochs_match_the_cpu(tmp_path):
    """In float32 and from one seed, every epoch's losses are within half a percent of each other."""
    config, histories = replace(RECIPES["vae"].configs["pytorch-example"], data="strokes", epochs=5), []
    for kernel_set in ("cuda", "cpu"):
        runs.start(replace(config, kernels=kernel_set), tmp_path / kernel_set)
        lines = (tmp_path / kernel_set / "metrics.jsonl").read_text().splitlines()
        histories.append([json.loads(line) for line in lines])
    for found, expected in zip(*histories, strict=True):
        for split in ("train", "test"):
            assert found[split]["neg_elbo"] == pytest.approx(expected[split]["neg_elbo"], rel=0.005)


def test_profile_refuses_the_cuda_kernels(capsys):
    assert cli.main(["profile", "vae", "--kernels", "cuda"]) == 2
    assert "run asynchronously" in capsys.readouterr().err
