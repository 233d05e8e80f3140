"""Requests and replies: a message that asks, and the one that answers, found by its correlation_id."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ringpost.engines import Kind
from ringpost.errors import QueueDeleted, QueueNotFound, ShutDown, Stalled
from ringpost.store.later import Patience
from ringpost.threads import holding, start_thread

if TYPE_CHECKING:
    from ringpost.broker import Broker
    from ringpost.producer import Producer
    from ringpost.queue import Queue

_AT_ONCE = 0.1  # seconds: who puts in less has not waited for room


class _Answer(Future[Any]):
    """Waiting for room is part of the time that a request has."""

    def __init__(self, reply_to: str, timeout: float | None) -> None:
        super().__init__()
        self.reply_to = reply_to  # where it will come
        self._timeout = timeout
        self._patience = Patience(timeout)

    def has_been_asked_for(self) -> None:
        """If that took no time, we wait as long as the request lives: what has timed out nobody answers."""
        left = self._patience.left()
        if left is not None and self._timeout is not None and self._timeout - left < _AT_ONCE:
            self._patience = Patience(self._timeout)

    def result(self, timeout: float | None = None) -> Any:
        left = self._patience.left()
        return super().result(timeout if left is None else left)


class Replies:
    """One broker handle's side of requests: its reply queue, made on first use, and its reading thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: Queue[Any] | None = None
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, _Answer] = {}
        self._others: dict[str, Queue[Any]] = {}  # queues that we answer to

    # ---- asking --------------------------------------------------------------------------------

    def ask(
        self, queue: Queue[Any], body: object, headers: Mapping[str, Any] | None, ttl: float | None
    ) -> tuple[str, Future[Any]]:
        """Send a request; its answer will be the future's result, about `ttl` seconds from now at the latest.

        Raises Full, if there was no room all that time.
        """
        correlation_id = uuid.uuid4().hex
        reply_to = self._listen()
        future = _Answer(reply_to, ttl)
        self._waiting[correlation_id] = future
        try:
            queue.producer().send(
                body,
                headers=headers,
                ttl=ttl,
                correlation_id=correlation_id,
                reply_to=reply_to,
                timeout=ttl,
            )
        except BaseException:
            self.forget(correlation_id)
            raise
        future.has_been_asked_for()
        return correlation_id, future

    def forget(self, correlation_id: str) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(correlation_id, None)

    def _listen(self) -> str:
        if self._pid != os.getpid():  # forked: the thread and its queue are the parent's
            self._begin()
        with holding(self._lock):
            if self._queue is not None and not self._is_heard(self._queue):
                self._give_up(self._queue)
                self._queue.close()
                self._queue = None
            if self._queue is None:
                self._broker._engine.collect()
                name = uuid.uuid4().hex
                self._queue = self._broker._open_reply_queue(name, create=True)
                self._thread = threading.Thread(
                    target=self._read, args=(self._queue,), name="ringpost-replies", daemon=True
                )
                start_thread(self._thread)
            assert self._queue.name is not None
            return self._queue.name

    def _is_heard(self, queue: Queue[Any]) -> bool:
        """False: somebody has destroyed the broker, and the queue with it."""
        return self._thread is not None and self._thread.is_alive() and not queue._log.info()["deleted"]

    def _give_up(self, queue: Queue[Any]) -> None:
        """No answer comes there any more."""
        for correlation_id, future in list(self._waiting.items()):
            if future.reply_to != queue.name or self._waiting.pop(correlation_id, None) is None:
                continue
            if future.set_running_or_notify_cancel():
                future.set_exception(
                    QueueDeleted(f"the broker {self._broker.url} was destroyed before an answer came")
                )

    def _read(self, queue: Queue[Any]) -> None:
        consumer = queue.consumer(auto_ack=True)
        while True:
            try:
                message = consumer.receive()
            except Stalled:
                continue  # whoever answers was stopped in the middle of it
            except QueueDeleted:
                return self._give_up(queue)
            except (ShutDown, ValueError):
                return
            future = self._waiting.pop(message.correlation_id or "", None)
            if future is None or not future.set_running_or_notify_cancel():
                continue  # its request timed out
            try:
                body = message.body
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(body)

    # ---- answering -----------------------------------------------------------------------------

    def send(self, reply_to: str, body: object, properties: dict[str, Any]) -> None:
        """Raises QueueNotFound if whoever asked is gone."""
        queue = self.queue_of(reply_to)
        try:
            producer = queue.producer()
        except ValueError:  # another thread has found out, and closed it
            raise self._gone(reply_to) from None
        self.send_to(producer, reply_to, body, properties)

    def queue_of(self, reply_to: str) -> Queue[Any]:
        """Of somebody who asked. Raises QueueNotFound."""
        queue = self._others.get(reply_to)
        if queue is None:
            self._forget_the_gone()
            queue = self._broker._open_reply_queue(reply_to, create=False)
            self._others[reply_to] = queue
        return queue

    def send_to(
        self, producer: Producer[Any], reply_to: str, body: object, properties: dict[str, Any]
    ) -> None:
        """As send()."""
        try:
            producer.send(body, **properties)
        except (QueueDeleted, ShutDown):
            raise self._gone(reply_to) from None
        except ValueError:
            if not producer._log.closed:
                raise
            raise self._gone(reply_to) from None  # as another thread has found out

    def _gone(self, reply_to: str) -> QueueNotFound:
        self._forget_other(reply_to)
        return QueueNotFound(f"whoever asked is gone: there is no queue {reply_to!r} for answers any more")

    def _forget_other(self, name: str) -> None:
        queue = self._others.pop(name, None)
        if queue is not None:
            queue.close()

    def _forget_the_gone(self) -> None:
        """Whoever answers many must not keep the memory of those who have left."""
        for name, queue in list(self._others.items()):
            if _is_left(queue):
                self._forget_other(name)

    # ---- ending --------------------------------------------------------------------------------

    def close(self) -> None:
        if self._pid != os.getpid():
            self._let_go()
            return
        with holding(self._lock):
            queue, self._queue = self._queue, None
            thread, self._thread = self._thread, None
        for other in list(self._others.values()):
            other.close()
        self._others.clear()
        if queue is None:
            return
        queue.shutdown()
        if thread is not None and thread.is_alive():
            thread.join(5)
        assert queue.name is not None
        self._broker._engine.delete_log(Kind.REPLIES, queue.name)  # those who answered have it open still
        queue.close()
        for future in list(self._waiting.values()):
            if future.set_running_or_notify_cancel():
                future.set_exception(
                    ValueError(f"the broker {self._broker.url} was closed before an answer came")
                )
        self._waiting.clear()

    def _let_go(self) -> None:
        """In a forked child: the parent goes on with what it has."""
        handles = list(self._others.values())
        if self._queue is not None:
            handles.append(self._queue)
        self._begin()
        for queue in handles:
            queue.close()


def _is_left(queue: Queue[Any]) -> bool:
    """By whoever made it."""
    try:
        info = queue._log.info()
    except ValueError:  # closed by another thread, which has found out
        return True
    return bool(info["deleted"] or info["participants"] <= 1)  # nobody but us
