"""The operations, by family. Importing this package fills the registry."""

from scratchgen.ops.dense import FUSED_ACTIVATIONS, dense, matmul
from scratchgen.ops.elementwise import (
    dropout,
    elu,
    exp,
    gelu,
    leaky_relu,
    log,
    relu,
    sigmoid,
    softplus,
    sqrt,
    square,
    tanh,
)
from scratchgen.ops.losses import (
    bce_with_logits,
    gaussian_nll,
    gaussian_nll_fixed,
    kl_standard_normal,
    softmax_cross_entropy,
    squared_error,
)
from scratchgen.ops.normalization import batch_norm
from scratchgen.ops.reductions import log_softmax, logsumexp, maxout, softmax
from scratchgen.ops.sampling import reparameterize
from scratchgen.ops.shapes import concatenate

__all__ = [
    "FUSED_ACTIVATIONS",
    "batch_norm",
    "bce_with_logits",
    "concatenate",
    "dense",
    "dropout",
    "elu",
    "exp",
    "gaussian_nll",
    "gaussian_nll_fixed",
    "gelu",
    "kl_standard_normal",
    "leaky_relu",
    "log",
    "log_softmax",
    "logsumexp",
    "matmul",
    "maxout",
    "relu",
    "reparameterize",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sqrt",
    "square",
    "squared_error",
    "tanh",
]
