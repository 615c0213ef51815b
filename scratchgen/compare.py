"""Runs side by side: what differs in their configurations, what they have reached, and which metrics they share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scratchgen.data import SOURCES
from scratchgen.errors import UserError
from scratchgen.recipes import RECIPES, RunConfig
from scratchgen.runs import load_config

# Differences that say nothing of a run, or that a row of their own shows.
LEFT_OUT = ("model", "name", "epochs", "data_dir", "log", "classes", "data_digest")


@dataclass(frozen=True)
class Run:
    """A run as its folder shows it: ``history`` has an entry an epoch, ``summary`` is None until it has ended."""

    name: str
    config: RunConfig
    history: list[dict[str, Any]]
    summary: dict[str, Any] | None

    @property
    def test(self) -> dict[str, Any]:
        """The test metrics: those of the summary, or of the last epoch, or none."""
        if self.summary:
            return self.summary["test"]
        return self.history[-1]["test"] if self.history else {}

    @property
    def pixels(self) -> str:
        """The data and the pixels of its losses, in words."""
        data = self.config.data
        if data not in SOURCES:  # a path: other data may have been there, or the same data elsewhere
            data = f"{Path(data).name} (digest {self.config.data_digest[:8]})"
        return f"{data}, {RECIPES[self.config.model].pixels(self.config)}"


def read_run(folder: Path) -> Run:
    """The run in ``folder``. UserError if there is none, or if it is damaged."""
    config, metrics, result = load_config(folder), folder / "metrics.jsonl", folder / "summary.json"
    try:
        history = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        summary = json.loads(result.read_text()) if result.exists() else None
        for entry in [*history, *([summary] if summary else [])]:
            if not isinstance(entry["test"], dict) or not _is_number(entry["seconds"]):
                raise TypeError("test is no object, or seconds is no number")
        if summary and summary["epochs"] != len(history):
            summary = None  # of before it was resumed with more epochs
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder}: its metrics.jsonl or summary.json cannot be read ({error})") from None
    return Run(str(folder), config, history, summary)


def table(found: Sequence[Run]) -> str:
    """A column a run: model and configuration, the settings in which they differ, epochs, seconds, test metrics.

    Runs of different models have different settings; those that all have are compared.
    """
    rows = [
        ("", [run.name for run in found]),
        ("model", [run.config.model for run in found]),
        ("config", [run.config.name for run in found]),
    ]
    settings = [_flat(asdict(run.config)) for run in found]
    for name in settings[0]:
        values = [each[name] for each in settings if name in each]
        if len(values) == len(found) and any(value != values[0] for value in values) and name not in LEFT_OUT:
            rows.append((name, [_readable(value) for value in values]))
    rows.append(("epochs", [_epochs(run) for run in found]))
    rows.append(("seconds", [f"{run.history[-1]['seconds']:.1f}" if run.history else "-" for run in found]))
    for name in dict.fromkeys(name for run in found for name, value in run.test.items() if _is_number(value)):
        rows.append((f"test {name}", [_readable(run.test[name]) if name in run.test else "-" for run in found]))
    columns = [[label for label, _ in rows], *zip(*(cells for _, cells in rows), strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(
        *([cell.ljust(width) for cell in column] for column, width in zip(columns, widths, strict=True)), strict=True
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def shared_metrics(found: Sequence[Run]) -> list[str]:
    """The test metrics that all runs with a finished epoch have measured after it, in the order of the first run."""
    measured = [[name for entry in run.history for name in entry["test"]] for run in found if run.history]
    return [name for name in dict.fromkeys(measured[0]) if all(name in each for each in measured)] if measured else []


def _epochs(run: Run) -> str:
    done = len(run.history)
    if run.summary is None:
        return f"{done} of {run.config.epochs}, unfinished"
    return f"{done}, best {run.summary['best_epoch']}" if "best_epoch" in run.summary else str(done)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A dict of dicts as one dict, with names such as ``network.latent_dim``."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
