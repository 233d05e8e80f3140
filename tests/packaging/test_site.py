"""The site builds without a dead link, and its reference has every public name."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ringpost
from ringpost import aio

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

builds = pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("material") is None or find_spec("mkdocstrings") is None,
    reason="needs pip install ringpost[docs]",
)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=110,
    )


@builds
def test_the_site_builds(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    queues = (tmp_path / "reference" / "queues" / "index.html").read_text()
    assert 'id="ringpost.queue.Queue.put_many"' in queues
    assert (tmp_path / "charts" / "throughput.svg").exists()


@builds
def test_a_dead_link_is_an_error(tmp_path: Path) -> None:
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write("\n[nowhere](guide/delivery.md#no-such-heading)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "no-such-heading" in done.stdout + done.stderr


@pytest.mark.parametrize("module", [ringpost, aio], ids=lambda module: str(module.__name__))
def test_the_reference_has_every_public_name(module: object) -> None:
    told = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    missing = []
    for name in module.__all__:  # type: ignore[attr-defined]
        public = getattr(module, name)
        home = f"{public.__module__}.{name}"
        standard = not home.startswith("ringpost.") or name in ("Empty", "Full")
        if not standard and not re.search(rf"^::: {re.escape(home)}$", told, re.M):
            missing.append(home)
    assert missing == []
