"""The engine below the models: where its time goes, and whether its gradients are right."""

import argparse
from dataclasses import replace

import kernels
from scratchgen import runs
from scratchgen.checkpoint import write_json
from scratchgen.commands.output import require_suffix, write
from scratchgen.data import load_dataset
from scratchgen.errors import UserError
from scratchgen.gradcheck import check_registry, format_table
from scratchgen.options import configure
from scratchgen.profile import measure, table
from scratchgen.recipes import RECIPES


def profile(options: argparse.Namespace) -> int:
    """Show where the time of a training step goes, kernel by kernel."""
    if options.json:
        require_suffix(options.json, ".json")  # before the measurement
    config = configure(options, RECIPES[options.model])
    if config.kernels == "cuda":
        kernels.find("cuda")  # or say what is missing
        raise UserError("profile cannot time CUDA kernels, which run asynchronously; use make bench-gpu")
    data = load_dataset(config.data, options.data_dir)
    config = runs.fitted(config, data)
    task, data = runs.prepare(config, data)
    report = measure(replace(config, data=data.name), task, data, options.steps)
    print(table(report))
    if options.json:
        write(options.json, lambda: write_json(options.json, report), (".json",))
    return 0


def gradcheck(options: argparse.Namespace) -> int:
    """Check the gradients of operations; exit status 1 if one is wrong."""
    rows = check_registry(options.names or None, [options.kernels] if options.kernels else list(kernels.SETS))
    print(format_table(rows))
    return 0 if all(row.passed for row in rows) else 1
