"""Transaction: messages taken from some queues and sent to others, all or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ringpost.envelope import Envelope, seal
from ringpost.errors import Full, LeaseLost, Unsupported, failure
from ringpost.errors import Status as _Status
from ringpost.levels import Levels
from ringpost.message import Message
from ringpost.producer import milliseconds
from ringpost.queue import Queue
from ringpost.subjects import check_subject

if TYPE_CHECKING:
    from ringpost._binding.contract import NativeLog
    from ringpost.broker import Broker
    from ringpost.store.transactions import Transactions
    from ringpost.topic import Topic

_Raw = tuple[int, bytes, "bytes | None", "bytes | None", int]  # what Log.send_raw() takes


class Transaction:
    """Made by `Broker.transaction()`. What it acks and sends is done at the end of its block, on disk, all
    of it; nothing of it if an exception leaves the block."""

    def __init__(self, broker: Broker, transactions: Transactions, timeout: float | None) -> None:
        from ringpost.store.transactions import new_id

        self._broker = broker
        self._transactions = transactions
        self._timeout = timeout
        self._id = new_id()
        self._acks: list[Message[Any]] = []
        self._sends: list[tuple[NativeLog, _Raw]] = []
        self._counts: Counter[int] = Counter()  # of what it sends, by the log's storage
        self._is_over = False

    def ack(self, message: Message[Any]) -> None:
        """Ack it when everything else is done, too.

        Raises ValueError for a message of another broker, or from memory; LeaseLost for one that was settled.
        """
        self._check_open()
        if not self._is_ours(message.group.log):
            raise ValueError(f"{message!r} is not from a durable queue or topic of {self._broker.url}")
        if message.settled:
            raise LeaseLost(f"{message!r} was settled before: ack, nack or reject it once", [message])
        self._acks.append(message)

    def ack_many(self, messages: Iterable[Message[Any]]) -> None:
        """ack() each."""
        for message in messages:
            self.ack(message)

    def send(
        self,
        queue: str | Queue[Any],
        body: object,
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Send to a queue, given by its name or opened. Arguments are those of Producer.send().

        Raises EncodeError, MessageTooLarge, Full (it is full by its maxsize), ValueError.
        """
        self._check_open()
        to = self._broker._keep_open(queue) if isinstance(queue, str) else queue
        log: Any = to._log
        if isinstance(log, Levels):
            log = log.level(priority)._log if priority else log._base
        elif priority:
            raise Unsupported(
                f"{log.label} has no priorities: make it with broker.queue(name, priorities=True)"
            )
        self._add(
            log,
            body,
            None,
            Envelope(
                headers=dict(headers) if headers else None,
                message_id=message_id,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                key=key,
                priority=priority,
            ),
            ttl,
        )

    def publish(
        self,
        topic: Topic[Any],
        body: object,
        subject: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        key: str | None = None,
        message_id: str | None = None,
    ) -> None:
        """Publish under a topic. Arguments are those of Topic.publish(). Raises as send()."""
        self._check_open()
        envelope = Envelope(headers=dict(headers) if headers else None, message_id=message_id, key=key)
        self._add(topic._log, body, check_subject(subject) if subject else None, envelope, ttl)

    def _add(
        self, log: Any, body: object, subject: bytes | None, envelope: Envelope, ttl: float | None
    ) -> None:
        from msgspec.structs import replace

        from ringpost.store.transactions import mark

        if not self._is_ours(log):
            raise ValueError(f"{log.label} is not a durable queue or topic of {self._broker.url}")
        kind, payload = log.encode(body)
        headers = seal(replace(envelope, transaction=mark(self._id, len(self._sends))))
        info, size = log.info(), len(payload) + len(headers or b"") + len(subject or b"")
        if size > info["max_payload"]:
            raise failure(_Status.TOO_LARGE, "put", log.label, size=size, most=info["max_payload"])
        waiting = info["ready"] + self._counts[id(log.storage)]
        if info["max_messages"] and waiting >= info["max_messages"]:
            raise Full(
                f"{log.label} is full: {waiting} messages wait in it, with those that this transaction sends"
            )
        self._counts[id(log.storage)] += 1
        self._sends.append((log, (kind, payload, subject, headers, milliseconds(ttl))))

    def _is_ours(self, log: Any) -> bool:
        storage = getattr(log, "storage", None)
        return storage is not None and storage.is_of(self._transactions._environment)

    def _check_open(self) -> None:
        if self._is_over:
            raise ValueError("this transaction is over: begin another one")

    # ---- the end -------------------------------------------------------------------------------

    def _commit(self) -> None:
        from ringpost.store.decided import Acks, Sent
        from ringpost.store.transactions import storage_of

        acks: dict[tuple[str, str, str], list[int]] = {}
        for message in self._acks:
            group, storage = message.group, storage_of(message.group.log)  # type: ignore[arg-type]
            if not group.extend(message, None):  # nobody else gets it from now on
                raise LeaseLost(
                    f"{message!r} was given to another consumer meanwhile: nothing was done", [message]
                )
            acks.setdefault((*storage.identity, group.info()["name"]), []).append(message.sequence)
        sends: dict[int, tuple[str, str, NativeLog, list[Sent]]] = {}
        for number, (log, sent) in enumerate(self._sends):
            kind, name = storage_of(log).identity
            _, _, _, messages = sends.setdefault(id(storage_of(log)), (kind, name, log, []))
            messages.append(Sent(number, *sent))
        self._transactions.carry_out(
            self._id,
            [Acks(*where, sequences) for where, sequences in acks.items()],
            list(sends.values()),
            [storage_of(message.group.log) for message in self._acks],  # type: ignore[arg-type]
            self._settle,
            self._timeout,
        )

    def _settle(self) -> None:
        for message in self._acks:
            message.group.settle_one(message)
            holder = getattr(message, "holder", None)
            if holder is not None:
                holder._held.discard(message)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        if error is None and (self._acks or self._sends):
            self._commit()
