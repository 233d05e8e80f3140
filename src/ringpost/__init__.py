"""ringpost: an embedded message queue between Python processes on one machine.

Where things live:

    broker.py    connect(), Broker         names under which processes meet
    queue.py     Queue                     each message to one consumer
    anonymous.py                           queues without a name, like multiprocessing.Queue()
    codecs.py                              how objects become bytes
    errors.py                              every exception, and what each one advises
    engines/     Engine                    what moves the messages; ring: is shared memory
    _binding/                              the native core (native/), behind one contract
"""

from ringpost.broker import Broker, connect
from ringpost.errors import (
    CorruptLog,
    DecodeError,
    Empty,
    EncodeError,
    Full,
    LayoutMismatch,
    MessageTooLarge,
    NotOurs,
    QueueDeleted,
    QueueNotFound,
    RingpostError,
    SegmentFull,
    SettingsMismatch,
    ShutDown,
    Stalled,
    TooManyProcesses,
    Unsupported,
)
from ringpost.queue import Queue

__version__ = "0.1.0"

__all__ = [
    "Broker",
    "CorruptLog",
    "DecodeError",
    "Empty",
    "EncodeError",
    "Full",
    "LayoutMismatch",
    "MessageTooLarge",
    "NotOurs",
    "Queue",
    "QueueDeleted",
    "QueueNotFound",
    "RingpostError",
    "SegmentFull",
    "SettingsMismatch",
    "ShutDown",
    "Stalled",
    "TooManyProcesses",
    "Unsupported",
    "connect",
]
