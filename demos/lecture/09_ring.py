# %% [markdown]
# # Any distribution from a simple one: a ring
#
# The idea that generative networks rest on: draw z from a simple distribution, and let a function g do the rest
# (L09 of the ledger). The lecture's example turns N(0, I) of the plane into a ring,
#
#     g(z)  =  z/10  +  z/||z||,
#
# and adds that such a function can be learned from data. Both are done here: the exact map and what follows from it,
# and a network that is shown points of the ring, but no pairs (z, x), and finds a map of its own.

# %%
import argparse
import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from scratchgen import Adam, RandomStream, Tensor, no_grad, ops
from scratchgen.models.gan import GAN, GANConfig
from scratchgen.nn import Dense, Sequential, mlp
from scratchgen.optim import cosine
from scratchgen.options import make_folder, positive, whole
from scratchgen.tasks.gan import GANTask, GANTraining

# %% [markdown]
# ## The exact map
#
# z/||z|| puts z on the unit circle, and z/10 pushes it outwards by a tenth of its norm, in the same direction. So
#
#     radius of g(z)  =  1 + ||z||/10,        angle of g(z)  =  angle of z.
#
# N(0, I) looks the same in all directions: the angle is uniform, and tells nothing about the norm. The norm has the
# Rayleigh distribution, P(||z|| > s) = exp(-s²/2), with mean sqrt(π/2) and variance 2 - π/2. This gives the radius its
#
#     mean  =  1 + sqrt(π/2)/10  =  1.1253,        sd  =  sqrt(2 - π/2)/10  =  0.0655,
#
# and its quantiles r(u) = 1 + sqrt(-2 log(1 - u))/10.
#
# At z = 0 the formula divides 0 by 0. That z has probability 0, but a program should not answer with NaN: `ring` gives
# it the direction (1, 0). Any direction would do: near 0 all of them occur, and no choice makes g continuous there.

# %%
MEAN, SD = 1 + math.sqrt(math.pi / 2) / 10, math.sqrt(2 - math.pi / 2) / 10


def ring(z):
    """g(z) = z/10 + z/||z|| (n, 2) of z (n, 2); g(0) = (1, 0)."""
    largest = np.abs(z).max(axis=1, keepdims=True)  # divided by first: the squares of 1e-200 would be 0
    direction = np.where(largest > 0, z / np.where(largest > 0, largest, 1), [1, 0])
    return z / 10 + direction / np.linalg.norm(direction, axis=1, keepdims=True)


def radius_quantile(u):
    """The u-quantile of the radius of g(z)."""
    return 1 + np.sqrt(-2 * np.log1p(-u)) / 10


def polar(x):
    """Radius and angle, the latter in turns from 0 to 1, each (n,), of points x (n, 2)."""
    return np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0]) / (2 * math.pi) % 1


# %% [markdown]
# ## Why it works for any distribution
#
# In one dimension, u = Φ(z) is uniform for z from N(0, 1), and a quantile function turns a uniform number into any
# distribution. In d dimensions one does so coordinate by coordinate, each with its quantiles given those before
# (Rosenblatt 1952). For the ring, in polar coordinates, nothing depends on anything:
#
#     angle  =  Φ(z_1) turns,        radius  =  r(Φ(z_2)).
#
# That is another exact map from N(0, I) to the same ring, and unlike g it is continuous: it bends the plane to a ring
# that is cut open. A distribution does not determine its map.


# %%
def bent_plane(z):
    """The ring (n, 2) by quantile functions, of z (n, 2)."""
    u = np.vectorize(NormalDist().cdf)(z)
    angle, radius = 2 * math.pi * u[:, 0], radius_quantile(u[:, 1])
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


# %% [markdown]
# ## How far from the ring?
#
# The Wasserstein distance W1 is how far the samples have to be carried, on average, to become the other distribution.
# On a line it is the mean distance between quantiles. It is taken of the radii, against r(u), and of the angles,
# against the uniform distribution, because a generator that makes a part of the ring may have perfect radii. On a
# circle one may carry either way round: the quantiles may be shifted, and the best shift is the median difference
# (Rabin, Delon & Gousseau 2011). Angles are in turns: half a ring is 0.125 from a whole one.


