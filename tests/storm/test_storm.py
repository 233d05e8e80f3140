"""A short storm, as `make storm` makes long ones; and one that must be noticed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from storm.accounts import HANDLED, SENT, Accounts, balance, body, number_of
from storm.topology import at_random

TESTS = Path(__file__).parents[1]
MINUTES = "0.4"

pytestmark = pytest.mark.timeout(300)


def test_a_short_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "storm", "--minutes", MINUTES, "--seed", "1"],
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1]
    kills, confirmed = (
        int(re.findall(rf"([\d,]+) {what}", total)[0].replace(",", "")) for what in ("kills", "confirmed")
    )
    assert kills > 20
    assert confirmed > 100


def test_what_is_missing_is_noticed(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.write(SENT, range(10))
    accounts.write(HANDLED, [*range(9), 1])
    found = balance(accounts, ["s0"])
    assert (found.confirmed, found.handled, found.again, found.missing) == (10, 9, 1, {HANDLED: [9]})


def test_a_line_that_was_torn_counts_for_nothing(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path)
    accounts.write(SENT, [123, 456])
    (tmp_path / SENT).write_bytes((tmp_path / SENT).read_bytes()[:-4])  # 456 is 4
    accounts.write(SENT, [78])
    assert accounts.read(SENT) == {123: 1, 78: 1}


@pytest.mark.parametrize("torn", [b"17 ", b"17 xx17 ", body(17, (10, 200))[:-1]])
def test_what_is_torn_is_noticed(torn: bytes) -> None:
    assert number_of(body(17, (10, 200)), (10, 200)) == 17
    with pytest.raises(AssertionError, match="torn"):
        number_of(torn, (10, 200))


def test_a_seed_is_a_topology() -> None:
    assert at_random(7) == at_random(7)
    assert len({str(at_random(seed)) for seed in range(50)}) > 20
