"""A sealed broker is a broker: a part of the conformance tests, with RINGPOST_TEST_BROKER=durable and a key.

More: RINGPOST_TEST_BROKER=durable RINGPOST_KEY=PASSPHRASE python -m pytest tests/conformance tests/durable
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PART = ("retained", "dead_letters", "priorities")


@pytest.mark.timeout(300)
def test_a_part_of_the_conformance_suite() -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'ringpost[encryption]'")
    key = "base64:" + base64.b64encode(os.urandom(32)).decode()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(f"conformance/test_{name}.py" for name in PART)],
        cwd=TESTS,
        env={**os.environ, "RINGPOST_TEST_BROKER": "durable", "RINGPOST_KEY": key},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
