"""Every Python block of the README and the guides runs, and prints what its comments say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]


def promised_output(block: str) -> list[str]:
    """What stands behind the # of each line that prints; up to a comma and a space: the rest is prose."""
    comments = re.findall(r"^\s*print\(.*\)\s+# (.*)$", block, re.M)
    return [comment.removesuffix(", exactly") for comment in comments]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs_and_prints_what_it_says(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == promised_output(block)


def test_the_readme_has_blocks() -> None:
    assert sum("README" in str(block.id) for block in BLOCKS) >= 2


def test_every_relative_link_leads_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert dead == []
