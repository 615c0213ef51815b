"""The likelihood of Boltzmann machines on binarised MNIST (Salakhutdinov & Murray 2008; Salakhutdinov & Hinton 2009).

    python demos/papers/boltzmann.py rbm            forty minutes on a core
    python demos/papers/boltzmann.py dbn            an hour on a core
    python demos/papers/boltzmann.py dbm            two hours on a core, beside others
    python demos/papers/boltzmann.py ROW --quick    a minute: two or three epochs of small layers

The sizes are the papers': 500 hidden units; 500 and 2,000; 500 and 1,000. The figures are over all 10,000 test images,
which are binarised as those of the VAEs in the same table, once; training images are binarised anew for every batch. Of
the restricted machine it is -log p, of the others a bound of it, all with log Z by 100 annealed chains of 20,000 steps.
Such an estimate is rather too low than too high, and so is -log p with it; chains back from those of training give one
that is rather too high.

Unlike in the papers, the restricted machines are trained by chains that go on, not by CD-25, and the deep machine is
not pretrained: it begins with random weights and is trained by the centred energy (Montavon & Mueller 2012).
"""

from dataclasses import replace

from reproduce import Figure, command, options, record, trained

from scratchgen import runs
from scratchgen.models.dbm import DBMConfig
from scratchgen.models.dbn import DBNConfig
from scratchgen.models.rbm import RBMConfig
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.tasks.dbm import DBMTraining
from scratchgen.tasks.dbn import DBNTraining
from scratchgen.tasks.rbm import RBMTraining

MEASURE = "Negative log-likelihood of binarised MNIST, nats a test image: -L_5000, or by an estimate of log Z"
MURRAY, HINTON = "Salakhutdinov & Murray 2008", "Salakhutdinov & Hinton 2009"
STEPS = 20_000  # of the annealed chains, once a machine is trained
ROWS: dict[str, tuple[Figure, RunConfig]] = {
    "rbm": (
        Figure(MEASURE, "RBM, 500 hidden units", "86.34 (CD-25)", MURRAY),
        RunConfig("rbm", "paper", RBMConfig(hidden=500), RBMTraining(chains=100), 200, 100),
    ),
    "dbn": (
        Figure(MEASURE, "DBN, 500 and 2,000 hidden units, a bound", "85.97", MURRAY),
        RunConfig(
            "dbn",
            "paper",
            DBNConfig(hidden=(500, 2000)),
            DBNTraining(chains=100, layer_epochs=200),
            300,
            100,
        ),
    ),
    "dbm": (
        Figure(MEASURE, "DBM, 500 and 1,000 hidden units, a bound", "84.62", HINTON),
        RunConfig("dbm", "paper", DBMConfig(hidden=(500, 1000)), DBMTraining(chains=500), 120, 100),
    ),
}


def quick(config: RunConfig) -> RunConfig:
    """A run to try the script with."""
    hidden = 64 if config.model == "rbm" else (64, 32)
    early = {"layer_epochs": 1} if config.model == "dbn" else {}
    training = replace(config.training, annealing_steps=500, **early)
    return replace(config, epochs=3, network=replace(config.network, hidden=hidden), training=training)


def main() -> None:
    """Train, measure, record."""
    given = options("The likelihood of Boltzmann machines.", ROWS)
    figure, config = ROWS[given.row]
    config = replace(config, data="mnist", data_dir=str(given.data_dir) if given.data_dir else None)
    summary = trained(quick(config) if given.quick else config, given.out)
    config, model = runs.load_model(given.out)
    data, recipe = runs.load_data(config, given.out, given.data_dir), RECIPES[config.model]
    test = recipe.evaluate(config if given.quick else recipe.annealing(config, None, STEPS), model, data)
    name = "nll" if config.model == "rbm" else "neg_bound"
    ours = f"{test[name]:.2f} ± {test['log_z_error']:.2f}"
    if given.quick:
        print(f"test: {ours} nats, log Z by effectively {test['effective_sample_size']:.0f} chains")
        return
    more = f"; by importance weights {test['nll']:.2f}" if config.model == "dbn" else ""
    known = f"log Z by effectively {test['effective_sample_size']:.0f} of {test['annealed_chains']} chains"
    back = f"by chains back {test[name] + test['log_z_back'] - test['log_z']:.2f}"
    how = "by the centred energy, with chains that go on" if config.model == "dbm" else "by chains that go on"
    note = f"{summary['pixels']}; {how}; {config.epochs} epochs; {known}; {back}"
    record(given.row, figure, ours, test, summary["seconds"], config.seed, note + more)


if __name__ == "__main__":
    command(main)
