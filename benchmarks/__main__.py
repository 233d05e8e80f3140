"""python -m benchmarks: measure, print the tables, write the JSON."""

from __future__ import annotations

import json
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def main() -> int:
    """Returns the exit code: 1 if ringpost itself failed anywhere."""
    # imported here: every child process imports this module too
    from benchmarks.options import parse
    from benchmarks.report.document import document
    from benchmarks.report.machine import cores, load
    from benchmarks.report.table import render
    from benchmarks.rivals import BASELINE
    from benchmarks.tournament import play

    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through every finally
    before = load()
    if before > cores() / 2:
        _show(f"this machine is busy (load {before:.1f}): numbers will be low and uneven\n")
    try:
        scores = play(
            options, _show, lambda told: _write(document(options, told, (before, load())), options.out)
        )
    except KeyboardInterrupt:
        return 130
    finally:
        _show("")
    print(render(scores, options, before))
    print(f"\nwritten: {options.out / 'results.json'}{_draw(options.out)}")
    return int(any(score.errors for score in scores if score.rival.name == BASELINE))


def _write(result: dict[str, Any], directory: Path) -> None:
    """After each repetition: a long run that is ended early is not for nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def _draw(directory: Path) -> str:
    """The charts, where matplotlib is; says which."""
    from benchmarks.report.charts import draw_all

    if find_spec("matplotlib") is None:
        return "; for charts: pip install matplotlib"
    return " and, beside it, " + ", ".join(
        draw_all(json.loads((directory / "results.json").read_text()), directory)
    )


def _show(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
