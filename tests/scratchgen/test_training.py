"""Training: what is reported is true, the same seed gives the same bits, and no way to stop a run changes them."""

import json
import math
import os
import shlex
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from helpers import STEPS, TINY, drive, outcome, tiny_data, use_tiny, without_figures

from scratchgen import runs
from scratchgen.capture import Capture
from scratchgen.checkpoint import load_checkpoint, read_config, save_checkpoint
from scratchgen.errors import UserError
from scratchgen.evaluation import likelihood
from scratchgen.random import STREAMS, RandomStream, stream
from scratchgen.recipes import RECIPES
from scratchgen.tasks import vae
from scratchgen.tasks.vae import VAETask
from scratchgen.tensor import Tensor
from scratchgen.training import UNREAD, Interrupted, NotFinite, Trainer, readable, require_finite


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    use_tiny(monkeypatch.setattr)
    without_figures(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of ``TINY`` that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch.setattr)
        without_figures(patch.setattr)
        runs.start(TINY, folder)
    return folder


class Counting:
    """A task that learns nothing. Its metrics are the means of labels and pixels; ``seen`` keeps the batches.

    ``step`` is what a trainer calls in the place of a captured ``train_step``, and ``metrics`` what is read of it.
    """

    def __init__(self):
        self.seen, self.drawn, self.random = [], np.zeros(1), RandomStream(0)

    def train_step(self, x, labels):
        raise AssertionError

    def step(self, x, labels):
        self.seen.append((x.data, labels))
        self.drawn += self.random.generator.random()
        metrics = self.metrics(x.data, labels)
        return Pending(lambda: metrics)

    def metrics(self, images, labels):
        return {"label": float(labels.mean()), "ink": float(images.mean(dtype=np.float64))}

    def step_options(self):
        return {}

    def modules(self):
        return []

    def evaluate(self, dataset, rng):
        return {"label": float(dataset.test.labels.mean()), "draw": rng.random()}

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"].copy()


class Pending:
    """Metrics that ``read`` gives."""

    def __init__(self, read):
        self.read = read


def counting_trainer(folder, seed=0, task=None, batch_size=128, **options):
    task = task or Counting()
    task.random = RandomStream(stream(seed, "noise"))
    settings = {"epochs": 2, "batch_size": batch_size, "seed": seed, "fingerprint": "a"}
    trainer = Trainer(task, tiny_data(), folder, **settings, **options)
    trainer.step = task.step
    return trainer


@pytest.fixture
def each_step(monkeypatch):
    """Have a function called with the task and the number of the step, from 1, before every step that is trained."""

    def install(before):
        original, number = Capture.__call__, 0

        def step(capture, *arguments, **options):
            nonlocal number
            number += 1
            before(capture.step.__self__, number)
            return original(capture, *arguments, **options)

        monkeypatch.setattr(Capture, "__call__", step)

    return install


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


# ---- what is reported ----


def test_trainer_reports_train_metrics_as_means_over_all_images(tmp_path):
    history = counting_trainer(tmp_path).run()
    train, test = tiny_data().train, tiny_data().test
    assert [entry["epoch"] for entry in history] == [1, 2]
    for entry in history:
        assert entry["train"]["label"] == pytest.approx(train.labels.mean(), rel=1e-12)
        assert entry["train"]["ink"] == pytest.approx(train.images.mean(dtype=np.float64), rel=1e-12)
        assert entry["test"]["label"] == test.labels.mean()
        assert entry["test"]["draw"] == stream(0, "evaluation", entry["epoch"] - 1).random()  # not training's noise
    assert 0 < history[0]["seconds"] < history[1]["seconds"]


