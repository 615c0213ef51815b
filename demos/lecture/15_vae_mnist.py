# %% [markdown]
# # A variational autoencoder on MNIST
#
# A VAE is two networks and one bound. The encoder turns a picture x into a normal distribution q(z|x) over codes z,
# the decoder turns a code into a distribution p(x|z) over pictures, and both learn by raising a lower bound of
# log p(x) (L12, L15 of the ledger):
#
#     log p(x)  >=  E_q[log p(x|z)]  -  KL(q(z|x) || p(z))
#                   - reconstruction      - kl
#
# `reconstruction` is what it costs, in nats, to name the pixels once the code is known; `kl` is what it costs to name
# the code. Their sum is `neg_elbo`, the loss. (Many slides write the encoder q(x|z). It is q(z|x): it draws codes.)
#
# This script trains the 784-400-20 network that everyone has met, then the same with a code of two dimensions, which
# can be looked at whole. Run it as it is, or `--quick` for a minute's worth.

# %%
import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from scratchgen import Tensor, runs
from scratchgen.by_hand.tasks import ByHandVAETask, format_curves, learning_curves
from scratchgen.models.vae import VAE
from scratchgen.optim import Adam
from scratchgen.options import add_data_options, load_data, make_folder
from scratchgen.random import RandomStream, stream
from scratchgen.recipes import RECIPES
from scratchgen.tasks.vae import VAETask

parser = argparse.ArgumentParser(description="A variational autoencoder on MNIST.")
add_data_options(parser)
parser.add_argument("--out", type=Path, default=Path("runs/demo-15"), help="folder for pictures and runs")
parser.add_argument("--quick", action="store_true", help="one epoch of each network")
parser.add_argument("--by-hand", action="store_true", help="only compare 40 steps by hand with the engine's")
options = parser.parse_args()
make_folder(parser, options.out)

# %% [markdown]
# ## One training step
#
# A batch x, noise, the two terms, backward, a step of Adam. The noise comes in from outside: z = mu + sigma noise is
# then a function of the weights like any other and has a gradient (L18). Note sigma = e^(logvar / 2), the standard
# deviation; with the variance in its place everything still trains, only wrongly.

# %%
data = load_data(parser, options)
config = replace(RECIPES["vae"].configs["pytorch-example"], data=data.name, data_dir=options.data_dir)
model = VAE(config.network, stream(0, "parameters"))
optimizer, random = Adam(model, lr=config.training.lr), RandomStream(0)
x = Tensor(data.train.images[:128])

noise = random.normal((1, 128, config.network.latent_dim))
reconstruction, kl = (term.mean() for term in model.negative_elbo(x, noise))
optimizer.zero_grad()
(reconstruction + kl).backward()
optimizer.step()
print(f"before training, nats an image: reconstruction {reconstruction.item():.0f}, kl {kl.item():.0f}")
print(f"(a coin toss for every pixel would cost 784 ln 2 = {784 * np.log(2):.0f})")

# %% [markdown]
# `VAETask.train_step` is these lines, and the trainer repeats it. Beside them it has what a configuration may ask for:
# a learning rate that falls, a weight beta of the KL term, pixels that are binarised. From the same parameters and the
# same random numbers it ends with the same bits.

# %%
task = VAETask(VAE(config.network, stream(0, "parameters")), config.training, RandomStream(0), 469, epochs=1)
metrics = task.train_step(x)
mine, its_own = model.state_dict(), task.model.state_dict()
same = sum(np.array_equal(mine[name], its_own[name]) for name in mine)
print(f"parameters with the same bits after task.train_step: {same} of {len(mine)}")
assert same == len(mine)
assert (metrics["reconstruction"].item(), metrics["kl"].item()) == (reconstruction.item(), kl.item())

# %% [markdown]
# ## By hand
#
# `scratchgen/by_hand/vae.py` derives the whole backward pass on paper and writes it out in NumPy (L19). From the same
# parameters, noise and batches it follows the engine's curve, here in float64, where rounding has no time to grow.

