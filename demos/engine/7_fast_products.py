# %% [markdown]
# # Fast products: from three loops to the ceiling of the machine
#
# A dense layer with 784 inputs does 784 multiply-adds for each of its outputs, and a handful of operations for bias and
# activation. So a network trains as fast as its matrix products. They are also a good place to learn what makes code
# fast at all: every version below does the same m·n·k multiply-adds, and still the last is many times as fast as the
# first (how many, the lesson prints). The versions are the six functions of
# [products.py](../../kernels/cpu/products.py), the *ladder*, and each rung has one idea more than the one below. The
# last rung is the one that trains the models of this project.
#
# How fast could they be? The lesson first measures what your machine can do at most, then puts every rung below this
# ceiling. Everything runs on one core, in float32.

# %%
import argparse
import os

if __name__ == "__main__":  # one core; Numba and OpenBLAS read these when they are imported
    os.environ["NUMBA_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from numba import njit

from kernels.cpu import products
from kernels.cpu.simd import lanes, load, multiply_add, store

# %% [markdown]
# ## The first ceiling: arithmetic
#
# A processor has an instruction for this, the *fused multiply-add* (FMA): c + a·b for a whole vector, 8 float32 with
# AVX2 and 16 with AVX-512. A typical core can start two of them in every cycle, but the result of one arrives about
# four cycles later. A single running sum waits for its own last result, and reaches an eighth of the speed. With eight
# sums or more that do not depend on one another, there is always one that can go on.
#
# The loop below has twelve sums, all in registers, and does nothing else. `load`, `store` and `multiply_add` are those
# of [simd.py](../../kernels/cpu/simd.py), where a vector is a value like any other. `multiply_add(total, a, 0, vector)`
# is total + a[0]·vector. What this loop reaches is the *peak*.


# %%
@njit
def multiply_adds(sums, a, b, repeats):
    """Add a[0] b (lanes,) to each of twelve vectors ``sums`` (12 lanes,), ``repeats`` times, in registers."""
    w = lanes(sums)
    vector = load(b, 0)
    c0, c1, c2, c3 = load(sums, 0), load(sums, w), load(sums, 2 * w), load(sums, 3 * w)
    c4, c5, c6, c7 = load(sums, 4 * w), load(sums, 5 * w), load(sums, 6 * w), load(sums, 7 * w)
    c8, c9, c10, c11 = load(sums, 8 * w), load(sums, 9 * w), load(sums, 10 * w), load(sums, 11 * w)
    for _ in range(repeats):
        c0, c1 = multiply_add(c0, a, 0, vector), multiply_add(c1, a, 0, vector)
        c2, c3 = multiply_add(c2, a, 0, vector), multiply_add(c3, a, 0, vector)
        c4, c5 = multiply_add(c4, a, 0, vector), multiply_add(c5, a, 0, vector)
        c6, c7 = multiply_add(c6, a, 0, vector), multiply_add(c7, a, 0, vector)
        c8, c9 = multiply_add(c8, a, 0, vector), multiply_add(c9, a, 0, vector)
        c10, c11 = multiply_add(c10, a, 0, vector), multiply_add(c11, a, 0, vector)
    store(sums, 0, c0), store(sums, w, c1), store(sums, 2 * w, c2), store(sums, 3 * w, c3)
    store(sums, 4 * w, c4), store(sums, 5 * w, c5), store(sums, 6 * w, c6), store(sums, 7 * w, c7)
    store(sums, 8 * w, c8), store(sums, 9 * w, c9), store(sums, 10 * w, c10), store(sums, 11 * w, c11)


# %% [markdown]
# ## The other ceilings: bandwidth
#
# Numbers have to get to the registers and back. A core has a small cache (L1, 32 KiB or a little more), a larger one
# (L2, some hundred KiB or a few MiB), often shares a third with other cores (L3), and behind them lies the memory. Each
# is larger than the one before, and slower. The loop `out += x`, repeated over the same two arrays, measures them all:
# it loads two numbers and stores one, and where they come from depends on how large the arrays are.
#
# The usual benchmark is a copy, but it reads every line of `out` from memory too, before it writes there, and this
# traffic is easily forgotten. In `out += x` all traffic is in plain sight, and the second rung will have the same.


# %%
@njit
def update(out, x, repeats):
    """out (n,) += x (n,), ``repeats`` times."""
    for _ in range(repeats):
        for i in range(out.size):
            out[i] += x[i]


def aligned_array(n):
    """n float32 that begin at a cache line; a vector across two lines costs two accesses."""
    numbers = np.full(n + 16, 1e-3, np.float32)  # not np.zeros: its memory is not there before it is written
    return numbers[-numbers.ctypes.data % 64 // 4 :][:n]


WORKING_SETS = [2**i for i in range(13, 28)]  # bytes of both arrays together, from 8 KiB to 128 MiB
LEVELS = {"L1": 2**13, "L2": 2**18, "memory": 2**27}  # 8 KiB, 256 KiB and 128 MiB stand for these


def shortest_seconds(calls, rounds):
    """The shortest time of each call, by name, over so many rounds in which the calls take turns.

    Not the median: whatever else runs on the machine can only slow a call down. A first call, in which functions are
    compiled, does not count.
    """
    for call in calls.values():
        call()
    seconds = dict.fromkeys(calls, np.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def measure_ceilings(rounds):
    """The peak in GFLOP/s, and by working set the bandwidth in GB/s, all the bytes that are loaded and stored."""
    sums, repeats = np.arange(12 * lanes(np.empty(1, np.float32)), dtype=np.float32), 200_000
    a, b = aligned_array(1), aligned_array(sums.size)
    calls = {"peak": lambda: multiply_adds(sums, a, b, repeats)}
    passes = {size: max(1, 2**26 // size) for size in WORKING_SETS}
    for size in WORKING_SETS:
        out, x = aligned_array(size // 8), aligned_array(size // 8)
        calls[size] = lambda out=out, x=x, size=size: update(out, x, passes[size])
    seconds = shortest_seconds(calls, rounds)
    peak = 2 * sums.size * repeats / seconds["peak"] / 1e9
    return peak, {size: 12 * (size // 8) * passes[size] / seconds[size] / 1e9 for size in WORKING_SETS}


# %% [markdown]
# ## The roofline
#
# Take a loop that does I floating-point operations for each byte it loads or stores. I is its *arithmetic intensity*,
# and its speed is limited twice:
#
#     speed  <=  min(peak,  I · bandwidth).
#
# Drawn over I on logarithmic axes, it is a roof: it rises with slope 1, then is flat. Left of the *ridge point*, where
# the two meet, a loop is *memory-bound*, right of it *compute-bound*. This is the roofline model (Williams, Waterman
# and Patterson 2009).
#
# Which bytes count? If each of the three matrices went to or from memory once, that would be
#
#     I  =  2 m n k / (4 (m k + k n + m n))  flop/byte,
#
# which grows with the size of the matrices, as there are more multiply-adds than numbers. Compare it with the ridge
# point of memory, both printed below: a product of this size does not have to wait for memory. If it does, that is the
# fault of the order of its loops. To compare such orders, count the bytes that the core itself loads and stores,
# whichever cache they come from (the cache-aware roofline, Ilic, Pratas and Sousa 2014). Then an inner loop has the
# same intensity for all sizes, and there is a slanted roof for each level: L1 above, memory below.
#
# ## The ladder
#
# The counts of loads and stores are those of each rung's inner loop. A loop over vectors has as many for each number as
# one over numbers, so vectors do not change I; except in the last rung, where w is the number of lanes of a vector.


# %%
def intensities():
    """The arithmetic intensity of each rung in flop/byte, from what its inner loop does."""
    w = lanes(np.empty(1, np.float32))
    counts = {  # multiply-adds, loads and stores; the text below explains them
        "naive": (1, 2),
        "reordered": (1, 3),
        "blocked": (1, 3),
        "unrolled_k": (4, 6),
        "unrolled": (16, 12),
        "tiled": (12 * w, 2 * w + 6),
    }
    return {rung: 2 * multiply_adds / (4 * accesses) for rung, (multiply_adds, accesses) in counts.items()}


# %% [markdown]
# ### 1. naive
#
#     for i:  for j:  for p:  total += a[i, p] * b[p, j]
#
# One dot product after another, as on paper. A multiply-add needs two loads, 8 bytes for 2 operations: I = 1/4. By the
# roofline alone that would not be bad, yet this rung stays far below. The inner loop walks down a column of b, whose
# numbers are a whole row apart, and this has two consequences.
#
# - Numbers that are not adjacent cannot be loaded as one vector. So the compiler makes one multiply-add at a time, all
#   into one running sum, and each waits for the one before. With the numbers above, this reaches about 1/8 (the wait)
#   of 1/lanes (no vectors) of the peak. The lesson prints this expectation.
# - Memory comes in *cache lines* of 64 bytes, 16 float32. The loop uses one number of a line and goes on to the next
#   line. Whether the line is still in the cache when the next column needs it depends on the sizes. In rows of 1,024
#   numbers, 4,096 bytes, all the lines of a column compete for the same few places in the cache, and few survive. This
#   is the row "naive, n = 1024" below.
#
# If this explanation is right, the same three loops must be fast where the *columns* of b are contiguous (Fortran
# order), for then the compiler uses vectors, and four running sums of them. This is the row "naive, b by columns".
#
# ### 2. reordered
#
#     for i:  for p:  for j:  out[i, j] += a[i, p] * b[p, j]
#
# But for rounding, a sum does not depend on the order of its terms, so the two inner loops may change places. Now the
# inner loop runs along a row of b and a row of out. Cache lines are used whole, the compiler makes one vector
# instruction of 8 or 16 steps, and no step waits for another. The price: out is loaded and stored for each term, three
# accesses and I = 1/6. The intensity falls, and with it the roof. Still the speed rises, as the first rung was nowhere
# near its own roof.
#
# ### 3. blocked
#
#     for each block of 64 terms p:  for i:  for p in the block:  for j:  out[i, j] += a[i, p] * b[p, j]
#
# For each row of out the second rung reads all of b. If b is larger than the L2 cache, it comes from L3 or from memory
# every time. *Cache blocking* (or tiling) makes a block of b, small enough for L2, serve all rows of out before it
# takes the next block. The intensity is the same; the bytes come from a nearer cache, under a higher roof. This helps
# only where b does not fit into L2. So the lesson measures two sizes: one b that fits into most L2 caches, and one that
# does not. How much blocking gains there depends on how fast the machine's L3 cache is.
#
# ### 4. unrolled_k
#
#     for j:  out[i, j] += a[i, p] * b[p, j] + a[i, p+1] * b[p+1, j] + a[i, p+2] * b[p+2, j] + a[i, p+3] * b[p+3, j]
#
# Rungs 2 and 3 load a number of out, add one term and store it. Where the loop over p is *unrolled* by four, four terms
# are added in between, in a register. Now four multiply-adds need four loads of b, one of out and one store: I = 1/3,
# twice as much. This is *register reuse*: the fastest access is the one that does not happen.
#
# ### 5. unrolled
#
#     for j:  x0, x1, x2, x3 = b[p, j], b[p+1, j], b[p+2, j], b[p+3, j]
#             out[i,   j] += a[i,   p] * x0 + ... + a[i,   p+3] * x3
#             ...
#             out[i+3, j] += a[i+3, p] * x0 + ... + a[i+3, p+3] * x3
#
# Unrolling over i as well (*unroll and jam*) lets each number of b, once in a register, serve four rows. Sixteen
# multiply-adds need four loads of b, four of out and four stores: I = 2/3. It does not go on like this: the sixteen
# numbers of a, each spread over a vector, already fill all the registers that AVX2 has.
#
# ### 6. tiled
#
#     for each tile of 6 rows and 2 w columns:
#         for p:  twelve vectors c, held in registers, += six numbers of a times two vectors of b
#
# Rung 5 still loads and stores out for every four terms. The last rung never does: a *tile* of out stays in registers
# while all its terms pass, and is stored once at the end. The loop over p is innermost again, but a step of it is now
# an outer product: two loads of vectors and six loads of numbers for twelve vector multiply-adds, I = 12 · 2w /
# (4 (2w + 6)). Twelve sums, two vectors of b and a number of a make 15 registers, of the 16 that AVX2 has. And twelve
# independent sums are enough to hide the latency of the multiply-add, as in the loop that measured the peak. This
# loop is called the *micro-kernel*.
#
# Its loads should come from L1, one after the other. So a and b are first *packed*: copied into *micro-panels* of six
# rows of a, and of 2w columns of b, in the order in which the micro-kernel reads them. No cache line is used in part,
# and rows that lie a power of two apart do not compete for the same places in the cache. The copies cost m·k + k·n
# accesses and serve m·n·k multiply-adds. Micro-kernel, packing and blocking for each cache together are the structure
# of today's BLAS libraries (Goto and van de Geijn 2008; Van Zee and van de Geijn 2015).
#
# The row "micro-kernel alone" below times it on panels that lie in L1, without any packing.


# %%
@njit
def micro_kernel(tile, values, terms, packed, repeats):
    """tile (6, 2 lanes) = the sum of all terms of one micro-panel of a and one of b, ``repeats`` times."""
    for _ in range(repeats):
        products.multiply_tile(tile, values, terms, terms.size, packed)


SHAPES = ((120, 200, 200), (120, 1000, 1000))  # (m, k, n): b takes 160 kB, or 4 MB
TERMS = 200  # of the micro-kernel: its panels are less than 32 KiB


def measure_ladder(m, k, n, rounds):
    """GFLOP/s of every rung, by name, and of what it is compared with, by description."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    by_columns, out, expected = np.asfortranarray(b), np.empty((m, n), np.float32), a @ b

    def checked(product, b):
        product(out, a, b)
        assert np.abs(out - expected).max() <= 1e-4 * np.abs(expected).max()
        return lambda: product(out, a, b)

    rungs = {rung.__name__.removeprefix("product_"): checked(rung, b) for rung in products.LADDER}
    w = lanes(out)
    tile, values, packed = (aligned_array(size) for size in (12 * w, 6 * TERMS, 2 * w * TERMS))
    terms, repeats = np.arange(TERMS, dtype=np.int32), 200
    wide_b, wide_out = np.ones((k, 1024), np.float32), np.empty((12, 1024), np.float32)  # twelve rows, or it takes long
    others = {
        "naive, n = 1024": lambda: products.product_naive(wide_out, a[:12], wide_b),
        "naive, b by columns": checked(products.product_naive, by_columns),
        "micro-kernel alone": lambda: micro_kernel(tile, values, terms, packed, repeats),
        "NumPy's BLAS": lambda: np.matmul(a, b, out=out),
    }
    seconds = shortest_seconds(rungs | others, rounds)
    work = dict.fromkeys(seconds, m * n * k)  # multiply-adds
    work |= {"naive, n = 1024": 12 * 1024 * k, "micro-kernel alone": 12 * w * TERMS * repeats}
    speeds = {name: 2e-9 * work[name] / seconds[name] for name in seconds}
    return {name: speeds[name] for name in rungs}, {name: speeds[name] for name in others}


# %% [markdown]
# ## How to read the tables
#
# - "of the roof" says how well a loop uses what its intensity allows, "of the peak" what is left to gain. From rung 3
#   to rung 6 each idea raises the intensity, until the roof is the peak itself.
# - Rungs 2 to 5 stay below their roofs, as their b comes from L2 or from farther away.
# - Between "micro-kernel alone" and "tiled" lie the packing, the panels of b that come from L2, and the copies of tiles
#   to out. Where a near cache holds all that rung 5 needs, rung 6 may gain little: it has to pack, and rung 5 has not.
# - NumPy's BLAS is built like the last rung, with a micro-kernel in assembly, written for each kind of processor. Which
#   of the two is ahead depends on the machine and on the size. In training the last rung can do less than all m·n·k
#   multiply-adds: it leaves out the terms in which six rows of a are zero, as many pixels of digits are.
#
# ## The figure
#
# Left, the bandwidth: a staircase with a step where the arrays outgrow a cache. Right, the roofs of three levels of
# memory, and every rung of the larger product.


# %%
BLUE, ORANGE = "#3f90da", "#e76300"


def plain_numbers(axis):
    """Ticks 1, 2, 5, 10, ... on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def draw_bandwidth(panel, bandwidth):
    """Bandwidth by the size of the arrays."""
    panel.plot(bandwidth.keys(), bandwidth.values(), marker="o", color="black", markersize=4)
    for level, size in LEVELS.items():
        panel.annotate(level, (size, bandwidth[size]), (4, 9), textcoords="offset points")
    panel.set(xscale="log", yscale="log", title="Bandwidth of out += x", xlabel="both arrays together", ylabel="GB/s")
    panel.set(xlim=(2**12.3, 2**30.5), ylim=(min(bandwidth.values()) / 1.5, max(bandwidth.values()) * 1.5))
    plain_numbers(panel.yaxis)
    sizes = [2**i for i in (13, 17, 21, 25)]
    panel.set_xticks(sizes, [f"{size >> 10} KiB" if size < 2**20 else f"{size >> 20} MiB" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())


NAMES = {  # where a rung's name stands: the offset in points, and its alignment
    "naive": (9, 0, "left"),
    "reordered": (-9, -7, "right"),
    "blocked": (-9, 7, "right"),
    "unrolled_k": (9, -2, "left"),
    "unrolled": (9, -2, "left"),
    "tiled": (9, -2, "left"),
}


def draw_roofline(panel, peak, bandwidth, rungs, others):
    """The roofs of ``LEVELS``, every rung at its intensity, and what the rungs are compared with."""
    intensity, x = intensities(), np.geomspace(0.06, 10, 400)
    for level, line in zip(LEVELS, ("-", "--", ":"), strict=True):
        speed = bandwidth[LEVELS[level]]
        panel.plot(x, np.minimum(peak, x * speed), line, color="black", label=f"roof of {level}, {speed:.0f} GB/s")
    panel.annotate(f"peak, {peak:.0f} GFLOP/s", (x[-1], peak), (0, 5), textcoords="offset points", ha="right")
    panel.axhline(others["NumPy's BLAS"], color="gray", linewidth=1, label="NumPy's BLAS")
    for rung, speed in rungs.items():
        panel.plot(intensity[rung], speed, "o", color=BLUE)
        *offset, side = NAMES[rung]
        style = {"ha": side, "va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
        panel.annotate(rung, (intensity[rung], speed), offset, textcoords="offset points", **style)
    for other, rung, marker in (
        ("micro-kernel alone", "tiled", "*"),
        ("naive, b by columns", "naive", "^"),
        ("naive, n = 1024", "naive", "v"),
    ):
        panel.plot(intensity[rung], others[other], marker, color=ORANGE, label=other)
    panel.set(title="Roofline, m, k, n = {}, {}, {}".format(*SHAPES[-1]), xscale="log", yscale="log")
    panel.set(xlabel="arithmetic intensity, flop/byte", ylabel="GFLOP/s")
    panel.set(xlim=x[[0, -1]], ylim=(0.6 * min(rungs["naive"], others["naive, n = 1024"]), 1.6 * peak))
    plain_numbers(panel.xaxis)
    plain_numbers(panel.yaxis)
    panel.legend(loc="lower right", frameon=False)


# %%
def main():
    parser = argparse.ArgumentParser(description="Matrix products, rung by rung, below the ceilings of this machine.")
    parser.add_argument("--out", type=Path, default=Path("runs/engine-7"), help="folder for the figure")
    parser.add_argument("--quick", action="store_true", help="the best of three rounds instead of twenty")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rounds = 3 if options.quick else 20

    peak, bandwidth = measure_ceilings(rounds)
    w, intensity = lanes(np.empty(1, np.float32)), intensities()
    print(f"peak {peak:.1f} GFLOP/s, by multiply-adds in registers, {w} lanes a vector")
    print(f"expected of one number at a time and one running sum: about {peak / (8 * w):.1f} GFLOP/s\n")
    print("level  | both arrays |   GB/s | ridge point, flop/byte")
    for level, size in LEVELS.items():
        print(f"{level:<6} | {size >> 10:>7,} KiB | {bandwidth[size]:6.1f} | {peak / bandwidth[size]:10.2f}")

    for m, k, n in SHAPES:
        rungs, others = measure_ladder(m, k, n, rounds)
        least = 2 * m * n * k / (4 * (m * k + k * n + m * n))
        print(f"\nm, k, n = {m}, {k}, {n}: if every number moves once, {least:.0f} flop/byte\n")
        print(f"{'rung':<19} | flop/byte | roof of L1 | GFLOP/s | of the roof | of the peak")
        for rung, speed in rungs.items():
            roof = min(peak, intensity[rung] * bandwidth[LEVELS["L1"]])
            row = f"{intensity[rung]:9.2f} | {roof:10.1f} | {speed:7.2f} | {speed / roof:11.1%} | {speed / peak:11.1%}"
            print(f"{rung:<19} | {row}")
        for other, speed in others.items():
            print(f"{other:<19} | {'':9} | {'':10} | {speed:7.2f} | {'':11} | {speed / peak:11.1%}")
        print(f"\nthe last rung is {rungs['tiled'] / rungs['naive']:.0f} times as fast as the first")
        assert rungs["tiled"] >= 5 * rungs["naive"]

    figure = Figure(figsize=(12, 5.5), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.8])
    draw_bandwidth(left, bandwidth)
    draw_roofline(right, peak, bandwidth, rungs, others)
    path = options.out / "roofline.png"
    figure.savefig(path)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
