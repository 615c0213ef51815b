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


def test_readme_example_runs_and_trains(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    check, loss = run.stdout.splitlines()
    assert check.startswith("Check(error=")
    assert 50 < float(loss) < 200  # nats; it begins at 784 ln 2 = 543


def test_readme_links_lead_to_files() -> None:
    for text in (README, LEDGER):
        base = ROOT if text is README else ROOT / "demos"
        links = re.findall(r"\]\(([^)#]+)\)", text)
        assert links
        assert [link for link in links if not link.startswith("http") and not (base / link).exists()] == []


def test_readme_line_counts_are_true() -> None:
    rows = re.findall(r"^\| \d+ \| (.*?) \| ([\d +]+) \|", README, re.MULTILINE)
    assert len(rows) > 10
    for links, counts in rows:
        files = re.findall(r"\((.*?)\)", links)
        for file, count in zip(files, map(int, counts.split("+")), strict=True):
            lines = len((ROOT / file).read_text().splitlines())
            assert abs(lines - count) <= 0.05 * lines, f"README says {count} lines for {file}, it has {lines}"


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


def test_every_cited_item_of_the_lecture_has_a_row() -> None:
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