# %%
def radius_distance(x):
    """W1 of the radii of points x (n, 2) and those of g(z)."""
    radius, _ = polar(x)
    return float(np.abs(np.sort(radius) - radius_quantile((np.arange(len(x)) + 0.5) / len(x))).mean())


def angle_distance(x):
    """W1, in turns on the circle, of the angles of points x (n, 2) and the uniform distribution."""
    _, angle = polar(x)
    difference = np.sort(angle) - (np.arange(len(x)) + 0.5) / len(x)
    return float(np.abs(difference - np.median(difference)).mean())


# %% [markdown]
# ## A network that learns a map
#
# G has three hidden layers of 64 relu units and no idea of circles or norms. What does it minimise? Its samples have to
# be *distributed* as the data, so a loss has to compare two clouds of points. Along one direction w that is easy: sort
# the projections of both clouds and compare rank by rank, which is their W1 on that line. Averaged over directions it
# is the sliced Wasserstein distance (Rabin, Peyré, Delon & Bernot 2011; for generators, Deshpande et al. 2018),
#
#     SW(x, y)  =  mean over w of  1/n Σ_i |(w·x)_(i) - (w·y)_(i)|,
#
# where (i) is the i-th in order. It is 0 only if the projections onto all directions agree, and then the distributions
# do. Sorting has no gradient of its own: it says who meets whom, and the gradient flows through the differences.
#
# Why not a GAN? `GAN` of this project does it as well, with the ring scaled into the unit square, as its G ends in a
# sigmoid. `--study 3` trains both, from seeds 0 to 2:
#
#     training                        | W1 of radii    | W1 of angles, turns
#     sliced Wasserstein, 3,000 steps | 0.002 to 0.007 | 0.002
#     GAN, 4,000 steps                | 0.025 to 0.030 | 0.003
#
# With these settings the GAN's ring is closed but not within 0.02, after more than twice the time: its D has to find
# out about the thickness of the ring while G moves. In the plane a few directions show all of it, and there is no game
# to balance. Of 784 pixels sixteen directions show next to nothing, and a learned D is the better idea.


# %%
BATCH, DIRECTIONS = 1024, 16


def sliced_distance(fake, real, directions):
    """Sliced W1 of samples (n, 2), a Tensor, and data (n, 2), an array, over unit vectors (2, k)."""
    projected, wanted = fake @ Tensor(directions), np.sort(real @ directions, axis=0)
    target = np.empty_like(wanted)
    np.put_along_axis(target, projected.data.argsort(axis=0), wanted, axis=0)  # each sample's partner, by rank
    return ops.abs(projected - target).mean()


def draw_directions(rng, count=DIRECTIONS):
    """Unit vectors (2, count), evenly spread over a half circle that is turned at random."""
    angle = math.pi * (rng.random() + np.arange(count)) / count
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


def draw_data(rng, n=BATCH):
    """Points of the ring (n, 2), float32."""
    return ring(rng.standard_normal((n, 2))).astype(np.float32)


