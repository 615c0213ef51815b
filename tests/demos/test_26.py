"""The lesson on few labels: which updates its variants leave out, and what it prints of a short run."""

import ast
import json

import numpy as np
import pytest
from aae_helpers import PIXELS, small_aae
from lesson_helpers import LECTURE, run

from scratchgen import Tensor
from scratchgen.data.dataset import Split
from scratchgen.random import RandomStream
from scratchgen.tasks.aae import AAETask, AAETraining

LESSON = "26_few_labels"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("labels_alone", {"encoder"}),
        ("no_adversaries", {"encoder", "decoder"}),
        ("no_adversary_of_classes", {"encoder", "decoder", "discriminator"}),
    ],
)
def test_a_change_leaves_out_the_updates_that_it_names(change, expected, rng):
    tree = ast.parse((LECTURE / f"{LESSON}.py").read_text())
    tree.body = [part for part in tree.body if isinstance(part, ast.FunctionDef)]
    names = {}
    exec(compile(tree, LESSON, "exec"), names)
    labelled = Split(rng.random((20, PIXELS), dtype=np.float32), np.arange(20) % 10)
    model = small_aae("semi-supervised")
    task = AAETask(model, AAETraining(), RandomStream(1), 4, 3, labelled, lambda *_: {})
    names[change](task)
    before = model.state_dict()
    task.train_step(Tensor(rng.random((7, PIXELS)), dtype=np.float32), np.zeros(7, np.int64))
    changed = {name.split(".")[0] for name, now in model.state_dict().items() if not np.array_equal(now, before[name])}
    assert changed == expected


@pytest.mark.slow
def test_lesson_26_trains_every_variant(tmp_path):
    got, files = run(LESSON, tmp_path, "--quick", "--data", "strokes")
    assert len(got) == 10
    assert float(got["all of it"]) < 10
    histories = [json.loads(path.read_text()) for path in (tmp_path / "pictures").glob("*/metrics.jsonl")]
    assert len({history["train"]["c_loss"] for history in histories}) == 10
    assert [file.name for file in files] == ["errors.png"]
