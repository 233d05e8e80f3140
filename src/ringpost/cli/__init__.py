"""The command line: `ringpost`, or `python -m ringpost`. Needs ringpost[cli].

app.py has the options that all commands share; the commands lie in files by what they do: look.py,
messages.py, exchange.py, letters.py, groups.py, keep.py, work.py, bench.py.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        sys.exit("the command line needs click and rich: pip install 'ringpost[cli]'")
    from ringpost.cli.app import run

    run()
