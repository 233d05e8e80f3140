"""python -m fuzz SECONDS, in tests/: coverage-guided. Needs atheris, by Google: pip install atheris."""

import sys
import tempfile
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus" / "decode"

with atheris.instrument_imports(include=["ringpost", "fuzz", "numpy.lib", "numpy._core._internal"]):
    from fuzz import decode

with tempfile.TemporaryDirectory() as found:
    seconds = sys.argv[1] if len(sys.argv) > 1 else "10"
    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[2:], found, str(CORPUS)], decode.check)
    atheris.Fuzz()
