"""Training of models that need neither checkpoints nor metrics: minibatches in random order."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from scratchgen.errors import require
from scratchgen.optim import Optimizer
from scratchgen.tensor import Tensor


def minimize(
    loss: Callable[..., Tensor],
    optimizer: Optimizer,
    *arrays: np.ndarray,
    rng: np.random.Generator,
    steps: int,
    batch_size: int,
    name: str,
) -> None:
    """Take ``steps`` optimizer steps down the gradient of ``loss(*batch)``, a number.

    Each pass over the data has a new random order. A batch is ``batch_size`` rows of each array (n, ...); the last
    batch of a pass is what is left. ``name`` is what the progress bar says. ValueError for no rows, arrays of different
    lengths or a batch size below 1.
    """
    lengths = {len(array) for array in arrays}
    require(
        {
            "arrays of one length, at least 1": len(lengths) == 1 and min(lengths) > 0,
            "batch_size >= 1": batch_size >= 1,
        }
    )
    n, taken = lengths.pop(), 0
    with tqdm(desc=name, total=steps, leave=False, disable=None) as bar:
        while taken < steps:
            order = rng.permutation(n)
            for start in range(0, n, batch_size)[: steps - taken]:
                chosen = order[start : start + batch_size]
                value = loss(*[array[chosen] for array in arrays])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                taken += 1
                bar.update()