# %%
if options.by_hand:
    pair = [
        kind(VAE(config.network, stream(0, "parameters"), np.float64), config.training, RandomStream(0), 469, 1)
        for kind in (VAETask, ByHandVAETask)
    ]
    images = data.train.images[:5000].astype(np.float64)
    print(format_curves(learning_curves(*pair, images, data.train.labels[:5000], 40, config.batch_size, seed=0)))
    raise SystemExit

# %% [markdown]
# ## Why reparametrise?
#
# There is another unbiased gradient of E_q[log p(x|z)], which needs no derivative of the decoder: log p(x|z) times the
# gradient of log q(z|x), the score function (REINFORCE). Both estimate the same vector. Look at their spread.

# %%
bias = model.encoder_mu.bias
one = Tensor(data.train.images[:1])
draws: dict[str, list[np.ndarray]] = {"reparametrised": [], "score function": []}
for _ in range(300):
    noise = random.normal((1, 1, config.network.latent_dim))
    estimators = {
        "reparametrised": lambda noise=noise: model.negative_elbo(one, noise)[0],
        "score function": lambda noise=noise: model.score_function_loss(one, noise),
    }
    for name, estimator in estimators.items():
        optimizer.zero_grad()
        estimator().mean().backward()
        draws[name].append(bias.grad.copy())
for name, gradients in draws.items():
    print(
        f"{name:<16} variance of the gradient of one bias, mean over the code: {np.var(gradients, axis=0).mean():.3g}"
    )

# %% [markdown]
# ## Training
#
# `runs.start` loads the data, trains, measures and draws; `scratchgen train vae` calls the same function. The run's
# folder keeps everything: configuration, metrics, checkpoint, pictures, summary.

# %%
epochs = 1 if options.quick else config.epochs
folder = Path(tempfile.mkdtemp(prefix="vae-20-", dir=options.out))
summary = runs.start(replace(config, epochs=epochs), folder)
print(json.dumps(summary, indent=2))

# %% [markdown]
# ## Expected beside got
#
# On MNIST, ten epochs of this network end near 106 nats a test image. `nll` is an importance-weighted estimate of
# -log p(x), which is smaller than `neg_elbo`: the bound is not tight. All of this is on grey levels, used as soft
# targets; figures for binarised MNIST are on another scale and must not be compared with these.

# %%
test = summary["test"]
print(f"{'what':<34}{'expected':<22}got")
if data.name == "mnist" and not options.quick:
    print(f"{'neg_elbo after 10 epochs':<34}{'105 to 106.5':<22}{test['neg_elbo']:.2f}")
print(f"{'reconstruction + kl - neg_elbo':<34}{'0':<22}{test['reconstruction'] + test['kl'] - test['neg_elbo']:.1e}")
print(f"{'nll below neg_elbo':<34}{'by a few nats':<22}{test['neg_elbo'] - test['nll']:.2f}")

# %% [markdown]
# ## A code of two dimensions
#
# With J = 2 the code can be drawn. Each test image is a point at mu(x), coloured by its class, which the network was
# never told; and a grid over the quantiles of the prior N(0, I), decoded, shows every digit that the model can draw
# and what lies between them (L21). Two numbers are too few for handwriting: expect blur, and a higher loss.

# %%
plane = RECIPES["vae"].configs["metzen"]
plane = replace(
    plane, data=data.name, data_dir=options.data_dir, network=replace(plane.network, latent_dim=2), epochs=epochs
)
plane_folder = Path(tempfile.mkdtemp(prefix="vae-2-", dir=options.out))
plane_summary = runs.start(plane, plane_folder)
print(f"neg_elbo with two latent dimensions: {plane_summary['test']['neg_elbo']:.2f}")

# %% [markdown]
# The pictures: samples from the prior, reconstructions, loss curves, the scatter and the manifold.

# %%
for path in sorted([*folder.glob("*.png"), *plane_folder.glob("*.png")]):
    print(path)
