"""Subinterpreters, isolated or not: refused with the reason, and the main interpreter goes on. A process of
its own for each: what a refused import leaves behind is nobody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

import ringpost

isolated = sys.argv[1] == "isolated"
if interpreters.__name__ == "_interpreters":
    other = interpreters.create(sys.argv[1])
else:
    other = interpreters.create(isolated=isolated)
interpreters.run_string(other, '''
try:
    import ringpost
except ImportError as error:
    print("refused:", error, flush=True)
else:
    print("imported", flush=True)
''')
with ringpost.Queue() as queue:
    queue.put("goes on")
    print(queue.get(), flush=True)
interpreters.destroy(other)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="subinterpreters are CPython's")
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_they_are_refused_with_the_reason(kind: str) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, timeout=60)
    first, last = ended.stdout.splitlines()[:2]
    assert first.startswith("refused: ringpost works in the main interpreter only")
    assert "processes" in first
    assert last == "goes on"
    assert ended.returncode == 0, ended.stderr
