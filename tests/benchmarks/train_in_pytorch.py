"""Train the VAE of ``scratchgen train vae`` in PyTorch, and print a line an epoch, with the loss on the test images.

``python -m tests.benchmarks.train_in_pytorch FOLDER [compiled]`` finds the images in ``train.npy`` and ``test.npy``
there, and keeps them in memory. Network, initialisation, optimizer and batches are the named configuration's; the
optimizer is fused, and ``compiled`` compiles the loss. It writes no checkpoints.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from scratchgen.recipes import RECIPES

CONFIG = RECIPES["vae"].configs["pytorch-example"]  # PyTorch's own initialisation is its "fan_in_uniform"


class VAE(nn.Module):
    """The networks of ``CONFIG``."""

    def __init__(self) -> None:
        super().__init__()
        network = CONFIG.network
        (encoder,), (decoder,) = network.encoder_hidden, network.decoder_hidden
        self.encoder = nn.Sequential(nn.Linear(network.input_dim, encoder), nn.ReLU())
        self.mu, self.logvar = (nn.Linear(encoder, network.latent_dim) for _ in range(2))
        self.decoder = nn.Sequential(
            nn.Linear(network.latent_dim, decoder), nn.ReLU(), nn.Linear(decoder, network.input_dim)
        )

    def neg_elbo(self, x: Tensor) -> Tensor:
        """Summed over images x (b, D), in nats, with one draw of z each."""
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        kl = -0.5 * torch.sum(1 + logvar - mu.square() - logvar.exp())
        return bce(self.decoder(z), x, reduction="sum") + kl


def main() -> None:
    folder, *how = sys.argv[1:]
    torch.manual_seed(0)
    train, test = (torch.from_numpy(np.load(Path(folder) / f"{part}.npy")) for part in ("train", "test"))
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), CONFIG.training.lr, fused=True)
    loss_of = torch.compile(model.neg_elbo) if how == ["compiled"] else model.neg_elbo
    whole = len(train) - len(train) % CONFIG.batch_size
    for epoch in range(1, CONFIG.epochs + 1):
        order = torch.randperm(len(train))
        for chosen in order[:whole].split(CONFIG.batch_size):  # a short batch would be compiled again
            x = train[chosen]
            optimizer.zero_grad()
            (loss_of(x) / len(x)).backward()
            optimizer.step()
        with torch.no_grad():
            total = math.fsum(model.neg_elbo(x).item() for x in test.split(500))
        print(f"epoch {epoch}/{CONFIG.epochs}   test neg_elbo {total / len(test):.2f}", flush=True)


if __name__ == "__main__":
    main()
