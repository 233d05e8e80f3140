"""The demo does its job and leaves nothing behind (the fixtures check that for every test)."""

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples" / "hash_tree.py"


def test_every_file_is_accounted_for() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accounted for once, digests equal to the single process's" in done.stdout
    assert "kill -9" in done.stdout
    assert "files were given to another worker" in done.stdout
    assert "files/s" in done.stdout
    assert "messages/s" in done.stdout


def test_an_unknown_role_is_explained() -> None:
    done = subprocess.run([sys.executable, str(DEMO), "dance"], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "examples/hash_tree.py produce ring:NAME" in done.stderr
