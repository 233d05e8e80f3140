"""python -m benchmarks: measure, print the tables, write the JSON."""

from __future__ import annotations

import json
import signal
import sys


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
        scores = play(options, _show)
    except KeyboardInterrupt:
        return 130
    finally:
        _show("")
    print(render(scores, options, before))
    if options.json:
        options.json.write_text(json.dumps(document(options, scores, (before, load())), indent=1) + "\n")
    return int(any(score.errors for score in scores if score.rival.name == BASELINE))


def _show(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
