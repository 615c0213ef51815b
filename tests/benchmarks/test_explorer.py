"""The explorer's benchmark: what it calls slow. That it measures is tested with the page, where a browser is open."""

import numpy as np
import pytest

from tests.benchmarks.explorer import DEFAULT, require_fast


def test_require_fast_names_what_is_slow():
    fast = np.array([1.0] * 99 + [99.0])
    require_fast({DEFAULT: (fast, 60.0), "other": (fast + 20, 30.0)})
    with pytest.raises(AssertionError, match=f"{DEFAULT}: 95 % of the pictures within 20.0 ms"):
        require_fast({DEFAULT: (fast + 19, 60.0)})
    with pytest.raises(AssertionError, match="fewer than 30 frames a second: other"):
        require_fast({DEFAULT: (fast, 60.0), "other": (fast, 29.0)})
