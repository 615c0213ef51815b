"""Run a lesson and write it as a Markdown page, to be read on GitHub without running anything.

    python demos/pages.py demos/lecture/12_vae_two_dimensional.py [OPTION ...]

runs the lesson with these options, cell by cell, and writes ``12_vae_two_dimensional.md`` beside it: the text, the
code, and below each code cell what it printed to standard output and which figures (PNG, GIF) it wrote into its
``--out``. The figures are copied to ``pictures/12_vae_two_dimensional/``.

Printed text is shown as it is, but for Markdown fences with a language, such as ```mermaid: they become part of the
page, so that GitHub draws the graph. The cell that imports argparse is folded away. If a cell fails, there is no page.
"""

import io
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from PIL import Image

LARGEST = 300_000  # bytes of a figure; a larger PNG is stored in 256 colours


def cells(script: str) -> list[tuple[int, bool, str]]:
    """The cells of a percent script: the number of lines above, whether it is text, and its source."""
    if not script.startswith("# %%"):
        raise SystemExit("a lesson begins with a cell, # %% [markdown]")
    starts = list(re.finditer(r"^# %%(.*)\n", script, re.MULTILINE))
    ends = [start.start() for start in starts[1:]] + [len(script)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        is_text, source = "[markdown]" in start[1], script[start.end() : end]
        if is_text:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        found.append((script.count("\n", 0, start.end()), is_text, source))
    return found


def code_block(source: str) -> str:
    """A code cell in Markdown."""
    block = f"```python\n{source.strip()}\n```"
    if "import argparse" in source:
        return f"<details>\n<summary>Imports and options</summary>\n\n{block}\n\n</details>"
    return block


def output_blocks(output: str) -> list[str]:
    """What a cell printed, in Markdown: fences with a language as they are, the rest as plain text."""
    parts = re.split(r"^(```\w+\n.*?^```)$", output, flags=re.MULTILINE | re.DOTALL)
    parts = [part.strip("\n") for part in parts]
    return [part if part.startswith("```") else f"```\n{part}\n```" for part in parts if part.strip()]


def figures(folder: Path) -> dict[Path, int]:
    """The figures in a folder and its subfolders, oldest first, and when each was written."""
    found = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".png", ".gif")}
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def small(figure: Path) -> bytes:
    """A figure as the page stores it."""
    data = figure.read_bytes()
    if figure.suffix == ".png" and len(data) > LARGEST:
        buffer = io.BytesIO()
        Image.open(figure).convert("RGB").quantize(256).save(buffer, "png", optimize=True)
        data = buffer.getvalue()
    if len(data) > LARGEST:
        raise SystemExit(f"{figure.name} takes {len(data):,} bytes, more than {LARGEST:,}; save it smaller")
    return data


def make_page(lesson: Path, options: list[str]) -> tuple[str, dict[str, bytes]]:
    """Run a lesson in the working directory; its page, and the page's figures by name."""
    command = " ".join(["python demos/pages.py", f"demos/{lesson.parent.name}/{lesson.name}", *options])
    blocks = [f"*Generated from [{lesson.name}]({lesson.name}) by `{command}`.*"]
    if "--quick" in options:
        blocks.append("**A short run (`--quick`): the full one gets further.**")
    pictures, seen = dict[str, bytes](), dict[Path, int]()

    out = Path("out")  # relative, so that what the lesson prints about it is
    sys.argv, sys.path[0] = [str(lesson), "--out", str(out), *options], str(lesson.parent)  # as a script has them
    module = sys.modules["__main__"] = ModuleType("__main__")  # where dataclasses and inspect look
    module.__file__ = str(lesson)
    for lines_above, is_text, source in cells(lesson.read_text()):
        if is_text:
            blocks.append(source.strip())
            continue
        with redirect_stdout(io.StringIO()) as printed:
            exec(compile("\n" * lines_above + source, lesson, "exec"), vars(module))  # with the script's line numbers
        blocks += [code_block(source), *output_blocks(printed.getvalue())]
        before, seen = seen, figures(out)
        for figure in [path for path, written in seen.items() if before.get(path) != written]:
            name = figure.name if figure.name not in pictures else f"{len(pictures)}-{figure.name}"
            pictures[name] = small(figure)
            blocks.append(f"![{figure.stem}](pictures/{lesson.stem}/{name})")
    return "\n\n".join(blocks) + "\n", pictures


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("usage: python demos/pages.py LESSON [OPTION ...]")
    lesson, options = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        page, pictures = make_page(lesson, options)
        os.chdir(lesson.parent)
    folder = lesson.parent / "pictures" / lesson.stem
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in pictures.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    lesson.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()
