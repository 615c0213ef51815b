"""The likelihood of VAEs with one stochastic layer on binarised MNIST (Burda et al. 2015, table 1).

    python demos/papers/vae_likelihood.py vae            about two hours on a core
    python demos/papers/vae_likelihood.py iwae-5         about two hours on a core
    python demos/papers/vae_likelihood.py vae-fixed      two to three hours on a core, a third of the paper's epochs
    python demos/papers/vae_likelihood.py vae --quick    a minute: an epoch, and a bound by ten draws

The network is 784-200-200-50 and back, tanh, with Glorot's initialisation and the pixels' means as the output's bias.
In the paper it is trained with batches of 20 for 3^i epochs at a learning rate of 1e-3 10^(-i/7), i = 0 to 7: 3,280
epochs. The figure is -L_5000 over all 10,000 test images, in nats. Pixels are drawn anew with their grey level as
probability for each batch, and once for the test images; in the row vae-fixed also the training images are drawn once.
That draw is this project's: the published one (Larochelle & Murray 2011) is another file, and its figures differ by
some tenths.

Other than in the paper: Adam's epsilon is 1e-8, not 1e-4, which may be why the VAE's figures are lower here; the row
vae-fixed has a third of the epochs. The paper's training of the importance-weighted bound would take seven to twelve
hours, by the machine; its row has 600 epochs by the doubly reparametrised gradient (Tucker et al. 2018), with batches
of 100 and a cosine schedule from 3e-3. Chosen by -L_500 of 1,000 validation images after 30 epochs on 50,000 others:
batches of 20 from 1e-3 had 92.13 nats, from 2e-3 92.86, and batches of 100 from 3e-3 92.03, all with that schedule and
the paper's gradient; batches of 100 from 3e-3 with the other gradient, whose epoch takes 1.3 times as long, had 91.43.
With the paper's training and a fifth of its epochs, 656, the row had 86.67 nats.
"""

from dataclasses import replace

from reproduce import Figure, command, options, record, trained

from scratchgen import runs
from scratchgen.data.pixels import describe
from scratchgen.recipes import RECIPES, RunConfig

RECIPE = RECIPES["vae"]
MEASURE = "Negative log-likelihood of binarised MNIST, nats a test image: -L_5000, or by an estimate of log Z"
SHORT = replace(RECIPE.configs["iwae"], data="mnist")  # a cosine schedule and batches of 100
PAPER = replace(SHORT, training=replace(SHORT.training, lr=1e-3, schedule="tripling"), epochs=3_280, batch_size=20)
ROWS: dict[str, tuple[Figure, RunConfig]] = {
    "vae": (
        Figure(MEASURE, "VAE, 1 stochastic layer", "86.76 (19 active units)", "Burda et al. 2015, table 1"),
        PAPER,
    ),
    "iwae-5": (
        Figure(MEASURE, "IWAE, 5 draws, 1 stochastic layer", "85.54 (22 active units)", "Burda et al. 2015, table 1"),
        replace(SHORT, training=replace(SHORT.training, objective="dreg", samples=5), epochs=600),
    ),
    "vae-fixed": (
        Figure(MEASURE, "VAE, 1 stochastic layer, fixed binarisation", "88.71", "Burda et al. 2015, table 2"),
        replace(PAPER, training=replace(PAPER.training, binarize="static"), epochs=1_093),
    ),
}
SAMPLES = 5_000


def main() -> None:
    """Train, measure, record."""
    given = options("The likelihood of VAEs, as in Burda et al. 2015.", ROWS)
    figure, config = ROWS[given.row]
    config = replace(config, data_dir=str(given.data_dir) if given.data_dir else None)
    if given.quick:
        config = replace(config, epochs=1)
    summary = trained(config, given.out)
    config, model = runs.load_model(given.out)
    data = runs.load_data(config, given.out, given.data_dir)
    if given.quick:
        print(RECIPE.report(config, RECIPE.evaluate(config, model, data, limit=1_000, iw_samples=10)))
        return
    test = RECIPE.evaluate(config, model, data, limit=len(data.test), iw_samples=SAMPLES)
    ours = f"{test['nll']:.2f} ({test['active_units']} active units)"
    gradient = "; by its doubly reparametrised gradient" if config.training.objective == "dreg" else ""
    note = f"{describe(config.training.binarize, 'bernoulli')}{gradient}; {config.epochs:,} epochs"
    record(given.row, figure, ours, test, summary["seconds"], config.seed, note)


if __name__ == "__main__":
    command(main)
