"""Everything public says what it does, and promises only exceptions that exist."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

import ringpost
from ringpost import errors

PACKAGE = Path(ringpost.__file__).parent
EXCEPTION = re.compile(r"\b(?!None|True|False)[A-Z][a-z]\w*\b")


def members(owner: type) -> dict[str, object]:
    """What a class, or a base of it within ringpost, defines for users."""
    found: dict[str, object] = {}
    for each in reversed([one for one in owner.__mro__ if one.__module__.startswith("ringpost")]):
        found |= {f"{owner.__name__}.{name}": value for name, value in vars(each).items() if name[0] != "_"}
    return {name: value for name, value in found.items() if callable(value) or is_described(value)}


def is_described(value: object) -> bool:
    return isinstance(value, (property, classmethod, staticmethod))


def public() -> dict[str, object]:
    found: dict[str, object] = {}
    for name in ringpost.__all__:
        value = getattr(ringpost, name)
        found[name] = value
        if isinstance(value, type):
            found |= members(value)
    return found


@cache
def docstrings() -> dict[str, str]:
    """Of every module, class and function, as it is written."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                name = f"{path.relative_to(PACKAGE)}:{getattr(node, 'name', '')}"
                found[name] = ast.get_docstring(node)
    return found


def promised(docstring: str) -> set[str]:
    """Exceptions named after 'Raises': in a section, each line up to its colon; else up to the full stop."""
    names: set[str] = set()
    section = re.search(r"^Raises:\n((?:[ ]+.*\n?)+)", docstring, re.MULTILINE)
    if section:
        for line in re.findall(r"^    (\w[^:\n]*):", section[1], re.MULTILINE):
            names |= set(EXCEPTION.findall(line))
    for sentence in re.findall(r"\b[Rr]aises (\S[^.]*)", docstring):
        names |= set(EXCEPTION.findall(sentence))
    return names


def exists(name: str) -> bool:
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


@pytest.mark.parametrize("name", sorted(public()))
def test_has_a_docstring(name: str) -> None:
    value = public()[name]
    text = inspect.getdoc(value) if not isinstance(value, type) else value.__doc__
    assert text
    assert text.strip()
    assert (
        text.strip()[0].isupper() or text.startswith(name.rpartition(".")[2] + "(") or "(" in text.split()[0]
    )


def test_what_is_public_is_found() -> None:
    found = public()
    assert {"Queue.put", "Queue.maxsize", "Broker.queue", "Broker.url", "connect", "Stalled"} <= set(found)
    assert len(found) > 40


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_module_has_one(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("name", [name for name, text in docstrings().items() if promised(text)])
def test_promised_exceptions_exist(name: str) -> None:
    assert [each for each in sorted(promised(docstrings()[name])) if not exists(each)] == []


def test_what_a_user_may_catch_is_at_the_top() -> None:
    named = set().union(*(promised(inspect.getdoc(value) or "") for value in public().values()))
    assert {"Full", "Empty", "SegmentFull", "QueueDeleted", "SettingsMismatch"} <= named
    assert [
        name for name in sorted(named) if not hasattr(builtins, name) and name not in ringpost.__all__
    ] == []


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        (
            "It.\n\nRaises:\n    Full: no room.\n    One, TwoThree: Both of them.\n\nAnd More.",
            {"Full", "One", "TwoThree"},
        ),
        ("Raises NotHere, Other if URL is None.", {"NotHere", "Other"}),
        ("Raises what get() raises. An Apple.", set()),
    ],
)
def test_how_they_are_read(docstring: str, names: set[str]) -> None:
    assert promised(docstring) == names


def test_the_list_of_names_is_complete_and_sorted() -> None:
    assert sorted(ringpost.__all__) == ringpost.__all__
    assert len(set(ringpost.__all__)) == len(ringpost.__all__)
    for name in ringpost.__all__:
        assert hasattr(ringpost, name)