def test_trainer_averages_a_metric_over_the_steps_that_give_it(tmp_path):
    class Seldom(Counting):
        def metrics(self, images, labels):
            metrics = super().metrics(images, labels)
            if len(self.seen) % 2 == 0:
                del metrics["label"]
            return metrics

    trainer = counting_trainer(tmp_path, task=Seldom())
    history = trainer.run()
    first = [labels for _, labels in trainer.task.seen[:5:2]]  # of five batches the first, the third, the fifth
    assert history[0]["train"]["label"] == pytest.approx(np.concatenate(first).mean(), rel=1e-12)


@pytest.mark.parametrize(("value", "text"), [(105.5, "105.50"), (0.5, "0.50"), (0.0, "0.00"), (0.00123, "0.0012")])
def test_readable_keeps_two_digits_of_small_values(value, text):
    assert readable(value) == text


def test_trainer_shuffles_all_images_anew_each_epoch(tmp_path):
    trainer = counting_trainer(tmp_path)
    trainer.run()
    sizes = [len(labels) for _, labels in trainer.task.seen]
    assert sizes == [128, 128, 128, 128, 88] * 2
    number = {image.tobytes(): i for i, image in enumerate(tiny_data().train.images)}
    shown = [number[image.tobytes()] for images, _ in trainer.task.seen for image in images]
    labels = np.concatenate([labels for _, labels in trainer.task.seen])
    assert np.array_equal(labels, tiny_data().train.labels[shown])
    first, second = shown[:600], shown[600:]
    assert sorted(first) == sorted(second) == list(range(600))
    assert first != second
    assert first != sorted(first)


def test_start_writes_metrics_history_and_summary_that_agree(whole):
    history = load_checkpoint(whole / "checkpoint.safetensors")[1]["history"]
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    for metrics in (entry[split] for entry in history for split in ("train", "test")):
        assert set(metrics) == {"neg_elbo", "reconstruction", "kl"}
        assert metrics["neg_elbo"] == pytest.approx(metrics["reconstruction"] + metrics["kl"], rel=1e-7)  # float32
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["epochs"] == 3
    assert summary["seconds"] == round(history[-1]["seconds"], 1)
    # The same images and weights, another draw of the noise and of the pixels.
    assert summary["test"]["neg_elbo"] == pytest.approx(history[-1]["test"]["neg_elbo"], rel=0.02)
    assert summary["test"]["neg_elbo"] == pytest.approx(summary["test"]["reconstruction"] + summary["test"]["kl"])


# ---- seeds ----


