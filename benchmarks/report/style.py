"""How charts look: nothing behind them, and colours that can be read on white and on nearly black alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEXT = "#6e7781"
LINES = "#8b949e"
OURS = "#d9480f"

_PALETTE = {
    "ringpost": (OURS, "o"),
    "multiprocessing.Queue": ("#1f77d0", "s"),
    "multiprocessing.SimpleQueue": ("#4c8fd6", "D"),
    "multiprocessing.Pipe": ("#0e8a92", "^"),
    "faster-fifo": ("#8250df", "v"),
    "pyzmq": ("#c2255c", "P"),
    "cloudtoid-interprocess": ("#2f9e44", "X"),
    "subetha-ipc": ("#a07500", "<"),
    "subetha-ipc+condvar": ("#b08a2e", ">"),
    "iceoryx2": ("#7c6f64", "p"),
    "iceoryx2+events": ("#8d7b6c", "h"),
    "Redis streams": ("#c94f4f", "d"),
    "Redis pub/sub": ("#c94f4f", "d"),
}
_OTHERS = (TEXT, ".")
BACKGROUNDS = ("#ffffff", "#0d1117")


def colour(rival: str) -> str:
    """The rival's, the same in every chart."""
    return _PALETTE.get(rival, _OTHERS)[0]


def marker(rival: str) -> str:
    """Its marker, for those who see colours otherwise."""
    return _PALETTE.get(rival, _OTHERS)[1]


def colours() -> set[str]:
    """All that are used, for the test that they can be seen."""
    return {TEXT, LINES, *(each for each, _ in _PALETTE.values())}


@contextmanager
def styled() -> Iterator[Any]:
    """matplotlib.pyplot, set up for SVG that is the same whenever the numbers are."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    settings = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "ringpost",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.titlecolor": TEXT,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.edgecolor": LINES,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "figure.facecolor": "none",
        "figure.constrained_layout.use": True,
        "savefig.transparent": True,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "grid.color": LINES,
        "grid.alpha": 0.3,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
    }
    with pyplot.rc_context(settings):  # type: ignore[arg-type]
        yield pyplot


def save(pyplot: Any, figure: Any, path: Path, title: str) -> str:
    """Write it; returns the name of the file."""
    figure.savefig(path, format="svg", metadata={"Date": None, "Title": title})
    pyplot.close(figure)
    return path.name


def compact(value: float) -> str:
    """1234567 as 1.23 M."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
