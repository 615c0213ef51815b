"""The command ``scratchgen``, stopped after its first training step.

``python -m tests.benchmarks.first_step train vae --out FOLDER`` ends with a line of JSON, two times of the system's
clock in seconds: when all was ``imported`` and when the step was ``done``. Nothing is imported here that the command
does without.
"""

import json
import sys
import time
from typing import Any


class FirstStepDone(BaseException):
    """Like Ctrl-C: nothing on the way out takes it for an error."""


def main() -> None:
    from scratchgen import cli
    from scratchgen.tasks.vae import VAETask

    times, train_step = {"imported": time.time()}, VAETask.train_step

    def first_step(*arguments: Any) -> None:
        for metric in train_step(*arguments).values():
            metric.item()  # read, so that it is done
        times["done"] = time.time()
        raise FirstStepDone

    VAETask.train_step = first_step  # type: ignore[assignment,method-assign]
    try:
        sys.exit(cli.main(sys.argv[1:]))
    except FirstStepDone:
        print(json.dumps(times))


if __name__ == "__main__":
    main()
