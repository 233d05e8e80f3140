"""ringpost.aio has what ringpost has: no method, no parameter is forgotten."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import ringpost
from ringpost import aio
from ringpost.loan import Loan
from ringpost.transaction import Transaction

PAIRS = (
    (ringpost.Broker, aio.Broker),
    (ringpost.Queue, aio.Queue),
    (ringpost.Topic, aio.Topic),
    (ringpost.Producer, aio.Producer),
    (ringpost.Consumer, aio.Consumer),
    (ringpost.Subscriber, aio.Subscriber),
    (ringpost.Message, aio.Message),
    (Loan, aio.Loan),
    (Transaction, aio.Transaction),
)
NOT_MEANT = {
    "fileno",  # that is what ringpost.aio is for
    "cancel_join_thread",  # multiprocessing's, which do nothing
    "join_thread",
}
OTHERWISE = {"block"}  # a timeout of 0


def public(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("sync", "coroutines"), PAIRS, ids=lambda kind: str(kind.__name__))
def test_every_name_and_parameter(sync: type, coroutines: type) -> None:
    there = public(coroutines)
    missing = []
    for name, member in public(sync).items():
        if name in NOT_MEANT:
            continue
        if name not in there:
            missing.append(name)
        elif inspect.isfunction(member):
            wanted = set(inspect.signature(member).parameters) - OTHERWISE
            have = inspect.signature(there[name]).parameters
            if not any(each.kind is each.VAR_KEYWORD for each in have.values()):
                missing += [f"{name}({each})" for each in wanted - set(have)]
    assert missing == []
