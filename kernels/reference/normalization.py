"""Batch normalisation, defined in NumPy."""

import numpy as np


def batch_moments(mean, variance, x):
    """mean and biased variance (n) of the columns of x (b,n)."""
    mean[...] = x.mean(0, dtype=np.float64)
    variance[...] = x.var(0, dtype=np.float64)


def batch_norm(out, normalized, x, mean, variance, gamma, beta, epsilon):
    """normalized (b,n) = (x - mean) / sqrt(variance + epsilon);  out = gamma normalized + beta;  the others (n)."""
    normalized[...] = (x - mean) / np.sqrt(variance + epsilon)
    out[...] = gamma * normalized + beta


def batch_norm_backward(dx, dgamma, dbeta, dout, normalized, variance, gamma, epsilon):
    """dgamma, dbeta (n) = sums over b of (dout normalized) and of dout;  dx (b,n), for mean and variance from x:

    dx = gamma / sqrt(variance + epsilon) (dout - dbeta / b - normalized dgamma / b).
    """
    b = max(len(dout), 1)
    dgamma[...] = (dout * normalized).sum(0, dtype=np.float64)
    dbeta[...] = dout.sum(0, dtype=np.float64)
    dx[...] = gamma / np.sqrt(variance + epsilon) * (dout - dbeta / b - normalized * (dgamma / b))
