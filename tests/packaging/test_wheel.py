"""What is installed is the package, its extension and its stubs, and nothing of how it was built."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the sources, as pip would on another machine."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, source],
        check=True,
        timeout=110,
    )
    (path,) = place.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_the_package_and_no_sources_of_the_extension(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("ringpost/") for name in names)
    assert {Path(name).suffix for name in names} == {".py", ".pyi", ".so", ".typed"}
    assert sum(name.endswith(".so") for name in names) == 1


def test_it_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    assert "Requires-Python: >=3.10" in metadata
    assert "Requires-Dist: msgspec" in metadata
    assert "Provides-Extra: numpy" in metadata
