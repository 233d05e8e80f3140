"""RINGPOST_BINDING picks the native binding; one that is missing or broken is a loud error with advice."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ringpost import _binding
from ringpost._binding import contract

BOUND = 30  # seconds


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A binding `toy` that has every name."""
    module = types.ModuleType("toy_binding")
    for name in contract.NAMES:
        setattr(module, name, object())
    monkeypatch.setitem(sys.modules, "toy_binding", module)
    monkeypatch.setitem(_binding._MODULES, "toy", "toy_binding")
    return module


def test_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = "cffi" if platform.python_implementation() == "PyPy" else "cython"
    assert _binding.default() == usual
    monkeypatch.delenv("RINGPOST_BINDING", raising=False)
    assert python("from ringpost._binding import binding; print(binding.NAME)").stdout == f"{usual}\n"


def test_on_pypy_it_is_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    assert _binding.default() == "cffi"


def test_another_one(offered: types.ModuleType) -> None:
    assert _binding.load("toy") is offered


@pytest.mark.parametrize("name", contract.NAMES)
def test_a_name_that_it_lacks(offered: types.ModuleType, name: str) -> None:
    delattr(offered, name)
    with pytest.raises(ImportError, match=f"toy binding lacks {name}: reinstall"):
        _binding.load("toy")


def test_all_names_that_it_lacks(offered: types.ModuleType) -> None:
    del offered.Log, offered.attach
    with pytest.raises(ImportError, match="lacks Log, attach: reinstall"):
        _binding.load("toy")


@pytest.mark.parametrize("name", ["rust", "", "Cython", "ringpost._binding._core"])
def test_one_that_does_not_exist(name: str) -> None:
    with pytest.raises(ImportError, match="there is only cython, cffi") as raised:
        _binding.load(name)
    assert f"RINGPOST_BINDING={name!r}" in str(raised.value)


def test_one_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ringpost._binding._core", None)
    with pytest.raises(
        ImportError, match=r"cython binding does not load \(.+\); reinstall ringpost.*C compiler"
    ):
        _binding.load("cython")


def test_one_that_fails_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_toy.py").write_text("from os import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(_binding._MODULES, "toy", "broken_toy")
    with pytest.raises(ImportError, match=r"toy binding does not load .*nothing_of_that_name"):
        _binding.load("toy")


def test_the_environment_is_read_when_ringpost_is_imported() -> None:
    assert python("import ringpost", RINGPOST_BINDING="cython").returncode == 0
    forced = python("import ringpost", RINGPOST_BINDING="rust")
    assert forced.returncode == 1
    last_line = forced.stderr.splitlines()[-1]
    assert last_line == "ImportError: RINGPOST_BINDING='rust': there is only cython, cffi"


def test_without_the_extension_nothing_else_is_tried() -> None:
    code = "import sys; sys.modules['ringpost._binding._core'] = None; import ringpost"
    failed = python(code, RINGPOST_BINDING="cython")
    assert failed.returncode == 1
    assert "ringpost's cython binding does not load" in failed.stderr
    assert "reinstall ringpost" in failed.stderr


def test_without_cffi_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['_cffi_backend'] = None; import ringpost"
    failed = python(code, RINGPOST_BINDING="cffi")
    assert failed.returncode == 1
    assert "ringpost's cffi binding does not load" in failed.stderr
    assert failed.stderr.rstrip().endswith("pip install 'ringpost[cffi]'")


@pytest.mark.parametrize("name", sorted(_binding._MODULES))
def test_a_binding_has_what_the_contract_says(name: str) -> None:
    module = _binding.load(name)
    assert name == module.NAME
    wanted = {each for each in vars(contract.Log) if not each.startswith("_")}
    assert wanted <= set(dir(module.Log))
    assert {each for each in vars(contract.Binding) if not each.startswith("_")} <= set(contract.NAMES)