def test_start_with_the_same_seed_gives_the_same_bits(whole, tmp_path):
    runs.start(TINY, tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_start_with_another_seed_gives_other_bits(whole, tmp_path):
    runs.start(replace(TINY, seed=1), tmp_path)
    first, second = outcome(whole), outcome(tmp_path)
    assert [name for name in first["arrays"] if first["arrays"][name] == second["arrays"][name]] == ["optimizer.steps"]
    assert first["metrics"][0]["test"] != second["metrics"][0]["test"]


def test_trainer_with_another_seed_shuffles_in_another_order(tmp_path):
    orders = []
    for seed in (0, 1):
        trainer = counting_trainer(tmp_path, seed)
        trainer.run()
        orders.append(np.concatenate([labels for _, labels in trainer.task.seen]).tolist())
    assert orders[0] != orders[1]


def test_stream_differs_by_seed_purpose_and_epoch():
    draws = {
        stream(seed, purpose, *more).random()
        for seed in (0, 1)
        for purpose in STREAMS
        for more in [(), (0,), (1,), (0, 0)]
    }
    assert len(draws) == 2 * len(STREAMS) * 4
    assert stream(3, "noise", 4).random() == stream(3, "noise", 4).random()


# ---- stopped and resumed ----


def test_resume_after_an_interrupt_at_every_step_gives_the_same_bits(whole, tmp_path, each_step):
    each_step(lambda task, number: press_ctrl_c())
    for step in range(3 * STEPS):
        with pytest.raises(Interrupted):
            runs.resume(tmp_path) if step else runs.start(TINY, tmp_path)
        progress = load_checkpoint(tmp_path / "checkpoint.safetensors")[1]
        # A finished epoch is measured by the one who resumes.
        assert (progress["epoch"], progress["batch"]) == (step // STEPS, step % STEPS + 1)
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_trainer_interrupted_during_evaluation_stops_after_the_epoch(whole, tmp_path, monkeypatch):
    def evaluate(*arguments, original=VAETask.evaluate):
        press_ctrl_c()
        return original(*arguments)

    monkeypatch.setattr(VAETask, "evaluate", evaluate)
    for epoch in (1, 2, 3):
        with pytest.raises(Interrupted):
            runs.resume(tmp_path) if epoch > 1 else runs.start(TINY, tmp_path)
        progress = load_checkpoint(tmp_path / "checkpoint.safetensors")[1]
        assert (progress["epoch"], progress["batch"], len(progress["history"])) == (epoch, 0, epoch)
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.parametrize("binarize", ["none", "static"])
def test_resume_within_an_epoch_is_exact_with_other_binarizations(tmp_path, each_step, binarize):
    config = replace(TINY, epochs=2, training=replace(TINY.training, binarize=binarize))
    runs.start(config, tmp_path / "whole")
    each_step(lambda task, number: number == STEPS + 2 and press_ctrl_c())
    with pytest.raises(Interrupted):
        runs.start(config, tmp_path / "stopped")
    runs.resume(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_start_with_static_binarization_draws_training_pixels_once(tmp_path, monkeypatch):
    seen = []

    def step(capture, x, *arguments, original=Capture.__call__, **options):
        seen.append(x.data.copy())
        return original(capture, x, *arguments, **options)

    monkeypatch.setattr(Capture, "__call__", step)
    runs.start(replace(TINY, epochs=2, training=replace(TINY.training, binarize="static")), tmp_path)
    first, second = np.concatenate(seen[:STEPS]), np.concatenate(seen[STEPS:])
    assert sorted(map(bytes, first)) == sorted(map(bytes, second))
    drawn = RandomStream(stream(0, "pixels", 0)).bernoulli(Tensor(tiny_data().train.images)).data
    assert sorted(map(bytes, first)) == sorted(map(bytes, drawn))


def test_start_with_static_binarization_draws_test_pixels_once(tmp_path, monkeypatch):
    measured = []

    def bound(model, images, *arguments, original=likelihood.mean_bound, **named):
        measured.append(images)
        return original(model, images, *arguments, **named)

    for module in (vae, likelihood):
        monkeypatch.setattr(module, "mean_bound", bound)
    config = replace(TINY, epochs=2, training=replace(TINY.training, binarize="static"))
    runs.start(config, tmp_path)
    expected = RandomStream(stream(0, "pixels", 1)).bernoulli(Tensor(tiny_data().test.images)).data
    assert len(measured) == 3  # two epochs and the summary
    assert all(np.array_equal(images, expected) for images in measured)
    assert np.array_equal(RECIPES["vae"].as_seen(config, tiny_data().test.images, "test"), expected)


def test_resume_with_more_epochs_equals_one_longer_run(tmp_path):
    config = replace(TINY, training=replace(TINY.training, schedule="constant"))
    runs.start(replace(config, epochs=1), tmp_path / "extended")
    runs.resume(tmp_path / "extended", epochs=3)
    runs.start(config, tmp_path / "at once")
    assert outcome(tmp_path / "extended") == outcome(tmp_path / "at once")
    assert read_config(tmp_path / "extended") == read_config(tmp_path / "at once")


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    runs.start(TINY, tmp_path)
    before = outcome(tmp_path)
    (tmp_path / "summary.json").unlink()
    runs.resume(tmp_path)
    assert outcome(tmp_path) == before


def test_resume_removes_only_temporary_files_of_a_killed_run(tmp_path):
    runs.start(TINY, tmp_path)
    for name in ("checkpoint.safetensors.123.tmp", "notes.tmp", "notes.v2.2024.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".figure-abc").mkdir()
    runs.resume(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == ["notes.tmp", "notes.v2.2024.tmp"]
    assert not (tmp_path / ".figure-abc").exists()


def test_start_refuses_a_folder_that_holds_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="holds a run already"):
        runs.start(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_start_keeps_the_summary_when_drawing_fails(whole, tmp_path, monkeypatch):
    def draw(*_):
        raise OSError("no room for pictures")

    monkeypatch.setattr(RECIPES["vae"], "draw", draw)
    with pytest.raises(OSError, match="no room"):
        runs.start(TINY, tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_start_stores_the_data_folder_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.start(replace(TINY, data_dir="digits"), tmp_path / "run")
    assert runs.load_config(tmp_path / "run").data_dir == str(tmp_path / "digits")


@pytest.mark.parametrize("setting", ["epochs", "data_dir", "versions", "name", "patience", "log"])
def test_fingerprint_ignores_settings_that_may_change(setting):
    values = {"epochs": 99, "data_dir": "/digits", "versions": {"numpy": "9"}, "name": "other", "patience": 5}
    value = (values | {"log": "csv"})[setting]
    assert replace(TINY, **{setting: value}).fingerprint() == TINY.fingerprint()


def stop(folder, **how):
    """Start or resume a run in a process of its own, have it stopped, and see that no file is half there."""
    goal = ["--resume", folder] if (folder / "config.json").exists() else ["--config", "tiny", "--out", folder]
    process = drive("train", "vae", *goal, **how)
    if (folder / "config.json").exists():
        assert runs.load_config(folder).epochs == 3
    if (folder / "checkpoint.safetensors").exists():
        load_checkpoint(folder / "checkpoint.safetensors")
    if (folder / "metrics.jsonl").exists():
        assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return process


def test_resume_after_a_kill_at_any_moment_gives_the_same_bits(whole, tmp_path):
    rng = np.random.default_rng(0)
    for moment in [
        "amid config.json 1",
        f"before step {rng.integers(1, STEPS + 1)}",
        "amid checkpoint.safetensors 1",
        "before checkpoint.safetensors 1",
        "after checkpoint.safetensors 1",  # the first epoch's; its line of metrics is still to come
        f"after step {rng.integers(1, STEPS + 1)}",
        "amid metrics.jsonl 2",  # the second epoch's; the first is written on resuming
        "amid checkpoint.safetensors 1",
        f"before step {rng.integers(1, STEPS + 1)}",
    ]:
        assert stop(tmp_path, moment=f"SIGKILL {moment}").returncode == -signal.SIGKILL, moment
    for seconds in rng.uniform(0.05, 0.5, 2):
        assert stop(tmp_path, after=seconds).returncode in (-signal.SIGKILL, 0)  # it may have been quick
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_train_command_says_how_to_resume_after_ctrl_c(whole, tmp_path):
    folder = tmp_path / "a run"
    stopped = stop(folder, moment="SIGINT before step 7")
    assert stopped.returncode == 130
    command = f"scratchgen train vae --resume '{folder}'"
    assert stopped.stderr == f"stopped; continue with: {command}\n"
    resumed = drive(*shlex.split(command)[1:])
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert outcome(folder) == outcome(whole)


def test_trainer_stops_at_once_on_a_second_ctrl_c(tmp_path, each_step):
    handler = signal.getsignal(signal.SIGINT)
    reached = []

    def press_twice(task, number):
        if number == STEPS + 2:
            press_ctrl_c()
            reached.append("the first lets the step go on")
            press_ctrl_c()
            reached.append("the second does not")

    each_step(press_twice)
    with pytest.raises(KeyboardInterrupt):
        runs.start(TINY, tmp_path)
    assert reached == ["the first lets the step go on"]
    progress = load_checkpoint(tmp_path / "checkpoint.safetensors")[1]
    assert (progress["epoch"], progress["batch"]) == (1, 0)
    assert signal.getsignal(signal.SIGINT) is handler


def test_trainer_restores_the_handler_of_ctrl_c(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    counting_trainer(tmp_path).run()
    assert signal.getsignal(signal.SIGINT) is handler


def test_trainer_runs_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=counting_trainer(tmp_path).run)
    thread.start()
    thread.join()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_resume_refuses_the_checkpoint_of_another_task(tmp_path):
    counting_trainer(tmp_path).run()
    arrays, progress = load_checkpoint(tmp_path / "checkpoint.safetensors")
    for wrong_arrays, wrong_progress in [
        ({}, progress),
        (arrays, {**progress, "noise": {}}),
        (arrays, {"epoch": 1}),
        (arrays, {**progress, "fingerprint": "b"}),
    ]:
        save_checkpoint(tmp_path / "checkpoint.safetensors", wrong_arrays, wrong_progress)
        with pytest.raises(UserError, match=r"checkpoint.safetensors does not fit the run's config.json"):
            counting_trainer(tmp_path, resume=True)


def test_resume_refuses_the_checkpoint_of_another_revision(tmp_path):
    counting_trainer(tmp_path).run()
    arrays, progress = load_checkpoint(tmp_path / "checkpoint.safetensors")
    now = progress.pop("revision")
    for revision in ({}, {"revision": now - 1}, {"revision": now + 1}):
        save_checkpoint(tmp_path / "checkpoint.safetensors", arrays, progress | revision)
        with pytest.raises(UserError, match=r"checkpoint.safetensors was begun by a version whose seeds meant other"):
            counting_trainer(tmp_path, resume=True)


def test_trainer_reads_metrics_at_most_twenty_steps_late(tmp_path):
    class Lazy(Counting):
        unread, most, read = 0, 0, 0

        def step(self, x, labels):
            pending = super().step(x, labels)
            self.unread += 1
            self.most = max(self.most, self.unread)

            def read():
                self.unread, self.read = self.unread - 1, self.read + 1
                return pending.read()

            return Pending(read)

    trainer = counting_trainer(tmp_path, task=Lazy(), batch_size=8)
    history = trainer.run()
    assert (trainer.task.most, trainer.task.unread, trainer.task.read) == (UNREAD, 0, 2 * 75)
    assert history[1]["train"]["label"] == pytest.approx(tiny_data().train.labels.mean(), rel=1e-12)


# ---- metrics that are not finite ----


def test_trainer_names_the_step_whose_metrics_are_not_finite(tmp_path):
    class Broken(Counting):
        def metrics(self, images, labels):
            if len(self.seen) == 3:
                press_ctrl_c()
            return {"label": math.nan if len(self.seen) == 27 else 1.0}

    trainer = counting_trainer(tmp_path, task=Broken(), batch_size=8)
    with pytest.raises(Interrupted):
        trainer.run()
    trainer = counting_trainer(tmp_path, task=Broken(), batch_size=8, resume=True)
    trainer.task.seen = [None] * 3
    with pytest.raises(NotFinite, match="epoch 1, step 27: label is nan"):
        trainer.run()


def test_trainer_keeps_unread_metrics_after_an_exception(tmp_path):
    class Stopped(Counting):
        def metrics(self, images, labels):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return {"label": math.nan if len(self.seen) == 2 else 1.0}

    trainer = counting_trainer(tmp_path, task=Stopped())
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    with pytest.raises(NotFinite, match="label is nan"):
        trainer.run()


def test_trainer_names_the_epoch_whose_last_step_damaged_the_state(tmp_path):
    class Damaged(Counting):
        def metrics(self, images, labels):
            self.drawn[:] = math.inf if len(self.seen) == 5 else 0.0
            return super().metrics(images, labels)

    trainer = counting_trainer(tmp_path, task=Damaged())
    with pytest.raises(NotFinite, match="epoch 1, step 5: drawn is not finite"):
        trainer.run()


def test_trainer_saves_nothing_on_ctrl_c_after_a_non_finite_metric(tmp_path):
    class Broken(Counting):
        def metrics(self, images, labels):
            if len(self.seen) == 4:
                press_ctrl_c()
            return {"label": math.nan if len(self.seen) == 2 else 1.0}

    trainer = counting_trainer(tmp_path, task=Broken())
    with pytest.raises(NotFinite, match="epoch 1, step 2: label is nan"):
        trainer.run()
    assert not trainer.checkpoint.exists()


@pytest.mark.parametrize(
    ("step", "where", "kept"), [(2, "epoch 1, step 2", False), (STEPS + 3, "epoch 2, step 3", True)], ids=["1", "2"]
)
def test_trainer_stops_at_nan_and_keeps_the_last_checkpoint(tmp_path, each_step, step, where, kept):
    checkpoint, before = tmp_path / "checkpoint.safetensors", b""

    def poison(task, number):
        nonlocal before
        if number == step:
            before = checkpoint.read_bytes() if kept else b""
            task.model.decoder_out.bias.write(np.float32(np.nan))

    each_step(poison)
    with pytest.raises(NotFinite) as stopped:
        runs.start(TINY, tmp_path)
    message = str(stopped.value)
    assert message.startswith(f"training stopped in {where}: neg_elbo is nan, reconstruction is nan")
    assert "kl is" not in message
    assert (str(checkpoint) in message) == checkpoint.exists() == kept
    assert not (tmp_path / "summary.json").exists()
    if kept:
        assert checkpoint.read_bytes() == before
        _, model = runs.load_model(tmp_path)
        assert all(np.isfinite(array).all() for array in model.state_dict().values())


def test_trainer_saves_no_non_finite_weights_on_ctrl_c(tmp_path, monkeypatch):
    """The loss is finite, and what the update made of a weight is not: nothing has looked at it yet."""
    checkpoint, original, before = tmp_path / "checkpoint.safetensors", Capture.__call__, b""

    def step(capture, *arguments, **options):
        nonlocal before
        metrics, task = original(capture, *arguments, **options), capture.step.__self__
        if task.optimizer.steps == STEPS + 2:
            before = checkpoint.read_bytes()
            task.model.encoder_mu.weight.write(np.float32(np.nan))
            press_ctrl_c()
        return metrics

    monkeypatch.setattr(Capture, "__call__", step)
    with pytest.raises(NotFinite, match=r"epoch 2, step 2: model\.encoder_mu\.weight is not finite; the last good"):
        runs.start(TINY, tmp_path)
    assert checkpoint.read_bytes() == before


def test_trainer_advises_a_lower_learning_rate_on_divergence(tmp_path):
    config = replace(TINY, training=replace(TINY.training, lr=1e30))
    with pytest.raises(NotFinite, match=r"epoch 1, step 2: .*reconstruction is .*; try a lower learning rate"):
        runs.start(config, tmp_path)


def test_trainer_stops_at_a_non_finite_evaluation_keeping_its_checkpoint(whole, tmp_path, monkeypatch):
    measured = []

    def evaluate(*arguments, original=VAETask.evaluate):
        measured.append((tmp_path / "checkpoint.safetensors").read_bytes() if measured else b"")
        metrics = original(*arguments)
        return {**metrics, "kl": np.inf} if len(measured) == 2 else metrics

    monkeypatch.setattr(VAETask, "evaluate", evaluate)
    with pytest.raises(NotFinite, match=r"stopped in epoch 2, its evaluation: kl is inf; the last good checkpoint is"):
        runs.start(TINY, tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == measured[1]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    runs.resume(tmp_path)
    assert outcome(tmp_path) == outcome(whole)


def test_require_finite_names_what_is_wrong():
    require_finite({"kl": 0.0, "reconstruction": -1e300})
    with pytest.raises(NotFinite, match=r"^a is nan, c is -inf$"):
        require_finite({"a": np.nan, "b": 1.0, "c": -np.inf})
