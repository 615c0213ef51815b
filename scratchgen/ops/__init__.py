"""The operations, by family. Importing this package fills the registry."""

from scratchgen.ops.conv import conv2d, conv_transpose2d
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
from scratchgen.ops.pooling import avg_pool2d, max_pool2d, pad2d, upsample2d
from scratchgen.ops.reductions import log_softmax, logsumexp, max, min, softmax
from scratchgen.ops.sampling import reparameterize
from scratchgen.ops.selection import abs, clip, maximum, minimum, where
from scratchgen.ops.shapes import concatenate, stack

__all__ = [
    "FUSED_ACTIVATIONS",
    "abs",
    "avg_pool2d",
    "batch_norm",
    "bce_with_logits",
    "clip",
    "concatenate",
    "conv2d",
    "conv_transpose2d",
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
    "max",
    "max_pool2d",
    "maximum",
    "min",
    "minimum",
    "pad2d",
    "relu",
    "reparameterize",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sqrt",
    "square",
    "squared_error",
    "stack",
    "tanh",
    "upsample2d",
    "where",
]
