"""``exp``, ``log`` and related functions, written so that a loop around them vectorises.

``math.exp`` in Numba is a function call per number, and a call in a loop prevents vectorisation. The float32 versions
here are straight-line arithmetic: argument reduction, then a polynomial (coefficients of the Cephes library,
S. Moshier 1992, single precision). Their relative error is at most 2.5e-7, and 1e-7 for ``exp``. Float64, used only to
check gradients, takes the exact ``math`` functions. NaN and infinities are handled as in NumPy, except that ``exp``
overflows from 88.4, not 88.7.

    exp(x)  = 2^n exp(r),                n = round(x / ln 2),   |r| <= ln 2 / 2
    log(x)  = e ln 2 + log(1 + t),       x = 2^e (1 + t),       sqrt(1/2) <= 1 + t < sqrt(2)
    sin(2 pi v), cos(2 pi v):            v = n / 4 + r,         |r| <= 1/8, exactly; n quarters swap them
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

# For every kernel of this kernel set: division by zero as in NumPy (Python's check prevents vectorisation), sums in any
# order, fused multiply-add. Never ``fastmath=True``: it assumes that there is no NaN.
JIT: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp", "reassoc"}}
# Keeps the order of additions: the functions below rely on cancellation. They are inlined by LLVM, not by Numba
# (``inline``), which would compile them with the caller's flags.
EXACT: dict[str, Any] = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}

# A long sum adds the sums of blocks of so many numbers: it rounds like sums of BLOCK and of n / BLOCK numbers.
BLOCK = 1024

LOG2E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # n LN2_HIGH is exact: LN2_HIGH has few bits
ZERO, HALF, ONE, TWO = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(2.0)
EXP_LOW, EXP_HIGH = np.float32(-87.33), np.float32(88.7)  # below: 0, because denormals are slow
SQRT_HALF, SQRT_TWO_LESS_ONE = np.float32(0.70710678), np.float32(0.41421356)
SMALLEST_NORMAL, TWO_23 = np.float32(1.17549435e-38), np.float32(2.0**23)
INF, NAN = np.float32(np.inf), np.float32(np.nan)

E0, E1, E2, E3, E4, E5 = map(
    np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
)
L0, L1, L2, L3, L4, L5, L6, L7, L8 = map(
    np.float32,
    (
        *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
        *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    ),
)
T0, T1, T2, T3, T4 = map(
    np.float32, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
)
S0, S1, S2 = map(np.float32, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1))
C0, C1, C2 = map(np.float32, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2))
QUARTER, FOUR, TWO_PI = np.float32(0.25), np.float32(4.0), np.float32(2 * np.pi)
TANH_SMALL, EXPM1_SMALL = np.float32(0.625), np.float32(0.34)


@intrinsic
def _float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of_float(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


def cast(value, like):
    """``value`` in the float type of ``like``: a bare Python float would promote a float32 loop to float64."""
    return type(like)(value)


@overload(cast, inline="always")
def _cast(value, like):
    float_type = like
    return lambda value, like: float_type(value)


# ---- float32 -----------------------------------------------------------------------------------------------------


@njit(**EXACT)
def _exp_less_one_near_zero(r):
    """exp(r) - 1 for |r| <= ln 2 / 2."""
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    return p * (r * r) + r


@njit(**EXACT)
def _log_one_plus_near_zero(t):
    """log(1 + t) for sqrt(1/2) <= 1 + t < sqrt(2), to be added to e ln 2."""
    p = (((((((L0 * t + L1) * t + L2) * t + L3) * t + L4) * t + L5) * t + L6) * t + L7) * t + L8
    return t * (ONE + t * (p * t - HALF))  # in this order a tiny t never makes a denormal t * t


@njit(**EXACT)
def _exp32(x):
    inside = EXP_LOW if x < EXP_LOW else x  # comparisons, not min and max: NaN stays NaN
    inside = EXP_HIGH if inside > EXP_HIGH else inside
    n = np.floor(inside * LOG2E + HALF)
    p = _exp_less_one_near_zero(inside - n * LN2_HIGH - n * LN2_LOW) + ONE
    y = p * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))  # n = 128 gives infinity
    return ZERO if x < EXP_LOW else y


@njit(**EXACT)
def _log32(x):
    tiny = x < SMALLEST_NORMAL
    bits = _bits_of_float(x * TWO_23 if tiny else x)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(126)) - (np.float32(23.0) if tiny else ZERO)
    m = _float_of_bits((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000))  # the mantissa, in [1/2, 1)
    small = m < SQRT_HALF
    t = m + m - ONE if small else m - ONE
    e = exponent - ONE if small else exponent
    y = _log_one_plus_near_zero(t) + e * LN2_LOW + e * LN2_HIGH
    y = y if x > ZERO else (-INF if x == ZERO else NAN)
    return y if x < INF else x  # infinity and NaN pass through; x < 0 gives NaN


@njit(**EXACT)
def _log1p_unit32(e):
    """log(1 + e) for 0 <= e <= 1, accurate for small e."""
    near = e < SQRT_TWO_LESS_ONE
    t = e if near else HALF * e - HALF
    y = _log_one_plus_near_zero(t)
    return y if near else y + LN2_LOW + LN2_HIGH


@njit(**EXACT)
def _expm1_32(x):
    return _exp_less_one_near_zero(x) if abs(x) < EXPM1_SMALL else _exp32(x) - ONE


@njit(**EXACT)
def _tanh32(x):
    z = x * x
    near = ((((T0 * z + T1) * z + T2) * z + T3) * z + T4) * z * x + x
    e = _exp32(-TWO * abs(x))
    far = (ONE - e) / (ONE + e)
    return near if abs(x) < TANH_SMALL else (far if x > ZERO else -far)


@njit(**EXACT)
def _sin_cos_of_turns32(v):
    """sin and cos of 2 pi v for 0 <= v <= 1, with an absolute error below 1.5e-7."""
    n = np.floor(FOUR * v + HALF)
    x = TWO_PI * (v - QUARTER * n)
    z = x * x
    sine = ((S0 * z + S1) * z + S2) * z * x + x
    cosine = ((C0 * z + C1) * z + C2) * (z * z) - HALF * z + ONE
    quarters = np.int32(n)
    odd = (quarters & np.int32(1)) != 0
    s, c = (cosine if odd else sine), (sine if odd else cosine)
    s = -s if (quarters & np.int32(2)) != 0 else s
    c = -c if ((quarters + np.int32(1)) & np.int32(2)) != 0 else c
    return s, c


# ---- the names kernels use, for float32 and float64 --------------------------------------------------------------


def exp(x):
    """e^x."""
    return math.exp(x)


def log(x):
    """ln x; -inf at 0, NaN below."""
    return math.log(x)


def log1p_unit(e):
    """log(1 + e) for 0 <= e <= 1."""
    return math.log1p(e)


def expm1(x):
    """e^x - 1, accurate for small x."""
    return math.expm1(x)


def tanh(x):
    """The hyperbolic tangent."""
    return math.tanh(x)


def sin_cos_of_turns(v):
    """sin(2 pi v) and cos(2 pi v), for v in [0, 1]."""
    return math.sin(2 * math.pi * v), math.cos(2 * math.pi * v)


@overload(exp, inline="always")
def _exp(x):
    return (lambda x: _exp32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(log, inline="always")
def _log(x):
    return (lambda x: _log32(x)) if x == types.float32 else (lambda x: np.log(x))


@overload(log1p_unit, inline="always")
def _log1p_unit(e):
    return (lambda e: _log1p_unit32(e)) if e == types.float32 else (lambda e: math.log1p(e))


@overload(expm1, inline="always")
def _expm1(x):
    return (lambda x: _expm1_32(x)) if x == types.float32 else (lambda x: math.expm1(x))


@overload(tanh, inline="always")
def _tanh(x):
    return (lambda x: _tanh32(x)) if x == types.float32 else (lambda x: math.tanh(x))


@overload(sin_cos_of_turns, inline="always")
def _sin_cos_of_turns(v):
    if v == types.float32:
        return lambda v: _sin_cos_of_turns32(v)
    return lambda v: (math.sin(2 * math.pi * v), math.cos(2 * math.pi * v))


@njit(inline="always", **JIT)
def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x|, which does not overflow."""
    one = cast(1.0, x)
    e = exp(-abs(x))
    return (one if x >= cast(0.0, x) else e) / (one + e)


@njit(inline="always", **JIT)
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    zero = cast(0.0, x)
    return (x if x > zero else zero) + log1p_unit(exp(-abs(x)))
