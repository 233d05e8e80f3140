"""The cffi binding is built from the public header itself: all of it is there, as the compiler sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

HEADER = (Path(__file__).parents[2] / "native/include/ringpost.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)

native: Any = pytest.importorskip(
    "ringpost._binding._cffi._native", reason="no cffi here: pip install 'ringpost[cffi]'"
)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(rp_\w+)\(", CODE))))
def test_every_function(name: str) -> None:
    assert callable(getattr(native.lib, name))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bRP_[A-Z_]+\b", CODE))))
def test_every_constant(name: str) -> None:
    assert isinstance(getattr(native.lib, name), int)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^typedef struct (\w+) \{", CODE, re.MULTILINE))))
def test_every_struct(name: str) -> None:
    assert native.ffi.sizeof(name) > 0
