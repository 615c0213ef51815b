"""Write README.md, the table of reproduced figures, from the JSON files in ``results``.

python demos/papers/table.py
"""

import json
import math
from pathlib import Path

from reproduce import RESULTS

PAGE = Path(__file__).parent / "README.md"
BEGINNING = """\
# The papers' figures, reproduced

Published figures on MNIST beside those of this project, each with the command that gives it, its time and its seed; of
strokes, digits drawn by a program, nothing is published, and the rows compare with each other. A command that is
interrupted goes on where it was when it is given again; with `--quick` it takes a minute, to see it work, and records
nothing.

Each table has its own scale, and figures of different tables never compare. After ± stands a standard error: over test
images (Parzen windows, annealed importance sampling), over seeds (errors of classification), or of log Z (Boltzmann
machines); for disentanglement it is the standard deviation over seeds. Times are of training; where nothing is trained,
and for annealed importance sampling, they include the measurement.

*Generated from `results/` by `python demos/papers/table.py`.*
"""


def page() -> str:
    """The page: a table for each measure."""
    rows = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    parts = [BEGINNING]
    for measure in dict.fromkeys(row["measure"] for row in rows.values()):
        parts.append(
            f"\n## {measure}\n\n| | the paper | ours | command | time | seed, date |\n|---|---|---|---|---|---|"
        )
        for row in rows.values():
            if row["measure"] == measure:
                parts.append(line(row))
    return "\n".join(parts) + "\n"


def line(row: dict) -> str:
    """A row of the table."""
    hours = row["seconds"] / 3600
    time = f"{hours:.1f} h" if hours >= 1 else f"{math.ceil(60 * hours)} min"
    return (
        f"| {row['what']}: {row['note']} | {row['paper']} ({row['source']}) | {row['ours']} | `{row['command']}` | "
        f"{time}, {row['machine']} | {row['seed']}, {row['date']} |"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
