"""The inputs that fuzzing kept, and what grows out of them: a value, or the error that is documented."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.decode import TARGETS, check

CORPUS = sorted((Path(__file__).parent / "corpus" / "decode").iterdir())
ROUNDS = 200


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_it_is_a_value_or_the_error_that_is_documented(path: Path) -> None:
    data = path.read_bytes()
    check(data)
    rng = random.Random(path.name)
    for _ in range(ROUNDS):
        check(mutated(data, rng))


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(1, len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at:at] = rng.randbytes(rng.randrange(9))
            case 1:
                del changed[at : at + rng.randrange(9)]
            case 2:
                changed[at : at + 1] = rng.randbytes(1)
            case _:
                changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\x7f"))
    return bytes(changed)


def test_each_target_has_an_input() -> None:
    assert {path.read_bytes()[0] % len(TARGETS) for path in CORPUS} >= set(range(len(TARGETS))) - {0, 4, 5, 7}
