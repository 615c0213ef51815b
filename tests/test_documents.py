"""What the documents say is so: the README's example runs, its paths and line counts are true, the ledger resolves."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEDGER = (ROOT / "demos" / "README.md").read_text()


NAMES = [
    "README.md",
    "CONTRIBUTING.md",
    "demos/README.md",
    "demos/papers/README.md",
    "demos/lecture/RESULTS.md",
    "kernels/cuda/README.md",
]
PAGES = [ROOT / name for name in (*NAMES, "tests/benchmarks/README.md")]
LINES_A_MINUTE = 30


def test_readme_example_runs_and_trains_in_ten_lines(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    program = example + "print((reconstruction + kl).mean().item())"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert 50 < float(run.stdout) < 150  # nats; it begins at 784 ln 2 = 543


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_link_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text())
    targets = [link or source for link, source in links]
    assert [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()] == []


def test_contributing_names_files_that_exist() -> None:
    names = re.findall(r"`((?:kernels|scratchgen|tests|demos)/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(names) > 10
    assert [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []


def test_readme_minutes_follow_from_line_counts() -> None:
    """Each row's minutes are its files' lines at a stated pace, and each path takes no longer than it says."""
    paths = re.findall(r"\*\*The \w+, in ([\w ]+?) hours?\*\*\n\n(.*?)\n\n", README, re.DOTALL)
    assert [hours for hours, _ in paths] == ["an", "three and a half", "three"]
    for hours, table in paths:
        rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, re.MULTILINE)
        for minutes, files in rows:
            linked = [ROOT / file for file in re.findall(r"\((.*?)\)", files)]
            found = [list(path.parent.glob("*.py")) if path.name == "README.md" else [path] for path in linked]
            lines = sum(len(path.read_text().splitlines()) for paths in found for path in paths)
            assert abs(int(minutes) - lines / LINES_A_MINUTE) <= 1 + 0.05 * int(minutes), f"{files}: {lines} lines"
        assert (
            sum(int(minutes) for minutes, _ in rows) <= 60 * {"an": 1, "three": 3, "three and a half": 3.5}[hours] + 3
        )


def ledger_rows() -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in LEDGER.splitlines()
        if re.match(r"\| L\d", line)
    ]


@pytest.mark.parametrize("row", ledger_rows(), ids=lambda row: row[0].strip("| "))
def test_ledger_entry_resolves(row: list[str]) -> None:
    _, formula, code, test, demo = row
    assert formula
    for name in re.findall(r"`([^`]+)`", code):
        module, _, attribute = name.partition(":")
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        assert found.__doc__, f"{name} has no docstring"
    tests = re.findall(r"`([^`]+)`", test)
    assert tests, "an entry without a test"
    for name in tests:
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"no test {name}"
    for link in re.findall(r"\]\(([^)]+)\)", demo):
        assert (ROOT / "demos" / link).exists()


def test_ledger_has_a_row_for_every_cited_item() -> None:
    folders = [ROOT / name for name in ("scratchgen", "kernels", "demos", "tests")]
    texts = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md")]
    cited = {
        (item, str(path.relative_to(ROOT)))
        for path in [ROOT / "README.md", *texts]
        for item in re.findall(r"\bL\d\d\b", path.read_text())
    }
    rows = [row[0].strip("| ") for row in ledger_rows()]
    assert len(rows) == len(set(rows))
    assert {item for item, _ in cited} >= set(rows)  # so the pattern finds them
    assert sorted((item, path) for item, path in cited if item not in rows) == []
