"""scratchgen: deep generative models from scratch, on an autodiff engine whose every line can be read.

>>> from scratchgen import Tensor, ops
>>> x = Tensor([1.0, 2.0], requires_grad=True)
>>> ops.exp(x).sum().backward()
>>> x.grad
array([2.7182817, 7.389056 ], dtype=float32)
"""

import sys
from pathlib import Path

from scratchgen.environment import problem

if message := problem():
    if Path(sys.argv[0]).stem in ("scratchgen", "-m"):  # on the command line a mistake is a line, not a traceback
        print("scratchgen:", message, file=sys.stderr)
        sys.exit(2)
    raise ImportError(message)

from scratchgen import ops
from scratchgen.data.strokes import draw_strokes
from scratchgen.errors import UserError
from scratchgen.gradcheck import gradcheck
from scratchgen.models.vae import VAE, VAEConfig
from scratchgen.optim import SGD, Adam
from scratchgen.random import RandomStream
from scratchgen.tensor import Tensor, no_grad
from scratchgen.version import __version__

__all__ = [
    "SGD",
    "VAE",
    "Adam",
    "RandomStream",
    "Tensor",
    "UserError",
    "VAEConfig",
    "__version__",
    "draw_strokes",
    "gradcheck",
    "no_grad",
    "ops",
]
