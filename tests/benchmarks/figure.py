"""The figure of the steps: a panel a workload, a bar a contestant, the floor as a dashed line."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.workloads import WORKLOADS

FLOOR, OURS = "products alone", "scratchgen"
BLUE, GREY, DARK = "#3f90da", "#b9bcc0", "#555555"  # apart in lightness too, for whoever sees no hue
COLUMNS = 2


def save_figure(path: Path, entries: list[dict[str, Any]]) -> Path:
    """Draw the medians, and quartiles as whiskers; returns the path."""
    workloads = list(dict.fromkeys(e["workload"] for e in entries))
    threads = list(dict.fromkeys(e["threads"] for e in entries))
    names = list(dict.fromkeys(e["contestant"] for e in entries if e["contestant"] != FLOOR))
    found = {(e["workload"], e["threads"], e["contestant"]): e for e in entries}
    rows = -(-len(workloads) // COLUMNS)
    height = 0.7 + len(threads) * (0.5 + 0.22 * len(names))
    figure = Figure((11, rows * height + 0.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, workload in zip(axes, workloads, strict=False):
        top, ticks, labels = 0.0, [], []
        widest = max(e["high"] for e in entries if e["workload"] == workload)
        for count in threads:
            floor = found[workload, count, FLOOR]["median"]
            axis.text(0, top - 0.8, f"{count} thread{'s' * (count > 1)}", fontsize=8, color=DARK, va="center")
            for place, name in enumerate(names):
                e, y = found[workload, count, name], top + place
                whiskers = [[e["median"] - e["low"]], [e["high"] - e["median"]]]
                colour = BLUE if name == OURS else GREY
                axis.barh(y, e["median"], 0.8, color=colour, xerr=whiskers, error_kw={"ecolor": DARK, "lw": 0.8})
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the dashed line
                axis.text(e["high"] + 0.015 * widest, y, f"{e['median']:.2f}", fontsize=8, va="center", bbox=paper)
                ticks.append(y)
                labels.append(name)
            axis.plot([floor] * 2, [top - 0.5, top + len(names) - 0.5], "--", color="black", lw=1.2)
            top += len(names) + 1
        axis.set_yticks(ticks, labels, fontsize=8)
        for label in axis.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() == OURS else "normal")
        axis.set_ylim(top - 1.3, -1.4)
        axis.set_xlim(0, 1.13 * widest)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(WORKLOADS[workload].title, loc="left", fontsize=10)
    for axis in axes[len(workloads) :]:
        axis.axis("off")
    figure.supxlabel("milliseconds a training step; whiskers: quartiles; dashed: its matrix products alone", fontsize=9)
    figure.savefig(path)
    return path
