"""Sampling as a function of its noise, so that it is differentiable and can be checked."""

from typing import Any

from scratchgen.op import Op, register
from scratchgen.ops.elementwise import flat
from scratchgen.signature import CONSTANT, REAL
from scratchgen.tensor import Tensor, apply


def _reparameterize(kernels, mu, logvar, noise):
    out = kernels.memory.empty_like(mu)
    kernels.elementwise.reparameterize(flat(out), flat(mu), flat(logvar), flat(noise))
    return out, (logvar, noise)


def _reparameterize_backward(kernels, needs_grad, dout, saved):
    dmu, dlogvar = kernels.memory.empty_like(dout), kernels.memory.empty_like(dout)
    kernels.elementwise.reparameterize_backward(flat(dmu), flat(dlogvar), flat(dout), *map(flat, saved))
    return dmu, dlogvar, None


register(Op("reparameterize", "(),(),()->()", (REAL, REAL, CONSTANT), _reparameterize, _reparameterize_backward))


def reparameterize(mu: Tensor, logvar: Tensor, noise: Any) -> Tensor:
    """z = mu + sigma noise, with sigma = e^(logvar / 2) the standard deviation (L18); the three broadcast.

    With noise from N(0, I), z comes from N(mu, diag e^logvar). Source: Kingma & Welling 2013, section 2.4.
    """
    return apply("reparameterize", mu, logvar, noise)
