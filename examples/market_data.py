"""A market-data feed: order books that nobody copies, ticks as records, the last quote for who comes late.

The feed writes each order book, a megabyte, into shared memory (`topic.loan`), where every strategy that
asked for its market looks at it in place (`message.array`). Ticks, 32 bytes each, go to the archive as
records, a whole array in one call. Quotes are retained: a screen that is switched on later has the last one
of each symbol at once.

    python examples/market_data.py                          all of it, each as a process of its own
    python examples/market_data.py strategy ring:NAME eu    prints the mean spread of a market's books
    python examples/market_data.py archive ring:NAME        gathers open, high, low, close of each symbol
    python examples/market_data.py feed ring:NAME
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

import ringpost

SYMBOLS = ("eu.dax", "eu.cac", "us.spx", "us.ndx")
BOOKS = 50  # of each symbol
LEVELS = 65_536  # of bids, and of offers: price and size of each
TICKS = 1_000_000
TICK = np.dtype([("time", "<i8"), ("symbol", "<i4"), ("size", "<i4"), ("price", "<f8"), ("id", "<i8")])
BATCH = 4096
PATIENCE = 60  # seconds without news: something is wrong


def feed(broker: ringpost.Broker) -> None:
    """Prices that wander. The spread of each book is its symbol's number, plus 1."""
    books, quotes = broker.topic("books", capacity=128 << 20), broker.topic("quotes")
    ticks = broker.queue("ticks")
    chance = np.random.default_rng(1)
    began = time.monotonic()
    for number in range(BOOKS):
        for index, symbol in enumerate(SYMBOLS):
            middle = 100.0 + number
            with books.loan((2, LEVELS, 2), "f4", subject=symbol) as book:
                book[0, :, 0] = middle - (index + 1) / 2 - np.arange(LEVELS)  # bids
                book[1, :, 0] = middle + (index + 1) / 2 + np.arange(LEVELS)  # offers
                book[:, :, 1] = number
            quotes.publish(
                {"bid": middle - (index + 1) / 2, "offer": middle + (index + 1) / 2}, symbol, retain=True
            )
    moved = len(SYMBOLS) * BOOKS * 2 * LEVELS * 2 * 4 / (time.monotonic() - began) / 1e9
    some = np.zeros(BATCH, TICK)
    began = time.monotonic()
    for start in range(0, TICKS, BATCH):
        count = min(BATCH, TICKS - start)
        some["id"] = np.arange(start, start + BATCH)
        some["symbol"] = some["id"] % len(SYMBOLS)
        some["price"] = 100 + chance.standard_normal(BATCH)
        ticks.put_many(some[:count])
    rate = TICKS / (time.monotonic() - began) / 1e6
    for topic in (books, quotes):
        topic.shutdown()
    ticks.shutdown()
    print(f"feed: {moved:.1f} GB/s of books, {rate:.1f} million ticks/s")


def strategy(broker: ringpost.Broker, market: str) -> None:
    seen, spread = 0, 0.0
    with broker.topic("books", capacity=128 << 20).subscribe(f"{market}.*") as books:
        for message in books:
            book = message.array
            spread += float(book[1, 0, 0] - book[0, 0, 0])
            seen += 1
            message.release()
    print(f"strategy {market}: {seen} books, mean spread {spread / seen:.2f}")


def archive(broker: ringpost.Broker) -> None:
    ticks = broker.queue("ticks")
    candles: dict[str, list[float]] = {}
    seen = 0
    while True:
        try:
            some = ticks.get_many(8 * BATCH, timeout=PATIENCE, as_array=True)
        except ringpost.ShutDown:
            break
        assert some["id"][0] == seen
        seen += len(some)
        for index, symbol in enumerate(SYMBOLS):
            prices = some["price"][some["symbol"] == index]
            if len(prices):
                candle = candles.setdefault(symbol, [prices[0], prices[0], prices[0], prices[0]])
                candle[1:] = [max(candle[1], prices.max()), min(candle[2], prices.min()), prices[-1]]
    print(f"archive: {seen} ticks, in order; candles of {', '.join(sorted(candles))}")


def screen(broker: ringpost.Broker) -> None:
    """Switched on when all is over."""
    with broker.topic("quotes").subscribe("us.*", retained=True) as quotes:
        for message in quotes:
            print(f"screen: {message.subject} {message.body['bid']} to {message.body['offer']}")


def everything() -> None:
    url = f"ring:market-{os.getpid()}"
    with ringpost.connect(url) as broker:
        books = broker.topic("books", capacity=128 << 20)
        try:
            others = [start("strategy", url, "eu"), start("strategy", url, "us"), start("archive", url)]
            books.wait_for_subscribers(2, timeout=PATIENCE)
            for process in (start("feed", url), *others):
                assert process.wait(PATIENCE) == 0
            screen(broker)
        finally:
            broker.destroy()


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, *arguments])


def main() -> None:
    if len(sys.argv) < 2:
        return everything()
    role, url, *rest = sys.argv[1:]
    with ringpost.connect(url) as broker:
        {"feed": feed, "strategy": strategy, "archive": archive}[role](broker, *rest)


if __name__ == "__main__":
    main()
