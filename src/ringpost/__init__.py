"""ringpost: an embedded message queue between Python processes on one machine.

Where things live:

    broker.py    connect(), Broker         names under which processes meet
    queue.py     Queue                     each message to one consumer
    producer.py  Producer                  sends with headers, a time to live, ...
    loan.py      Loan                      an array that is sent from where it was written
    consumer.py  Consumer                  receives what it must ack
    message.py   Message                   what is received
    topic.py     Topic                     each message to every subscriber
    subscriber.py Subscriber               a consumer with its own place in a topic
    events.py    EventBus, Event           handlers, called in any process
    deadletters.py, requests.py, backoff.py, stats.py, subjects.py, envelope.py
    anonymous.py                           queues without a name, like multiprocessing.Queue()
    codecs.py                              how objects become bytes
    errors.py                              every exception, and what each one advises
    processes.py, ownership.py, mounts.py  the machine, in words
    aio/                                   all of these for asyncio
    readiness.py                           fileno(), for selectors
    engines/     Engine                    what moves the messages; ring: is shared memory
    store/                                 what durable brokers keep on disk, in LMDB
    keys.py                                what sealed ones are opened with
    _binding/                              the native core (native/), behind one contract
"""

from typing import TYPE_CHECKING, Any

from ringpost.broker import Broker, connect
from ringpost.errors import (
    CorruptLog,
    DecodeError,
    Empty,
    EncodeError,
    Full,
    KeyRefused,
    LayoutMismatch,
    LeaseLost,
    MessageTooLarge,
    NotOurs,
    QueueDeleted,
    QueueNotFound,
    RingpostError,
    SegmentFull,
    SettingsMismatch,
    ShutDown,
    Stalled,
    StorageDamaged,
    StorageFailed,
    TooManyProcesses,
    Unsupported,
)
from ringpost.queue import Queue

if TYPE_CHECKING:
    from ringpost.backoff import Backoff
    from ringpost.consumer import Consumer
    from ringpost.deadletters import DeadLetters, Death
    from ringpost.events import Event, EventBus
    from ringpost.loan import Loan
    from ringpost.message import Message
    from ringpost.producer import Producer
    from ringpost.store.checking import Verification, verify
    from ringpost.store.format import Retention
    from ringpost.subscriber import Subscriber
    from ringpost.topic import Topic
    from ringpost.transaction import Transaction

_LATER = {  # who does not use them does not wait for them
    "Backoff": "backoff",
    "Consumer": "consumer",
    "DeadLetters": "deadletters",
    "Death": "deadletters",
    "Event": "events",
    "EventBus": "events",
    "Loan": "loan",
    "Message": "message",
    "Producer": "producer",
    "Retention": "store.format",
    "Subscriber": "subscriber",
    "Topic": "topic",
    "Transaction": "transaction",
    "Verification": "store.checking",
    "verify": "store.checking",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'ringpost' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ringpost.{_LATER[name]}"), name)


__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Broker",
    "Consumer",
    "CorruptLog",
    "DeadLetters",
    "Death",
    "DecodeError",
    "Empty",
    "EncodeError",
    "Event",
    "EventBus",
    "Full",
    "KeyRefused",
    "LayoutMismatch",
    "LeaseLost",
    "Loan",
    "Message",
    "MessageTooLarge",
    "NotOurs",
    "Producer",
    "Queue",
    "QueueDeleted",
    "QueueNotFound",
    "Retention",
    "RingpostError",
    "SegmentFull",
    "SettingsMismatch",
    "ShutDown",
    "Stalled",
    "StorageDamaged",
    "StorageFailed",
    "Subscriber",
    "TooManyProcesses",
    "Topic",
    "Transaction",
    "Unsupported",
    "Verification",
    "connect",
    "verify",
]