def train(seed, steps, watch=lambda network, step: None):
    """A network from z to the ring. ``watch(network, step)`` is called before the first step and after each."""
    rng = np.random.default_rng(seed)
    network = Sequential(mlp((2, 64, 64, 64), "relu", rng), Dense(64, 2, rng))
    optimizer = Adam(network, cosine(3e-3, steps))
    watch(network, 0)
    for step in range(steps):
        fake = network(Tensor(rng.standard_normal((BATCH, 2)).astype(np.float32)))
        loss = sliced_distance(fake, draw_data(rng), draw_directions(rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch(network, step + 1)
    return network


def generate(network, z):
    """The network's points (n, 2) of z (n, 2)."""
    with no_grad():
        return network(Tensor(z.astype(np.float32))).data.astype(np.float64)


# %% [markdown]
# ## What a continuous map cannot do
#
# g tears the plane open at 0. A network of relu units is continuous, so what does it do about the hole? Either it goes
# round the ring while z goes round a circle, as g does. Then it has to fill the hole: shrink the circle of z to a
# point, and its image, which winds round the origin, must be pulled across it. All the network can do is to be steep,
# so that few z land there. Or it goes some way and back, as the bent plane does, and then the hole may stay empty. The
# winding number of the circle ||z|| = 1 tells: not 0, or 0. Both occur. Seed 2 has 0, a hole all but empty, and the
# smallest distance; but seeds 4 and 6, with 0 as well, still stretch across the hole with one point in a hundred.


# %%
def winding(network, radius=1.0, points=2_000):
    """How often the network's image of the circle ||z|| = radius goes round the origin; negative if clockwise."""
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    _, turned = polar(generate(network, radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)))
    steps = np.diff(turned, append=turned[0])
    return round(float((steps - np.round(steps)).sum()))  # each step the shorter way round


# %% [markdown]
# ## The pictures
#
# Each point keeps the colour of its z, one for each sixth of the plane, so that one sees where it went.

# %%
COLOURS = ("#3f90da", "#e76300", "#2a7f62")
SIXTHS = np.array(["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59"])


class Film:
    """The network's points of some z at ``frames`` + 1 steps, closer together at the start."""

    def __init__(self, z, steps, frames):
        self.z, self.steps = z, {round(steps * (i / frames) ** 2) for i in range(frames + 1)}
        self.frames = []

    def __call__(self, network, step):
        if step in self.steps:
            self.frames.append((step, generate(network, self.z)))


def draw_points(panel, x, z, title, limit=1.7, size=4):
    """Points x (n, 2) in the colours of their z (n, 2)."""
    panel.scatter(*x.T, color=SIXTHS[(polar(z)[1] * 6).astype(int) % 6], s=size, linewidths=0)
    panel.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def draw_histograms(radii, angles, samples):
    """Densities of the radius and of the angle in turns: of theory, and of each network's samples."""
    r = np.linspace(1, 1.5, 400)
    norm = 10 * (r - 1)
    radii.fill_between(r, 10 * norm * np.exp(-(norm**2) / 2), color="lightgray", linewidth=0, label="theory")
    angles.axhspan(0, 1, color="lightgray", linewidth=0, label="theory")
    for (seed, x), colour in zip(samples.items(), COLOURS, strict=True):
        style = {"density": True, "histtype": "step", "color": colour, "label": f"learned, seed {seed}"}
        radii.hist(polar(x)[0], np.linspace(0.5, 1.5, 101), **style)
        angles.hist(polar(x)[1], np.linspace(0, 1, 41), **style)
    radii.set(title="Radii", xlabel="radius", ylabel="density", xlim=(0.5, 1.5))
    angles.set(title="Angles", xlabel="angle, turns", ylabel="density", xlim=(0, 1), ylim=(0, 2))
    radii.legend(loc="upper left", frameon=False, fontsize=9)
    angles.legend(loc="upper left", frameon=False, fontsize=9, ncols=2)


def draw_training(panel, films):
    """W1 of radii and of angles over the steps, for each seed."""
    for (seed, film), colour in zip(films.items(), COLOURS, strict=True):
        steps, points = zip(*film.frames[1:], strict=True)
        panel.loglog(steps, [radius_distance(x) for x in points], color=colour, label=f"radii, seed {seed}")
        panel.loglog(steps, [angle_distance(x) for x in points], color=colour, linestyle=":")
    panel.axhline(0.02, color="gray", linestyle="--", linewidth=1)
    panel.set(title="W1 to the ring; dotted: of angles, turns", xlabel="step", ylabel="W1")
    panel.legend(loc="lower left", frameon=False, fontsize=9)


def save_film(path, film, shown=400):
    """The network's points during training, and beside it how each z moves to its point in the end."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panels, z = figure.subplots(1, 2), film.z[:shown]
    writer, last = PillowWriter(fps=6), film.frames[-1][1][:shown]
    with writer.saving(figure, path, dpi=70):
        for frame in [*range(len(film.frames)), *[len(film.frames) - 1] * 6]:  # stay at the end for a while
            step, points = film.frames[frame]
            share = frame / (len(film.frames) - 1)
            for panel in panels:
                panel.clear()
            draw_points(panels[0], points[:shown], z, f"G(z) in training, step {step:,}", 2.5, 6)
            moved = z + share * (last - z)
            draw_points(panels[1], moved, z, f"from z to G(z) trained, {share:.0%}", 2.5, 6)
            writer.grab_frame()


# %% [markdown]
# ## The GAN, for comparison
#
# Only `--study` trains it. G: two hidden layers of 128, D likewise; Adam, an average of G's parameters, no dropout.


# %%
def train_gan(seed, steps, scale=3.0, batch=512):
    """A GAN of z and the ring, as a function from z (n, 2) to points (n, 2)."""
    layers = {"generator_hidden": (128, 128), "discriminator_hidden": (128, 128), "batch_norm": False, "pack": 1}
    model = GAN(GANConfig(input_dim=2, latent_dim=2, **layers), seed)
    training = GANTraining(real_label=1.0, generator_lr=5e-4, discriminator_lr=1e-3, average=0.99)
    task = GANTask(model, training, RandomStream([seed, 1]), steps, 1, lambda *_: {})
    rng = np.random.default_rng([seed, 2])
    for _ in range(steps):
        task.train_step(Tensor(draw_data(rng, batch) / scale + 0.5))  # into the unit square
    return lambda z: scale * (generate(task.average.module, z) - 0.5)


def study(seeds):
    """W1 of radii and angles by both ways of training, from seeds 0 to ``seeds`` - 1."""
    z = np.random.default_rng([0, 3]).standard_normal((10_000, 2))
    ways = {
        "sliced Wasserstein, 3,000 steps": lambda seed: generate(train(seed, 3_000), z),
        "GAN, 4,000 steps": lambda seed: train_gan(seed, 4_000)(z),
    }
    print(f"{'training':<31} | W1 of radii    | W1 of angles, turns")
    for name, way in ways.items():
        found = [(radius_distance(x), angle_distance(x)) for x in map(way, range(seeds))]
        ends = [[f"{end:.3f}" for end in (min(values), max(values))] for values in zip(*found, strict=True)]
        radii, angles = (low if low == high else f"{low} to {high}" for low, high in ends)
        print(f"{name:<31} | {radii:<14} | {angles}", flush=True)


# %% [markdown]
# ## Expected beside got
#
# Mean and standard deviation follow from the Rayleigh distribution; of a million draws they are within three standard
# errors. The limits 1e-15 and 0.02 are the ledger's. 10,000 draws of the ring itself are about 0.001 and 0.002 away
# from it in radius and angle, by chance. A point is in the hole if its radius is below 0.95, which g's never is; how
# many of a network's are, and its winding number, depend on the seed.


# %%
def main():
    parser = argparse.ArgumentParser(description="A ring from normal numbers, by an exact map and by learned ones.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo-09"), help="folder for the figure and the animation"
    )
    parser.add_argument("--quick", action="store_true", help="400 steps of training, not 3,000")
    parser.add_argument("--seed", type=whole, default=0, help="the first of three")
    parser.add_argument(
        "--study", type=positive, metavar="N", help="only train, seeds 0 to N - 1, this way and as a GAN"
    )
    options = parser.parse_args()
    if options.study:
        return study(options.study)
    make_folder(parser, options.out)
    steps, frames = (400, 8) if options.quick else (3_000, 18)

    rng = np.random.default_rng([options.seed, 1])
    z = rng.standard_normal((1_000_000, 2))
    x = ring(z)
    radius, angle = polar(x)
    norm, direction = polar(z)
    turned = np.abs(angle - direction)
    z, x = z[:10_000], x[:10_000]
    half = np.stack([x[:, 0], np.abs(x[:, 1])], axis=1)

    films, samples, sliced, rounds, hole = {}, {}, [], [], []
    fresh, directions = draw_data(rng, len(z)), draw_directions(rng, 64)
    for seed in range(options.seed, options.seed + 3):
        films[seed] = Film(z, steps, frames)
        network = train(seed, steps, films[seed])
        points = samples[seed] = generate(network, z)
        sliced.append(sliced_distance(Tensor(points.astype(np.float32)), fresh, directions).item())
        rounds.append(winding(network))
        hole.append(float(np.mean(polar(points)[0] < 0.95)))
        print(
            f"seed {seed}: W1 of radii {radius_distance(points):.4f}, of angles {angle_distance(points):.4f} turns, "
            f"winding number {rounds[-1]}, in the hole {hole[-1]:.1%}"
        )

    def worst(measure):
        return f"{max(map(measure, samples.values())):.4f}"

    data = sliced_distance(Tensor(x.astype(np.float32)), fresh, directions).item()
    quick = options.quick
    rows = [
        ("g: |radius - (1 + ||z||/10)|, largest", "at most 1e-15", f"{np.abs(radius - (1 + norm / 10)).max():.1e}"),
        ("g: |angle - angle of z|, turns, largest", "below 1e-15", f"{np.minimum(turned, 1 - turned).max():.1e}"),
        ("g: mean radius", f"{MEAN:.4f} ± {3 * SD / 1000:.4f}", f"{radius.mean():.4f}"),
        ("g: sd of the radius", f"{SD:.4f} ± 0.0002", f"{radius.std():.4f}"),
        ("g(0)", "[1. 0.]", f"{ring(np.zeros((1, 2)))[0]}"),
        ("g: W1 of radii of 10,000 draws", "about 0.001", f"{radius_distance(x):.4f}"),
        ("g: W1 of angles of 10,000 draws, turns", "about 0.002", f"{angle_distance(x):.4f}"),
        ("bent plane: W1 of radii", "about 0.001", f"{radius_distance(bent_plane(z)):.4f}"),
        ("bent plane: W1 of angles, turns", "about 0.002", f"{angle_distance(bent_plane(z)):.4f}"),
        ("half of g's ring: W1 of radii", "about 0.001", f"{radius_distance(half):.4f}"),
        ("half of g's ring: W1 of angles, turns", "0.125", f"{angle_distance(half):.3f}"),
        ("learned: W1 of radii, worst of 3 seeds", "below 0.05" if quick else "below 0.02", worst(radius_distance)),
        ("learned: W1 of angles, turns, worst", "below 0.01", worst(angle_distance)),
        ("learned: sliced W1 to fresh data, worst", "below 0.03" if quick else "as g's, below", f"{max(sliced):.4f}"),
        ("g: sliced W1 to fresh data", "small", f"{data:.4f}"),
        ("learned: winding numbers", "-1, 0 or 1", " ".join(map(str, rounds))),
        ("learned: share of points in the hole, worst", "below 0.1" if quick else "below 0.03", f"{max(hole):.3f}"),
    ]
    print()
    for what, expected, got in [("what", "expected", "got"), *rows]:
        print(f"{what:<43} | {expected:<15} | {got}")

    figure = Figure(figsize=(14, 7.8), dpi=130, layout="constrained")
    above, below = figure.subfigures(2, 1)
    clouds, curves = above.subplots(1, 4), below.subplots(1, 3)
    shown, order = slice(2_000), np.argsort(np.abs(rounds), kind="stable")
    draw_points(clouds[0], z[shown], z[shown], "z from N(0, I)", 3.6)
    draw_points(clouds[1], x[shown], z[shown], "g(z) = z/10 + z/‖z‖")
    for panel, which in zip(clouds[2:], (order[-1], order[0]), strict=True):  # winds most, winds least
        seed = options.seed + which
        title = f"G(z), seed {seed}, winding number {rounds[which]}".replace("-", "−")
        draw_points(panel, samples[seed][shown], z[shown], title)
    draw_histograms(*curves[:2], samples)
    draw_training(curves[2], films)
    picture, animation = options.out / "ring.png", options.out / "ring.gif"
    figure.savefig(picture)
    save_film(animation, films[options.seed])
    print(picture)
    print(animation)


if __name__ == "__main__":
    main()
