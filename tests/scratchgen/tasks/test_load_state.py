"""``Task.load_state_dict``: all of a state or nothing."""

import numpy as np
import pytest
from helpers import TINIES, tiny_data
from task_helpers import bits

from scratchgen import runs


@pytest.mark.parametrize("model", TINIES)
def test_load_state_dict_writes_nothing_where_any_part_does_not_fit(model):
    task, _ = runs.prepare(TINIES[model], tiny_data())
    before = bits(task)
    good = {name: array + 1 for name, array in task.state_dict().items()}
    wrong = []
    for name in good:
        wrong.append((name, {other: array for other, array in good.items() if other != name}))
        wrong.append((name, good | {name: np.zeros((7, 7), np.float32)}))
        wrong.append((name, good | {name: good[name].astype(np.float16)}))
    wrong.append(("other.thing", good | {"other.thing": np.zeros(1)}))
    for name, state in wrong:
        with pytest.raises(ValueError, match=f"load_state_dict: {name} is "):
            task.load_state_dict(state)
        assert bits(task) == before
    task.load_state_dict(good)
    assert bits(task) != before
