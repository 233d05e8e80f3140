"""What is published: an sdist that builds the wheel by itself, and a wheel with the package alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BOUND = 280  # seconds
pytestmark = pytest.mark.timeout(3 * BOUND)  # it compiles both extensions


def run(*command: object, **settings: object) -> None:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def sdist(place: Path) -> Path:
    """Built from a copy of the sources, as on another machine."""
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
    run(sys.executable, "-m", "build", "--sdist", "--outdir", place, source, timeout=BOUND)
    (path,) = place.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel_file(place: Path, sdist: Path) -> Path:
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, sdist),
        timeout=BOUND,
    )
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel_file)


def test_the_sdist_has_sources_and_nothing_that_was_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"native/include/ringpost.h", "src/ringpost/_binding/_core.pyx", "CHANGELOG.md"} <= names
    assert {"native/cffi_build.py", "src/ringpost/_binding/_cffi/calls.h"} <= names
    assert "src/ringpost/_binding/_core.c" not in names
    assert not [name for name in names if name.endswith((".so", ".o"))]


def test_the_wheel_has_every_module(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "src"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    assert modules
    assert modules <= set(wheel.namelist())


def test_the_wheel_works(wheel_file: Path, place: Path) -> None:
    """With tests of the queue, which find it before the sources."""
    target = place / "installed"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel_file)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    probe = "import ringpost; print(ringpost.__file__)"
    found = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(target))
    suites = [ROOT / "tests" / "conformance" / f"test_{name}.py" for name in ("basics", "start_methods")]
    for binding in ("cython", "cffi"):
        environment["RINGPOST_BINDING"] = binding
        run(sys.executable, "-m", "pytest", "-q", *suites, env=environment, cwd=ROOT, timeout=BOUND)


def test_it_holds_the_package_and_no_sources_of_the_extension(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("ringpost/") for name in names)
    assert {Path(name).suffix for name in names} == {".py", ".pyi", ".so", ".typed"}
    modules = sorted(Path(name).name.partition(".")[0] for name in names if name.endswith(".so"))
    assert modules == ["_core", "_native"]


def test_it_holds_every_module(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "ringpost").rglob("*.py")}
    assert modules - set(wheel.namelist()) == set()


def test_it_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    assert "Requires-Python: >=3.10" in metadata
    assert "Requires-Dist: msgspec" in metadata
    assert "Provides-Extra: numpy" in metadata
    assert "Provides-Extra: cffi" in metadata
