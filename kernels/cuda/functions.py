"""Device functions that kernels call: functions of one number, and reductions over the threads of a block."""

import math

from kernels.cuda.device import SIMULATED, WARP, cuda

# ---- functions of a number ----


@cuda.jit(device=True)
def cast(value, like):
    """A constant in the float type of ``like``: a bare one would make the whole formula float64."""
    return type(like)(value)


@cuda.jit(device=True)
def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x|, which does not overflow."""
    e, one = math.exp(-abs(x)), cast(1.0, x)
    return (e if x < cast(0.0, x) else one) / (one + e)


@cuda.jit(device=True)
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    return (x if x > cast(0.0, x) else cast(0.0, x)) + math.log1p(math.exp(-abs(x)))


ACTIVATIONS = ("identity", "relu", "elu", "sigmoid", "tanh", "softplus")  # their indices are the constants below
RELU, ELU, SIGMOID, TANH, SOFTPLUS = range(1, 6)


@cuda.jit(device=True)
def activate(kind, x):
    """The activation with index ``kind``. All threads take the same branch, so branching costs next to nothing."""
    zero = cast(0.0, x)
    if kind == RELU:
        return zero if x < zero else x  # in this order NaN stays NaN
    if kind == ELU:
        return x if x > zero else cast(math.expm1(x), x)
    if kind == SIGMOID:
        return sigmoid(x)
    if kind == TANH:
        return cast(math.tanh(x), x)
    if kind == SOFTPLUS:
        return softplus(x)
    return x


@cuda.jit(device=True)
def slope(kind, y):
    """The activation's derivative, from its output y."""
    zero, one = cast(0.0, y), cast(1.0, y)
    if kind == RELU:
        return one if y > zero else zero
    if kind == ELU:
        return one if y > zero else y + one
    if kind == SIGMOID:
        return y * (one - y)
    if kind == TANH:
        return one - y * y
    if kind == SOFTPLUS:
        return cast(-math.expm1(-y), y)
    return one


# ---- block reductions: each thread passes a number and gets the result; the order is fixed, so it is reproducible ----


@cuda.jit(device=True)
def block_sum(shared, value):
    """The sum over the threads, a power of 2 of them: the upper half is added to the lower until one number is left."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    shared[t] = value
    cuda.syncthreads()
    while half > 0:
        if t < half:
            shared[t] += shared[t + half]
        cuda.syncthreads()
        half //= 2
    total = shared[0]
    cuda.syncthreads()  # all must have read it before it is overwritten
    return total


@cuda.jit(device=True)
def block_max(shared, value):
    """The maximum over the threads."""
    t, half = cuda.threadIdx.x, cuda.blockDim.x // 2
    shared[t] = value
    cuda.syncthreads()
    while half > 0:
        if t < half and shared[t + half] > shared[t]:
            shared[t] = shared[t + half]
        cuda.syncthreads()
        half //= 2
    largest = shared[0]
    cuda.syncthreads()
    return largest


@cuda.jit(device=True)
def row_max(shared, x, r):
    """The maximum of row r of x."""
    largest = x[r, 0]
    for n in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        largest = largest if x[r, n] < largest else x[r, n]
    return block_max(shared, largest)


@cuda.jit(device=True)
def row_sum_exp(shared, x, r, shift):
    """The sum of e^(x - shift) along row r of x."""
    total = cast(0.0, x[r, 0])
    for n in range(cuda.threadIdx.x, x.shape[1], cuda.blockDim.x):
        total += math.exp(x[r, n] - shift)
    return block_sum(shared, total)


# A block for columns has several rows of threads, each a warp wide, so that a row of threads reads adjacent columns.
COLUMNS, ROWS = WARP, 2 if SIMULATED else 8
COLUMN_TILE = ROWS, COLUMNS
BLOCK = 4 if SIMULATED else 256  # a thread's long sum adds the sums of so many numbers: it rounds less


@cuda.jit(device=True)
def column_sum(shared, value):
    """The sum over the threads of a column."""
    row, column = cuda.threadIdx.x // COLUMNS, cuda.threadIdx.x % COLUMNS
    shared[row, column] = value
    cuda.syncthreads()
    total = shared[0, column]
    for r in range(1, ROWS):
        total += shared[r, column]
    cuda.syncthreads()
    return total
