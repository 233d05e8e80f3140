"""Deliveries: messages out of a group."""

from __future__ import annotations

from collections import deque
from itertools import filterfalse, islice
from typing import TYPE_CHECKING, Any

from ringpost._binding._cffi.native import HEADER, RECEIPT, Frame, is_expired

if TYPE_CHECKING:
    from ringpost._binding._cffi.group import Group
    from ringpost._binding._cffi.place import Pin

NO_RECEIPT = RECEIPT.pack(0, 0, 0, 1)  # of what was taken for good: its first delivery


class Delivery:
    """One message out of a group. The body is decoded when it is first asked for."""

    __slots__ = (
        "__weakref__",
        "_body",
        "_frame",
        "_group",
        "_is_decoded",
        "_is_viewed",
        "_payload",
        "_receipt",
        "_subject",
        "_view",
        "holder",
        "lost",
        "raw_headers",
        "settled",
    )

    _group: Group
    _frame: Frame
    _body: Any
    _is_decoded: bool
    _is_viewed: bool
    _payload: bytes | None
    _subject: bytes | None
    _view: memoryview | None  # where the payload lies, as long as it was not copied
    raw_headers: bytes | None
    _receipt: bytes  # an rp_receipt
    lost: int
    settled: bool
    holder: Any

    def __init__(self) -> None:
        raise TypeError("messages are received, not made: see Group.receive()")

    def _fill(self, group: Group, frame: Frame, receipt: bytes) -> None:
        """All but the parts."""
        self._group = group
        self._frame = frame
        self._is_decoded = self._is_viewed = self.settled = False
        self._payload = self._view = self._subject = self.raw_headers = self.holder = None
        self._receipt = receipt
        self.lost = 0

    def _fill_parts(self, parts: Any, at: int, end: int) -> None:
        """Subject, headers and payload out of a buffer."""
        _, _, _, subject_len, _, _, headers_len, _ = self._frame
        if subject_len:
            self._subject = bytes(parts[at : at + subject_len])
            at += subject_len
        if headers_len:
            self.raw_headers = bytes(parts[at : at + headers_len])
            at += headers_len
        self._payload = parts[at:end]

    def _fill_pinned(self, pin: Pin) -> None:
        before = self._frame[3] + self._frame[6]
        if before:
            self._fill_parts(pin.view(0)[:before], 0, before)
            self._payload = None
        self._view = pin.view(before)

    # ---- what it says --------------------------------------------------------------------------

    @property
    def body(self) -> Any:
        """The object that was sent."""
        if not self._is_decoded:
            self._body = self._group.log.decode(self._frame[1], self._own_payload(), self._frame[4])
            self._is_decoded = True
        return self._body

    @property
    def payload(self) -> bytes:
        """Its bytes; a copy, if they lie in shared memory."""
        return self._own_payload()

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        if self._payload is not None:
            return len(self._payload)
        view = self._view
        return 0 if view is None else len(view)

    def view(self) -> Any:
        """The payload's buffer: in shared memory if it lies there, which then stays while the buffer does."""
        view = self._view
        if view is None:
            return self._own_payload()
        self._is_viewed = True
        return view

    def release(self) -> None:
        """Let go of a payload in shared memory; it stays for those who have a view of it."""
        self._view = None

    def _own_payload(self) -> bytes:
        view = self._view  # another thread may drop it
        payload = self._payload
        if payload is None:
            if view is None:
                raise ValueError("this message's payload was released: ask for what you need of it before")
            payload = self._payload = bytes(view)
            if not self._is_viewed:
                self._view = None
        return payload

    def _end(self) -> None:
        """Settled: who asked for a view has it."""
        self.settled = True
        if self._is_viewed:
            self._view = None

    @property
    def group(self) -> Group:
        """Where it came from."""
        return self._group

    @property
    def kind(self) -> int:
        """How the body is encoded: see codecs.py."""
        return self._frame[1]

    @property
    def subject(self) -> str:
        """What it was published under."""
        return "" if self._subject is None else self._subject.decode("utf-8", "replace")

    @property
    def raw_subject(self) -> bytes | None:
        """The same, as it travels."""
        return self._subject

    @property
    def sequence(self) -> int:
        """Its number in its log."""
        return self._frame[4]

    @property
    def time_ns(self) -> int:
        """When it was put: ns since the epoch."""
        return self._frame[5]

    @property
    def ttl_ms(self) -> int:
        """How long it is of use; 0: always."""
        return self._frame[7]

    @property
    def deliveries(self) -> int:
        """How often it was handed out."""
        return int(RECEIPT.unpack(self._receipt)[3])

    @property
    def expired(self) -> bool:
        """Is its time to live over?"""
        return is_expired(self._frame[5], self._frame[7])

    def _as_taken(self) -> tuple[Frame, bytes]:
        """See taking.py."""
        return self._frame, (self._subject or b"") + (self.raw_headers or b"") + self._own_payload()


def frame_of(
    kind: int, payload: bytes, subject: bytes | None, headers: bytes | None, sequence: int, time_ns: int
) -> Frame:
    """The header of a message that was kept elsewhere."""
    before = len(subject or b""), len(headers or b"")
    return HEADER + sum(before) + len(payload), kind, 0, before[0], sequence, time_ns, before[1], 0


# ---- hand-over: in one step, which no signal handler and no thread sees half done --------------------

_MOVED: Any = object()


class HandOver:
    """Messages on their way to `into`, a set, a deque or None."""

    def __init__(self, into: Any, holder: Any) -> None:
        self._into = into
        self._holder = holder
        self._ready: deque[Any] = deque()

    def is_done(self) -> bool:
        return bool(self._ready) and self._ready[0] is _MOVED

    def do(self, messages: list[Any]) -> list[Any]:
        into = self._into
        if self._holder is not None:
            for message in messages:
                message.holder = self._holder
        if into is not None:
            self._ready.extend((*messages, None, _MOVED))
            move = into.update if isinstance(into, set) else into.extend
            move(iter(self._ready.popleft, None))
        return messages


def move_some(source: deque[Any], to: Any, limit: int) -> None:
    """`limit` of them at most."""
    try:
        to.extend(islice(iter(source.popleft, None), limit))
    except IndexError:
        pass  # these are all


def hand_out(ahead: deque[Any], held: set[Any] | None) -> Any:
    """The next one of the deque `ahead`, put into `held`. None: there is none."""
    try:
        if held is None:
            return ahead.popleft()
        return next(filterfalse(held.add, iter(ahead.popleft, None)))
    except IndexError:
        return None


def any_ttl(messages: list[Any]) -> bool:
    """Has any of them a time to live?"""
    return any(each._frame[7] for each in messages)
