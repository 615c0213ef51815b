"""The lesson on replay: the price of an operation, what a bare list of kernel calls gets wrong, and the states."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LESSON = Path(__file__).parents[2] / "demos" / "engine" / "5_replay.py"
FAILURES = {  # careless and remedy: whether the list of kernel calls gets the remedy right, and what Capture says
    "rate_in_python (careless) and rate_from_host (remedy)": (False, "something else changes from call to call"),
    "noise_from_numpy (careless) and noise_from_stream (remedy)": (False, "something else changes from call to call"),
    "mean_by_numpy (careless) and mean_by_operation (remedy)": (True, "it reads a number back"),
    "decided_by_python (careless) and decided_by_arithmetic (remedy)": (True, "it reads a number back"),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """What the lesson prints in a folder of its own. The time limit is for kernels that have to be compiled first."""
    folder = tmp_path_factory.mktemp("replay")
    command = [sys.executable, str(LESSON), "--out", "figures"]
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the warnings of Capture are caught, and printed
    for name in ("timeline.png", "step_time.png"):
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}" in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def table(text):
    """The cells below a line that begins so, up to an empty line."""

    def find(beginning):
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(beginning))
        return [[cell.strip() for cell in line.split(" | ")] for line in lines[start + 1 : lines.index("", start)]]

    return find


def test_replay_lesson_shows_small_operations_are_mostly_overhead(table):
    sizes, totals, inside, beside, _ = zip(*table("numbers in the array"), strict=True)
    assert sizes[0] == "1"
    assert float(inside[0]) < float(beside[0]) < float(totals[0])
    assert float(inside[-1]) > 5 * float(inside[0])


def test_replay_lesson_calls_as_many_kernels_at_any_width(table):
    rows = table("width | kernel calls")
    assert [width for width, *_ in rows] == ["4", "16", "64", "256"]
    assert len({calls for _, calls, *_ in rows}) == 1
    assert float(rows[-1][3]) > float(rows[0][3])  # in kernels: more work


def test_replay_lesson_prints_the_kernel_calls_of_a_step(text):
    start = text.index("dense.dense_forward(")
    calls = [line.partition("(")[0] for line in text[start : text.index("\n\n", start)].splitlines()]
    assert calls[:3] == ["dense.dense_forward", "dense.dense_forward", "losses.squared_error"]
    assert calls[-1] == "optimizers.sgd_step"
    assert len(calls) > 10


def test_replay_lesson_replays_the_small_step_to_the_bit(text, table):
    losses = [(eager, replayed) for _, eager, replayed in table("step | loss, eager")]
    assert all(eager == replayed for eager, replayed in losses)
    assert float(losses[-1][0]) < 0.1 * float(losses[0][0])
    assert "after 200 steps, all losses and weights the same bits: True" in text


@pytest.mark.parametrize("title", FAILURES)
def test_replay_lesson_shows_a_list_fail_where_capture_does_not(text, table, title):
    remedy_in_list, warning = FAILURES[title]
    _, *rows, last = table(title)
    careless, listed, captured, remedy, remedy_listed, remedy_captured = zip(*(row[1:] for row in rows), strict=True)
    assert listed[0] == careless[0]
    assert sum(a != b for a, b in zip(listed, careless, strict=True)) >= 2
    assert captured == careless
    assert remedy_captured == remedy
    assert (remedy_listed == remedy) == remedy_in_list
    assert (last[3], last[6]) == ("refused", "verified")
    name = title.partition(" ")[0]
    (said,) = (line for line in text.splitlines() if line.startswith(f"RuntimeWarning: {name}."))
    assert "is not captured but run each time" in said
    assert warning in said


def test_replay_lesson_prints_the_numbers_of_the_four_failures(table):
    """The numbers themselves, by their formulas."""
    rate, noise, mean, branch = (table(title)[1:-1] for title in FAILURES)
    assert [float(row[1]) for row in rate] == pytest.approx([-2 + 2 * 0.5**i for i in range(8)], abs=1e-5)
    assert [float(row[2]) for row in rate] == [-i for i in range(8)]  # the rate stays 1
    assert len({row[1] for row in noise}) == len({row[4] for row in noise}) == len(noise)
    assert len({row[2] for row in noise}) == len({row[5] for row in noise}) == 1
    assert [float(row[1]) for row in mean] == [1] * 6
    assert [float(row[2]) for row in mean] == [1 + i**2 for i in range(6)]  # around the first batch's mean
    assert [float(row[1]) for row in branch] == [2, 4, 3, 8, 5, 12]
    assert [float(row[2]) for row in branch] == [2, 4, -6, 8, -10, 12]


def test_replay_lesson_shows_copies_missing_from_a_list(table):
    for _, expected, listed, captured in table("call | expected"):
        assert listed == "1.0"
        assert captured == expected


def test_replay_lesson_captures_each_kind_of_step(text, table):
    rows = table("batch | training | factor")
    assert {tuple(row[:4]) for row in rows} == {
        ("20", "True", "1.0", "verified"),
        ("7", "True", "1.0", "verified"),
        ("20", "False", "1.0", "verified"),
        ("20", "True", "3.0", "verified"),
    }
    for _, training, _, _, _, from_host in rows:
        assert from_host == ("1" if training == "True" else "0")
    assert "20 of 20 results equal to the eager ones" in text


def test_replay_lesson_shows_a_late_change_go_unnoticed(table):
    rows = table("call | factor")
    wrong = [number for number, _, expected, careless, _ in rows if careless != expected]
    assert wrong == ["7", "8", "9", "10"]
    assert all(remedy == expected for _, _, expected, _, remedy in rows)


def test_replay_lesson_captures_once_for_numbers_from_the_host(table):
    keyword, from_host = table("a number that is new each time")
    assert keyword[1] == from_host[1] == "1 2 3 4 5 6 7 8 9 10"
    assert keyword[2] == "10 of 10 times"
    assert from_host[2] == "3 of 10 times"


def test_replay_lesson_replays_the_vae_to_the_bit(text, table):
    rows = table("calls    | batch")
    by_kind = {}
    for _, batch, gradients, before, after, *_ in rows:
        path = by_kind.setdefault((batch, gradients), [before])
        assert path[-1] == before
        path.append(after)
    assert by_kind["10", "none yet"] == ["new", "warm"]
    assert by_kind["10", "there"][:5] == ["new", "warm", "captured", "verified", "verified"]
    assert by_kind["4", "there"] == ["new", "warm", "captured", "verified"]
    equal = [tuple(map(int, cells[-1].split(" of "))) for cells in rows]
    assert sum(right for right, _ in equal) == sum(of for _, of in equal) == 30
    assert "arrays with the same bits: 13 of 13" in text
    assert "versions of the parameters: captured {30}, eager {30}" in text
    assert "has been written to since the forward" in text


def test_replay_lesson_shows_replay_no_slower_for_narrow_layers(table):
    rows = {int(width): list(map(float, cells)) for width, *cells in table("width | eager, ms")}
    assert sorted(rows) == [4, 8, 16, 32, 64, 128, 256]
    for width, (eager, replayed, inside, *_) in rows.items():
        assert inside > 0
        if width <= 64:
            assert replayed < 1.1 * eager
