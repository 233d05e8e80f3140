"""Every Python block of the README and the guides runs, and prints what the page says.

A page says it in comments behind print(), or in a block of text under the word "prints"; under "print", for
this block and the one before it together.
"""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n(prints?)\n\n```text\n(.*?)^```)?", re.M | re.S)
PROGRAMS = {page: BLOCK.findall(page.read_text()) for page in PAGES if BLOCK.search(page.read_text())}


def rows_without_a_table(text: str) -> list[str]:
    """A table goes on as long as its rows do: what a blank line cuts off is shown as text."""
    lines = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).splitlines()
    found, is_inside = [], False
    for line, following in pairwise([*lines, ""]):
        is_row = line.startswith("|")
        if is_row and not is_inside and not re.fullmatch(r"\|[-:| ]+\|", following):
            found.append(line)
        is_inside = is_row
    return found


def test_a_row_that_a_blank_line_cuts_off_is_found() -> None:
    table = "text\n\n| a | b |\n|---|:--|\n| 1 | 2 |\n"
    assert rows_without_a_table(table) == []
    assert rows_without_a_table(f"{table}| 3 | 4 |\n```sh\n\n| x\n```\n") == []
    assert rows_without_a_table(f"{table}\n| 3 | 4 |\n| 5 | 6 |\n") == ["| 3 | 4 |"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_tables_are_whole(page: Path) -> None:
    assert rows_without_a_table(page.read_text()) == []


def told_in_comments(block: str) -> list[str]:
    comments = re.findall(r"^\s*print\(.*\)\s+# (.*)$", block, re.M)
    return [comment.removesuffix(", exactly") for comment in comments]


def output_of(block: str, script: Path) -> list[str]:
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_programs_print_what_it_says(page: Path, tmp_path: Path) -> None:
    before: list[str] = []
    programs = PROGRAMS[page]
    for number, (block, word, text) in enumerate(programs):
        printed = output_of(block, tmp_path / f"block{number}.py")
        if word == "prints":
            assert printed == text.splitlines()
        elif word == "print":
            assert before + printed == text.splitlines()
        elif number + 1 == len(programs) or programs[number + 1][1] != "print":
            assert printed == told_in_comments(block)
        before = printed


def test_pages_have_programs() -> None:
    assert {page.name for page in PROGRAMS} >= {
        "README.md",
        "delivery.md",
        "topics.md",
        "events.md",
        "asyncio.md",
        "durability.md",
        "arrays.md",
        "first-steps.md",
        "from-multiprocessing.md",
        "from-redis-rabbitmq.md",
        "crash-safety.md",
        "operations.md",
        "tuning.md",
        "security.md",
    }


def test_every_relative_link_leads_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_test_that_a_page_names_is_there() -> None:
    named = {
        path
        for page in PAGES
        for path in re.findall(r"`((?:tests|examples|native)/[\w/.]+)`", page.read_text())
    }
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
