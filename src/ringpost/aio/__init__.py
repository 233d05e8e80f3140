"""ringpost.aio: the same names, for asyncio.

What may wait is a coroutine. Nothing polls, and there is no thread but for disks: a task sleeps until a
descriptor is readable. Tasks, threads and processes meet in the same queues, whichever way each waits.

Where things live:

    broker.py    connect(), Broker
    queue.py     Queue
    producer.py  Producer
    consumer.py  Consumer
    message.py   Message
    topic.py     Topic
    subscriber.py Subscriber
    events.py    EventBus
    requests.py                            questions and answers of one loop
    loan.py      Loan
    transaction.py Transaction
    deadletters.py DeadLetters
    storing.py                             how tasks wait for the disk together
    opening.py                             what `await` and `async with` both take
    waiting.py                             how a task waits; why cancelling loses nothing
"""

from ringpost.aio.broker import Broker, connect
from ringpost.aio.consumer import Consumer
from ringpost.aio.deadletters import DeadLetters
from ringpost.aio.events import EventBus
from ringpost.aio.loan import Loan
from ringpost.aio.message import Message
from ringpost.aio.producer import Producer
from ringpost.aio.queue import Queue
from ringpost.aio.subscriber import Subscriber
from ringpost.aio.topic import Topic
from ringpost.aio.transaction import Transaction

__all__ = [
    "Broker",
    "Consumer",
    "DeadLetters",
    "EventBus",
    "Loan",
    "Message",
    "Producer",
    "Queue",
    "Subscriber",
    "Topic",
    "Transaction",
    "connect",
]
