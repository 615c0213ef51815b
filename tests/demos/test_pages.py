"""Lessons as pages: how a script becomes one, and that the pages in the repository are those of their scripts."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DEMOS = Path(__file__).parents[2] / "demos"
SHELVES = ("engine", "lecture")  # papers has no lessons
LESSONS = sorted(path for shelf in SHELVES for path in (DEMOS / shelf).glob("*.py"))
PAGES = sorted(path for shelf in SHELVES for path in (DEMOS / shelf).glob("*.md") if path.name != "RESULTS.md")

LESSON = """\
# %% [markdown]
# # A title
#
#     an indented formula

# %%
import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path)
parser.add_argument("--quick", action="store_true")
options = parser.parse_args()
options.out.mkdir()

# %% [markdown]
# Text.


# %%
def write(name, data):
    path = options.out / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    print(path)


write("b.png", b"1")
write("a.gif", b"2")

# %%
write("sub/b.png", b"3")

# %%
import sys
from dataclasses import dataclass


@dataclass
class Point:
    x: "int"


print("before")
print("```mermaid\\nflowchart TD\\n```")
print("progress", file=sys.stderr)
print(options.quick, Point(3), Point.__module__, write.__code__.co_firstlineno)
"""

PAGE = """\
*Generated from [1_small.py](1_small.py) by `python demos/pages.py demos/shelf/1_small.py --quick`.*

**A short run (`--quick`): the full one gets further.**

# A title

    an indented formula

<details>
<summary>Imports and options</summary>

```python
import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path)
parser.add_argument("--quick", action="store_true")
options = parser.parse_args()
options.out.mkdir()
```

</details>

Text.

```python
def write(name, data):
    path = options.out / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    print(path)


write("b.png", b"1")
write("a.gif", b"2")
```

```
out/b.png
out/a.gif
```

![b](pictures/1_small/b.png)

![a](pictures/1_small/a.gif)

```python
write("sub/b.png", b"3")
```

```
out/sub/b.png
```

![b](pictures/1_small/2-b.png)

```python
import sys
from dataclasses import dataclass


@dataclass
class Point:
    x: "int"


print("before")
print("```mermaid\\nflowchart TD\\n```")
print("progress", file=sys.stderr)
print(options.quick, Point(3), Point.__module__, write.__code__.co_firstlineno)
```

```
before
```

```mermaid
flowchart TD
```

```
True Point(x=3) __main__ 21
```
"""


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", DEMOS / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "shelf" / "1_small.py"
    path.parent.mkdir()
    path.write_text(LESSON)
    return path


def make_page(lesson, *options):
    command = [sys.executable, str(DEMOS / "pages.py"), str(lesson), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


# ---- from script to page ----


def test_page_shows_text_code_output_and_figures(lesson):
    stale = lesson.parent / "pictures" / "1_small" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert make_page(lesson, "--quick").returncode == 0
    assert lesson.with_suffix(".md").read_text() == PAGE
    pictures = {path.name: path.read_bytes() for path in stale.parent.iterdir()}
    assert pictures == {"b.png": b"1", "a.gif": b"2", "2-b.png": b"3"}


def test_page_of_a_full_run_is_not_called_short(lesson):
    assert make_page(lesson).returncode == 0
    assert "short run" not in lesson.with_suffix(".md").read_text()


def test_page_is_kept_when_its_lesson_fails(lesson):
    lesson.with_suffix(".md").write_text("the page before")
    lesson.write_text(LESSON + "raise ValueError\n")
    done = make_page(lesson)
    assert done.returncode == 1
    assert f'{lesson.name}", line {LESSON.count(chr(10)) + 1}' in done.stderr
    assert lesson.with_suffix(".md").read_text() == "the page before"


def test_page_refuses_text_before_the_first_cell(lesson):
    lesson.write_text('"""A docstring."""\n' + LESSON)
    assert "begins with a cell" in make_page(lesson).stderr


def test_small_shrinks_large_figures_or_refuses_them(pages, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    for size in (500, 900):
        Image.fromarray(noise[:size, :size]).save(tmp_path / f"{size}.png")
        assert (tmp_path / f"{size}.png").stat().st_size > pages.LARGEST
    (tmp_path / "small.png").write_bytes(pages.small(tmp_path / "500.png"))
    assert (tmp_path / "small.png").stat().st_size <= pages.LARGEST
    difference = np.asarray(Image.open(tmp_path / "small.png").convert("RGB")).astype(int) - noise[:500, :500]
    assert np.abs(difference).mean() < 20  # of 256, and of noise, which needs all colours
    with pytest.raises(SystemExit, match=r"900\.png takes [\d,]+ bytes"):
        pages.small(tmp_path / "900.png")


# ---- the pages in the repository ----


def test_lessons_all_have_a_page():
    missing = [lesson.stem for lesson in LESSONS if lesson.with_suffix(".md") not in PAGES]
    assert missing == [], "a page is made by: python demos/pages.py LESSON"


def test_table_of_lessons_lists_all_lessons_and_pages():
    table = (DEMOS / "README.md").read_text()
    assert [path for path in LESSONS + PAGES if f"]({path.relative_to(DEMOS).as_posix()})" not in table] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_is_up_to_date_with_its_script(pages, page):
    text, cells = page.read_text(), pages.cells(page.with_suffix(".py").read_text())
    code = [source.strip() for _, is_text, source in cells if not is_text]
    stale = f"{page.name} is not what {page.stem}.py is now; make it again: python demos/pages.py LESSON"
    assert re.findall(r"^```python\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL) == code, stale
    assert [source for _, is_text, source in cells if is_text and source.strip() not in text] == [], stale


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_links_and_figures_exist(pages, page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if not link.startswith("http")]
    assert [link for link in links if not (page.parent / link).exists()] == []
    pictures = set((page.parent / "pictures" / page.stem).glob("*"))
    assert pictures == {page.parent / link for link in links if link.startswith("pictures/")}
    assert all(picture.stat().st_size <= pages.LARGEST for picture in pictures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_shows_no_progress_bar_or_path_of_a_machine(page):
    assert re.search(r"\r|it/s|(?<![\w.])/(tmp|home|root|Users|usr)/", page.read_text()) is None
