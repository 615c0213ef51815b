"""Training of models that need neither checkpoints nor metrics: minibatches in random order."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

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

    A batch has ``batch_size`` rows of each of the arrays (n, ...), the last of a pass over the data the rest; each pass
    has a new random order. ``name`` is what the progress bar says.
    """
    n, taken = len(arrays[0]), 0
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
