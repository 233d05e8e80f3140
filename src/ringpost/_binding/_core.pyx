"""The Cython binding of native/include/ringpost.h: see contract.py for what each name promises.

Calls first try with the GIL held, which never sleeps; only what must wait, or copies much, drops it.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport errno
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from ringpost._binding.ringpost cimport *

import os
from operator import itemgetter

from ringpost.errors import Empty, Unsupported, describe_hold, failure

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    KIND_BYTES = 0  # the two kinds that need no codec: see codecs.py
    KIND_TEXT = 1
    KIND_PICKLE_BUFFERS = 7  # is decoded where it lies
    FRAME_BUFFER = RP_INLINE_MAX + 64
    LOCK_GRACE = 1000000000  # what a call that must not wait grants a descheduled lock holder, ns
    BATCH_BUFFER = 1 << 17
    DEFAULT_BATCH = 1024
    UNKNOWN = -2  # deadline not asked for yet
    PATIENCE = 5000000000  # for a lock, where there is no timeout to go by, ns
    MOST_IN_VAIN = 10000  # tries
    MOST_GROUPS = 128
    GLANCES = 60  # spinning with the GIL held: about a microsecond

cdef struct Vain:  # tries at one place
    uint64_t place
    uint32_t count

cdef uint64_t RETURNED = <uint64_t>-1  # a place: what was given back


cdef inline Vain no_vain() noexcept:
    cdef Vain none
    none.place = 0
    none.count = 0
    return none

cdef double LONGEST_WAIT = 1e9  # seconds
cdef double STORING = 5  # seconds that the disk gets, even of those who do not wait for room

NAME = "cython"


def layout_version() -> int:
    return rp_layout_version()


def status_text(int status) -> str:
    return rp_status_text(<rp_status>status).decode()


def subject_matches(str pattern, str subject) -> bool:
    """Does a subject match a pattern with * (one word) and # (any number of words)?"""
    cdef Py_ssize_t pattern_size = 0, subject_size = 0
    cdef const char *c_pattern = PyUnicode_AsUTF8AndSize(pattern, &pattern_size)
    cdef const char *c_subject = PyUnicode_AsUTF8AndSize(subject, &subject_size)
    return rp_subject_matches(c_pattern, pattern_size, c_subject, subject_size)


cdef bytes path_bytes(str path):
    cdef bytes encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"embedded null character in the path {path!r}")
    return encoded


def is_exact(item, int depth) -> bool:
    return exact(item, depth)


cdef bint exact(item, int depth) except -1:
    cdef object kind = type(item)
    if kind is str or kind is int or kind is float or kind is bytes or kind is bool or item is None:
        return True
    if depth <= 0:
        return False
    if kind is list:
        for part in <list>item:
            if not exact(part, depth - 1):
                return False
        return True
    if kind is dict:
        for key, part in (<dict>item).items():
            if not (exact(key, depth - 1) and exact(part, depth - 1)):
                return False
        return True
    return False


def create(str path not None, str label not None, object codec, *, uint64_t capacity=0, uint64_t max_messages=0,
           uint32_t groups=0, uint32_t leases=0, bint broadcast=False, bint keep_history=False,
           bint auto_delete=False, bint levels=False, bint stored=False, bytes log_id=None,
           uint64_t first_position=0, uint64_t first_sequence=0, uint64_t first_done=0) -> Log:
    cdef rp_settings settings
    memset(&settings, 0, sizeof(settings))
    settings.broadcast = broadcast
    settings.groups = groups
    settings.leases = leases
    settings.capacity = capacity
    settings.max_messages = max_messages
    settings.keep_history = keep_history
    settings.auto_delete = auto_delete
    settings.levels = levels
    settings.stored = stored
    settings.first_position = first_position
    settings.first_sequence = first_sequence
    settings.first_done = first_done
    if log_id is not None:
        if len(log_id) != 16:
            raise ValueError("a log's id has 16 bytes")
        settings.log_id = <const uint8_t *>PyBytes_AS_STRING(log_id)
    cdef Log log = Log.__new__(Log)
    cdef bytes name = path_bytes(path)
    cdef const char *c_path = name
    cdef rp_status status
    with nogil:
        status = rp_create(c_path, &settings, &log._log)
    return opened(log, status, "create", path, label, codec, capacity)


def attach(str path not None, str label not None, object codec) -> Log:
    cdef Log log = Log.__new__(Log)
    cdef bytes name = path_bytes(path)
    cdef const char *c_path = name
    cdef rp_status status
    with nogil:
        status = rp_attach(c_path, &log._log)
    return opened(log, status, "open", path, label, codec, 0)


cdef Log opened(Log log, rp_status status, str operation, str path, str label, object codec,
                uint64_t size):
    if status != RP_OK:
        raise failure(status, operation, label, path=path, error=errno, size=size)
    log.path = path
    log.label = label
    log._codec = codec
    log.plain = getattr(codec, "plain", True)
    log.closed = False
    return log


def remove(str path not None) -> bool:
    """Delete the log's file and tell whoever is attached. False if there is none."""
    cdef bytes name = path_bytes(path)
    cdef const char *c_path = name
    cdef rp_status status
    with nogil:
        status = rp_remove(c_path)
    if status != RP_OK and status != RP_NOT_FOUND:
        raise failure(status, "delete", path, path=path, error=errno)
    return status == RP_OK


def collect(str path not None) -> bool:
    """Unlink the file if it is left over; see rp_collect."""
    cdef bytes name = path_bytes(path)
    cdef const char *c_path = name
    cdef rp_status status
    with nogil:
        status = rp_collect(c_path)
    return status == RP_OK


cdef int64_t deadline_of(bint block, object timeout) except -1:
    """As the native core wants it. Asked for once a call, so that signals do not prolong it. A call that does not
    wait grants a lock's holder so long as `timeout`, if that is a float below a second: for event loops."""
    if not block:
        if type(timeout) is float and 0 <= <double>timeout < 1:
            return -(rp_monotonic_ns() + <int64_t>(<double>timeout * 1e9))
        return -(rp_monotonic_ns() + LOCK_GRACE)
    if timeout is None:
        return RP_NEVER
    if timeout == 0:
        return deadline_of(False, None)
    return rp_monotonic_ns() + <int64_t>(min(seconds_of(timeout), LONGEST_WAIT) * 1e9)


cdef double seconds_of(object timeout) except -1:
    cdef double seconds = timeout
    if not seconds >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return seconds


cdef uint32_t batch_limit(object limit) except? 0:
    if limit < 0:
        raise ValueError("'limit' must be a non-negative number")
    return min(limit, UINT32_MAX)


@cython.final
cdef class Log:
    """One process's handle of a log. Detaches when nobody refers to it any more."""

    cdef rp_log *_log
    cdef object _codec
    cdef bint plain  # bytes and str need no codec
    cdef object __weakref__
    cdef readonly str path, label
    cdef readonly bint closed
    cdef public object on_alarm, on_empty
    cdef object _storage  # see contract.Storage; None: what the ring loses is lost
    cdef readonly bint is_stored  # it has, or had, a storage

    def __cinit__(self):
        self.closed = True

    def __init__(self):
        raise TypeError("logs are opened, not made: see create() and attach()")

    def __dealloc__(self):
        if self._log is not NULL:
            with nogil:
                rp_detach(self._log)

    def close(self):
        """Calls in flight end, later ones raise ValueError. The memory goes with the last reference."""
        if self.closed:
            return
        self.closed = True
        with cython.critical_section(self):
            self._storage = None  # which refers to this
        rp_wake_all(self._log)

    @property
    def storage(self):
        with cython.critical_section(self):
            return self._storage

    @storage.setter
    def storage(self, storage):
        with cython.critical_section(self):
            self._storage = storage
        self.is_stored = storage is not None

    cdef object need_storage(self):
        """Closed meanwhile, or none at all."""
        with cython.critical_section(self):
            storage = self._storage
        if storage is None:
            self.check_open()
            raise Unsupported(f"{self.label} is in memory: it knows no durability; use a broker with a directory")
        return storage

    def leave(self):
        with nogil:
            rp_leave(self._log)

    # ---- failing ---------------------------------------------------------------------------

    cdef object fail(self, rp_status status, str operation, uint64_t size=0):
        cdef int error = errno
        cdef int32_t holder = rp_holder() if status == RP_STALLED else 0
        cdef rp_info info
        memset(&info, 0, sizeof(info))
        if status == RP_TOO_LARGE or status == RP_FULL:
            rp_get_info(self._log, &info)
        return failure(status, operation, self.label, path=self.path, error=error, size=size,
                       most=info.max_payload, holder=(holder, rp_holder_namespace()),
                       held=self.held_back() if status == RP_FULL else "", waiting=info.ready,
                       maxsize=info.max_messages)

    cdef str held_back(self):
        """Who keeps the ring full, if it is not just the queue's consumers being behind."""
        cdef list groups = self.groups()
        if not groups or (len(groups) == 1 and not groups[0]["name"] and groups[0]["in_flight"] == 0):
            return ""
        slowest = max(groups, key=itemgetter("lag_bytes"))
        return describe_hold(slowest, group_of(self, slowest["handle"]).holdings())

    cdef int check_open(self) except -1:
        if self.closed:
            raise ValueError(f"{self.label} is closed: this handle was closed before")
        return 0

    cdef int interrupted(self) except -1:
        """Between two slices of a wait: our signals, our own close(), and what is due."""
        PyErr_CheckSignals()
        self.look_at_alarm()
        return self.check_open()

    cdef int look_at_alarm(self) except -1:
        if rp_alarm_rings(self._log) and self.on_alarm is not None:
            self.on_alarm()
        return 0

    def set_alarm(self, uint64_t when_ns):
        """From then on (ns since the epoch) calls that take messages call `on_alarm` first; 0: no more."""
        rp_set_alarm(self._log, when_ns)

    def alarm(self):
        return rp_alarm(self._log)

    # ---- several logs as one ---------------------------------------------------------------

    def levels(self):
        return rp_levels(self._log)

    def add_level(self, uint32_t level):
        rp_add_level(self._log, level)

    def listen(self):
        self.check_open()
        return rp_bell_listen(self._log)

    def wait_for_bell(self, uint32_t heard, timeout=None):
        cdef int64_t deadline = deadline_of(True, timeout)
        cdef rp_status status
        with nogil:
            status = rp_bell_wait(self._log, heard, deadline)
        self.interrupted()
        if status != RP_OK and status != RP_INTERRUPTED:
            raise self.fail(status, "receive from")

    def ring(self):
        rp_bell_ring(self._log)

    # ---- putting ---------------------------------------------------------------------------

    @cython.binding(False)  # called millions of times a second: plain C methods are called faster
    def put(self, item, bint block=True, timeout=None, *, durability=None):
        if durability is not None:
            self.check_durability(durability)
        self.put_item(item, block, timeout)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    @cython.binding(False)
    def put_nowait(self, item):
        self.put_item(item, False, None)
        if self.is_stored:
            self.confirm(None, False, None)

    cdef int check_durability(self, durability) except -1:
        if durability not in ("memory", "interval", "commit"):
            raise ValueError(f"'durability' is 'memory', 'interval' or 'commit', not {durability!r}")
        if durability != "memory":
            self.need_storage()
        return 0

    cdef int confirm(self, durability, bint block, timeout) except -1:
        """What was put is to be as durable as was asked for."""
        if not block:
            timeout = STORING
        elif timeout is not None:
            timeout = max(timeout, STORING)
        self.need_storage().after_put(durability, timeout)
        return 0

    cdef int note_settled(self) except -1:
        if not self.is_stored:
            return 0
        with cython.critical_section(self):
            storage = self._storage
        if storage is not None:
            storage.after_settle()
        return 0

    cdef bint made_room(self) except -1:
        """A full ring may be one that storage has not yet got."""
        return self.is_stored and self.need_storage().make_room()

    cdef int put_item(self, item, bint block, timeout) except -1:
        cdef Py_ssize_t size = 0
        cdef const char *data
        self.check_open()
        if timeout is not None and block:
            seconds_of(timeout)
        if self.plain and type(item) is bytes:
            self.put_buffer(KIND_BYTES, PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), None, None, 0,
                            block, timeout)
        elif self.plain and type(item) is str and (<str>item).isascii():
            data = PyUnicode_AsUTF8AndSize(item, &size)
            self.put_buffer(KIND_TEXT, data, size, None, None, 0, block, timeout)
        else:
            self.put_encoded(item, None, None, 0, block, timeout)
        return 0

    def send(self, item, bytes subject=None, bytes headers=None, uint32_t ttl_ms=0, bint block=True,
             timeout=None, durability=None):
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        if timeout is not None and block:
            seconds_of(timeout)
        if self.plain and type(item) is bytes:
            self.put_buffer(KIND_BYTES, PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), subject, headers,
                            ttl_ms, block, timeout)
        else:
            self.put_encoded(item, subject, headers, ttl_ms, block, timeout)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    def encode(self, item):
        """(kind, body) as it would travel, for send_raw()."""
        if self.plain and type(item) is bytes:
            return KIND_BYTES, item
        if self.plain and type(item) is str and (<str>item).isascii():
            return KIND_TEXT, item.encode()
        kind, buffer = self._codec.encode(item)
        return int(kind), b"".join(buffer) if type(buffer) is tuple else bytes(buffer)

    def send_raw(self, uint8_t kind, payload, bytes subject=None, bytes headers=None, uint32_t ttl_ms=0,
                 bint block=True, timeout=None, durability=None, bint beyond=False):
        """A body that was encoded before; `beyond`: also into a queue that has its maxsize."""
        cdef Py_buffer view
        cdef rp_message message
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        set_parts(&message, subject, headers, ttl_ms)
        message.kind = kind
        message.beyond = beyond
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        message.body = view.buf
        message.body_len = view.len
        try:
            self.put_message(&message, block, timeout)
        finally:
            PyBuffer_Release(&view)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    cdef int put_encoded(self, item, bytes subject, bytes headers, uint32_t ttl_ms, bint block,
                         timeout) except -1:
        cdef Py_buffer view
        kind, buffer = self._codec.encode(item)
        if type(buffer) is tuple:
            return self.put_parts(kind, buffer, subject, headers, ttl_ms, deadline_of(block, timeout))
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            self.put_buffer(kind, <const char *>view.buf, view.len, subject, headers, ttl_ms, block, timeout)
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int put_buffer(self, uint8_t kind, const char *data, size_t size, bytes subject, bytes headers,
                        uint32_t ttl_ms, bint block, timeout) except -1:
        cdef rp_message message
        set_parts(&message, subject, headers, ttl_ms)
        message.body = data
        message.body_len = size
        message.kind = kind
        return self.put_message(&message, block, timeout)

    @cython.final
    cdef int put_message(self, const rp_message *message, bint block, timeout) except -1:
        cdef rp_status status
        cdef int64_t deadline
        if message.subject_len + message.headers_len + message.body_len > RP_INLINE_MAX:
            return self.put_large(message, deadline_of(block, timeout))
        status = rp_try_put(self._log, message)
        if status == RP_OK:
            return 0
        if status == RP_FULL and self.made_room():
            status = rp_try_put(self._log, message)
        if status == RP_BUSY or (status == RP_FULL and block):
            deadline = deadline_of(block, timeout)
            while True:
                with nogil:
                    status = rp_put(self._log, message, deadline)
                if status != RP_INTERRUPTED:
                    break
                self.interrupted()
                self.made_room()
        if status != RP_OK:
            raise self.fail(status, "put", message.body_len)
        return 0

    cdef int put_parts(self, uint8_t kind, tuple buffers, bytes subject, bytes headers, uint32_t ttl_ms,
                       int64_t deadline) except -1:
        cdef _Parts parts = _Parts.__new__(_Parts, buffers)
        cdef rp_message message
        set_parts(&message, subject, headers, ttl_ms)
        message.body = NULL
        message.body_len = parts.size
        message.kind = kind
        return self.put_large(&message, deadline, parts)

    cdef int put_large(self, const rp_message *message, int64_t deadline, _Parts parts=None) except -1:
        """The body is the message's own, or `parts`."""
        cdef rp_loan loan
        cdef rp_status status
        cdef size_t size = message.subject_len + message.headers_len + message.body_len
        while True:
            with nogil:
                status = rp_borrow(self._log, size, RP_NOW if self.is_stored else deadline, &loan)
            if (status == RP_FULL or status == RP_STALLED) and self.is_stored:
                if status == RP_FULL and self.made_room():
                    continue
                with nogil:
                    status = rp_borrow(self._log, size, deadline, &loan)
            if status != RP_INTERRUPTED:
                break
            self.interrupted()
        if status != RP_OK:
            raise self.fail(status, "put", size)
        try:
            if parts is None:
                with nogil:
                    copy_parts(<char *>loan.data, message)
            else:
                parts.copy(message, <char *>loan.data)
            while True:
                with nogil:
                    status = rp_commit(self._log, &loan, message, deadline)
                if status == RP_FULL and self.made_room():
                    continue
                if status != RP_INTERRUPTED:
                    break
                self.interrupted()
                self.made_room()
            if status != RP_OK:
                raise self.fail(status, "put", size)
        except BaseException:
            rp_abort(self._log, &loan)
            raise
        return 0

    def borrow(self, uint64_t size, bint block=True, timeout=None):
        self.check_open()
        return borrow(self, size, deadline_of(block, timeout))

    def commit(self, Loan loan not None, uint8_t kind, uint16_t subject_len=0, uint32_t headers_len=0,
               uint32_t ttl_ms=0, bint block=True, timeout=None, durability=None):
        loan.commit(kind, subject_len, headers_len, ttl_ms, block, timeout, durability)

    def put_records(self, uint8_t kind, bytes head not None, items, size_t item, bint block=True, timeout=None,
                    durability=None):
        return put_records(self, kind, head, items, item, block, timeout, durability)

    def peek(self, bint block=True, timeout=None):
        return peek(self, block, timeout)

    def take_records(self, uint8_t kind, bytes head not None, items, size_t item):
        return take_records(self, kind, head, items, item)

    def flush(self, timeout=None):
        """Wait until storage, if there is any, has everything that was put."""
        self.check_open()
        if self.is_stored:
            self.need_storage().flush(timeout)

    def put_many(self, items, bint block=True, timeout=None, *, durability=None):
        return self.put_all(items, False, block, timeout, durability)

    def send_many(self, items, bint block=True, timeout=None, durability=None):
        return self.put_all(items, True, block, timeout, durability)

    cdef object put_all(self, items, bint with_parts, bint block, timeout, durability):
        """Items, or tuples (item, subject, headers, ttl_ms)."""
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        cdef _Batch batch = _Batch.__new__(_Batch, self, block, timeout)
        try:
            if with_parts:
                for item, subject, headers, ttl_ms in items:
                    batch.add(item, subject, headers, ttl_ms)
            else:
                for item in items:
                    batch.add(item, None, None, 0)
            batch.flush()
            if self.is_stored:
                self.confirm(durability, block, timeout)
        except BaseException as error:
            try:
                error.put = batch.done
            except AttributeError:
                pass
            raise
        return batch.done

    # ---- taking ----------------------------------------------------------------------------

    @cython.binding(False)
    def get(self, bint block=True, timeout=None):
        if self.is_stored:
            return self.take_stored_item(block, timeout)
        return self.take_item(block, timeout, True)

    @cython.binding(False)
    def get_nowait(self):
        return self.take_stored_item(False, None) if self.is_stored else self.take_item(False, None, True)

    cdef object take_stored_item(self, bint block, timeout):
        item = self.take_item(block, timeout, True)
        self.note_settled()
        return item

    cdef object take_item(self, bint block, timeout, bint may_try_again):
        cdef char buffer[FRAME_BUFFER]
        cdef rp_taken taken
        cdef rp_status status
        cdef Vain in_vain = no_vain()
        cdef int64_t deadline = UNKNOWN
        self.check_open()
        if timeout is not None and block:
            seconds_of(timeout)
        self.look_at_alarm()
        while True:
            status = self.try_take(RP_QUEUE_GROUP, buffer, FRAME_BUFFER, 1, &taken)
            if status == RP_EMPTY and block and rp_glance(self._log, RP_QUEUE_GROUP, GLANCES):
                status = self.try_take(RP_QUEUE_GROUP, buffer, FRAME_BUFFER, 1, &taken)
            if status == RP_OK:
                if is_of_use(self, <rp_frame *>buffer):
                    return self.decode(<rp_frame *>buffer)
                continue
            if status == RP_RETURNED_FIRST:
                returned = self.take_returned(1)
                if returned and not returned[0].expired:
                    return (<Delivery>returned[0]).decode_in_place()
                if returned:
                    in_vain = no_vain()
                else:
                    self.note_in_vain(&in_vain, RETURNED, "get")
                continue
            if deadline == UNKNOWN:
                deadline = deadline_of(block, timeout)
            if status == RP_EMPTY:
                in_vain = no_vain()
            if status == RP_BUSY or (status == RP_EMPTY and block):
                status = self.wait_for_frames(buffer, FRAME_BUFFER, 1, deadline, &taken)
            if status == RP_OK:
                if is_of_use(self, <rp_frame *>buffer):
                    return self.decode(<rp_frame *>buffer)
                continue
            if status == RP_RETURNED_FIRST:
                continue
            if status == RP_EMPTY and may_try_again and self.on_empty is not None:
                return self.take_after_all()
            if status != RP_LARGE:
                raise self.fail(status, "get")
            if taken.frame.kind == KIND_PICKLE_BUFFERS:
                message = self.group().take_large_message(&taken, deadline, Delivery)
                if message is not None and is_of_use(self, &taken.frame):
                    return (<Delivery>message).decode_in_place()
                self.note_in_vain(&in_vain, taken.frame.sequence, "get")
                continue
            large = self.take_large(&taken, deadline, &status)
            if status == RP_OK:
                if is_of_use(self, &taken.frame):
                    return self.decode_large(&taken.frame, large)
                continue
            if status != RP_EMPTY and status != RP_RETURNED_FIRST:
                raise self.fail(status, "get")
            self.note_in_vain(&in_vain, taken.frame.sequence, "get")

    cdef object take_after_all(self):
        found = self.on_empty()
        item = self.take_item(False, None, False)
        if found is not None:
            found()
        return item

    def get_many(self, limit=None, bint block=True, timeout=None):
        cdef char *buffer
        cdef rp_taken taken
        cdef rp_status status
        cdef int64_t deadline
        cdef list items = []
        cdef list errors = []
        cdef uint32_t most = DEFAULT_BATCH if limit is None else batch_limit(limit)
        cdef Vain in_vain = no_vain()
        self.check_open()
        deadline = deadline_of(block, timeout)
        if most == 0:
            return items
        self.look_at_alarm()
        buffer = <char *>PyMem_RawMalloc(BATCH_BUFFER)
        if buffer is NULL:
            raise MemoryError
        try:
            while <uint32_t>(len(items) + len(errors)) < most:
                status = self.try_take(RP_QUEUE_GROUP, buffer, BATCH_BUFFER,
                                       most - <uint32_t>(len(items) + len(errors)), &taken)
                if status != RP_OK and status != RP_LARGE and (items or errors):
                    break  # what came is worth more than waiting; the next call sees the status
                if status == RP_EMPTY:
                    in_vain = no_vain()
                if status == RP_BUSY or (status == RP_EMPTY and block):
                    status = self.wait_for_frames(buffer, BATCH_BUFFER, most, deadline, &taken)
                if status == RP_OK:
                    self.decode_all(buffer, taken.count, items, errors)
                    continue
                if items or errors:
                    break  # a large one can fail: it gets a call of its own
                if status == RP_RETURNED_FIRST:
                    returned = self.take_returned(most)
                    if not returned:
                        self.note_in_vain(&in_vain, RETURNED, "get")
                    for delivery in returned:
                        self.decode_delivery_into(delivery, items, errors)
                    continue
                if status == RP_LARGE and taken.frame.kind == KIND_PICKLE_BUFFERS:
                    message = self.group().take_large_message(&taken, deadline, Delivery)
                    if message is not None and is_of_use(self, &taken.frame):
                        self.decode_delivery_into(message, items, errors)
                    self.note_in_vain(&in_vain, taken.frame.sequence, "get")
                    continue
                if status == RP_LARGE:
                    large = self.take_large(&taken, deadline, &status)
                    if status == RP_OK:
                        self.decode_large_into(&taken.frame, large, items, errors)
                    if status == RP_OK or status == RP_EMPTY or status == RP_RETURNED_FIRST:
                        self.note_in_vain(&in_vain, taken.frame.sequence, "get")
                        continue
                raise self.fail(status, "get")
        finally:
            PyMem_RawFree(buffer)
        self.note_settled()
        if errors:
            errors[0].items = items
            errors[0].more = errors[1:]
            raise errors[0]
        return items

    cdef rp_status wait_for_frames(self, char *buffer, size_t size, uint32_t limit,
                                   int64_t deadline, rp_taken *taken) except *:
        cdef rp_status status
        cdef Vain in_vain = no_vain()
        while True:
            with nogil:
                status = rp_take(self._log, RP_QUEUE_GROUP, buffer, size, limit, deadline, taken)
            if status == RP_COLD:
                self.note_in_vain(&in_vain, taken.cold, "get")
                status = self.try_take(RP_QUEUE_GROUP, buffer, size, limit, taken)
                if status == RP_BUSY or (status == RP_EMPTY and deadline > RP_NOW):
                    continue
            if status != RP_INTERRUPTED:
                return status
            self.interrupted()

    cdef rp_status try_take(self, uint32_t group, char *buffer, size_t size, uint32_t limit,
                            rp_taken *taken) except *:
        """rp_try_take(), out of storage too."""
        cdef rp_status status = rp_try_take(self._log, group, buffer, size, limit, taken)
        cdef Vain in_vain = no_vain()
        while status == RP_COLD:
            self.note_in_vain(&in_vain, taken.cold, "get")
            status = take_cold(self, group, buffer, size, limit, taken)
            if status == RP_EMPTY:
                status = rp_try_take(self._log, group, buffer, size, limit, taken)
        return status

    cdef bytes take_large(self, rp_taken *taken, int64_t deadline, rp_status *status):
        """The payload of the large message that was announced, if `status` is RP_OK. RP_EMPTY: another
        consumer took it."""
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, taken.length)
        while True:
            data = PyBytes_AS_STRING(payload)
            with nogil:
                status[0] = rp_take_large(self._log, RP_QUEUE_GROUP, taken.frame.sequence, taken.length,
                                          NULL, 0, data, deadline)
            if status[0] == RP_COLD:
                payload = self.need_storage().payload(taken.frame.sequence, taken.length)
                if payload is None:
                    status[0] = RP_EMPTY
                else:
                    status[0] = skip_large(self, RP_QUEUE_GROUP, taken.frame.sequence, deadline)
            if status[0] != RP_INTERRUPTED:
                return payload
            self.interrupted()

    cdef int note_in_vain(self, Vain *tries, uint64_t place, str operation) except -1:
        """Another consumer was faster. So often at one place, without a wait, it is not: what lies there is
        nonsense."""
        if place != tries.place:
            tries.place = place
            tries.count = 0
        tries.count += 1
        if tries.count > MOST_IN_VAIN:
            raise self.fail(RP_CORRUPT, operation)
        PyErr_CheckSignals()
        return 0

    cdef list take_returned(self, uint32_t limit):
        """What was given back, taken for good. Empty if another consumer was faster."""
        cdef Group group = self.group()
        try:
            deliveries = group.receive(limit, 0, False)
        except Empty:
            return []
        group.settle(deliveries)
        return deliveries

    # ---- decoding --------------------------------------------------------------------------

    cdef object decode(self, rp_frame *frame):
        cdef size_t before = sizeof(rp_frame) + frame.subject_len + frame.headers_len
        cdef char *body = <char *>frame + before
        cdef Py_ssize_t size = frame.size - before
        if self.plain and frame.kind == KIND_BYTES:
            return PyBytes_FromStringAndSize(body, size)
        if self.plain and frame.kind == KIND_TEXT:
            try:
                return PyUnicode_DecodeUTF8(body, size, NULL)
            except UnicodeDecodeError:
                pass  # the codec says it better
        return self._codec.decode(frame.kind, PyBytes_FromStringAndSize(body, size), frame.sequence)

    cdef object decode_large(self, rp_frame *frame, bytes payload):
        cdef size_t before = frame.subject_len + frame.headers_len
        return decode_body(self, frame.kind, payload[before:] if before else payload, frame.sequence)

    cdef int decode_delivery_into(self, Delivery delivery, list items, list errors) except -1:
        try:
            if not delivery.expired:
                items.append(delivery.decode_in_place())
        except ValueError as error:
            if not hasattr(error, "payload"):
                raise
            errors.append(error)
        return 0

    cdef int decode_large_into(self, rp_frame *frame, bytes payload, list items, list errors) except -1:
        try:
            if is_of_use(self, frame):
                items.append(self.decode_large(frame, payload))
        except ValueError as error:
            if not hasattr(error, "payload"):
                raise
            errors.append(error)
        return 0

    cdef int decode_all(self, char *frames, uint32_t count, list items, list errors) except -1:
        """One that cannot be decoded takes no other with it, nor does a signal while one is decoded."""
        cdef rp_frame *frame
        cdef uint32_t i
        for i in range(count):
            frame = <rp_frame *>frames
            try:
                if is_of_use(self, frame):
                    items.append(self.decode(frame))
            except BaseException as error:
                if isinstance(error, ValueError) and hasattr(error, "payload"):
                    errors.append(error)
                else:
                    error.items = items
                    error.payloads = payloads_of(frames, count - i)
                    raise
            frames += rp_align(frame.size)
        return 0

    # ---- groups ----------------------------------------------------------------------------

    cpdef Group group(self):
        """The group that every log has: the queue's consumers."""
        return group_of(self, RP_QUEUE_GROUP)

    def open_group(self, str name, str pattern="", *, uint64_t policy=0, bint from_start=False,
                   bint lossy=False, bint ends_with_us=False, start=None):
        cdef rp_group_settings settings
        cdef bytes c_name = name.encode()
        cdef bytes c_pattern = pattern.encode()
        self.check_open()
        settings.pattern = c_pattern
        settings.policy = policy
        settings.from_start = from_start
        settings.lossy = lossy
        settings.ends_with_us = ends_with_us
        if from_start and start is None and self.is_stored:
            with self.need_storage().keeping_first() as first:
                return self.open_group_at(c_name, &settings, first)
        return self.open_group_at(c_name, &settings, start)

    cdef tuple open_group_at(self, bytes name, rp_group_settings *settings, start):
        cdef const char *name_text = name
        cdef uint32_t handle = 0
        cdef c_bool made = False
        cdef rp_status status
        cdef int64_t deadline = rp_monotonic_ns() + PATIENCE
        settings.placed = start is not None
        settings.position, settings.sequence = start or (0, 0)
        while True:
            with nogil:
                status = rp_group_open(self._log, name_text, settings, deadline, &handle, &made)
            if status != RP_INTERRUPTED:
                break
            self.interrupted()
        if status != RP_OK:
            raise self.fail(status, "subscribe to")
        return group_of(self, handle), made

    def groups(self):
        """Information on each open group, group 0 first."""
        cdef rp_group_info info
        cdef uint32_t number
        cdef list found = []
        self.check_open()
        for number in range(<uint32_t>MOST_GROUPS):
            if rp_get_group_info(self._log, number, &info) == RP_OK:
                found.append(group_fields(&info))
        return found

    # ---- descriptors -----------------------------------------------------------------------

    def watch_space(self, bint timed=False):
        return open_watch(self, RP_WATCH_SPACE, 0, timed)

    def watch_bell(self, bint timed=False):
        return open_watch(self, RP_WATCH_BELL, 0, timed)

    def watch_join(self, bint timed=False):
        return open_watch(self, RP_WATCH_JOIN, 0, timed)

    # ---- control ---------------------------------------------------------------------------

    def size(self):
        cdef uint64_t count = 0
        self.check_open()
        cdef rp_status status = rp_ready(self._log, &count)
        if status != RP_OK:
            raise self.fail(status, "look at")
        return count

    def full(self):
        cdef c_bool answer = False
        self.check_open()
        cdef rp_status status = rp_is_full(self._log, &answer)
        if status != RP_OK:
            raise self.fail(status, "look at")
        return answer

    def info(self):
        cdef rp_info info
        self.check_open()
        cdef rp_status status = rp_get_info(self._log, &info)
        if status != RP_OK:
            raise self.fail(status, "look at")
        cdef dict fields = info
        fields["log_id"] = PyBytes_FromStringAndSize(<char *>info.log_id, 16)
        return fields

    def task_done(self):
        self.check_open()
        cdef rp_status status = rp_task_done(self._log)
        if status == RP_TOO_MANY:
            raise ValueError("task_done() called too many times")
        if status != RP_OK:
            raise self.fail(status, "call task_done() on")

    def join(self, timeout=None):
        cdef rp_status status
        self.check_open()
        cdef int64_t deadline = deadline_of(True, timeout)
        while True:
            with nogil:
                status = rp_join(self._log, deadline)
            if status == RP_OK:
                return
            if status == RP_EMPTY:
                raise TimeoutError(f"{self.label}: tasks were still unfinished after {timeout} s")
            if status != RP_INTERRUPTED:
                raise self.fail(status, "join")
            self.interrupted()

    def shutdown(self, bint immediate=False):
        cdef rp_status status
        cdef int64_t deadline = rp_monotonic_ns() + PATIENCE
        self.check_open()
        while True:
            with nogil:
                status = rp_shut_down(self._log, immediate, deadline)
            if status == RP_OK:
                return
            if status != RP_INTERRUPTED:
                raise self.fail(status, "shut down")
            self.interrupted()


cdef object decode_body(Log log, uint8_t kind, bytes body, uint64_t sequence):
    """The two kinds that most codecs take are decoded here, as they are encoded here."""
    if log.plain and kind == KIND_BYTES:
        return body
    if log.plain and kind == KIND_TEXT:
        try:
            return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), NULL)
        except UnicodeDecodeError:
            pass  # the codec says it better
    return log._codec.decode(kind, body, sequence)


cdef list payloads_of(char *frames, uint32_t count):
    cdef rp_frame *frame
    cdef size_t before
    cdef list payloads = []
    for _ in range(count):
        frame = <rp_frame *>frames
        before = sizeof(rp_frame) + frame.subject_len + frame.headers_len
        payloads.append(PyBytes_FromStringAndSize(frames + before, frame.size - before))
        frames += rp_align(frame.size)
    return payloads


cdef bint is_expired(uint64_t time_ns, uint32_t ttl_ms) noexcept:
    cdef timespec now
    if ttl_ms == 0:
        return False
    clock_gettime(CLOCK_REALTIME, &now)
    return <uint64_t>now.tv_sec * 1000000000 + now.tv_nsec > time_ns + <uint64_t>ttl_ms * 1000000


cdef bint is_of_use(Log log, const rp_frame *frame) noexcept:
    """False, and counted, if nobody wants it any more."""
    if not is_expired(frame.time_ns, frame.ttl_ms):
        return True
    rp_count(log._log, RP_QUEUE_GROUP, RP_COUNT_EXPIRED, 1)
    return False


cdef void set_parts(rp_message *message, bytes subject, bytes headers, uint32_t ttl_ms) noexcept:
    message.subject_len = message.headers_len = 0
    message.subject = message.headers = NULL
    message.ttl_ms = ttl_ms
    message.beyond = False
    if subject is not None:
        message.subject = PyBytes_AS_STRING(subject)
        message.subject_len = PyBytes_GET_SIZE(subject)
    if headers is not None:
        message.headers = PyBytes_AS_STRING(headers)
        message.headers_len = PyBytes_GET_SIZE(headers)


cdef inline char *copy_part(char *to, const void *part, size_t length) noexcept nogil:
    if length:  # else `part` may be NULL, which memcpy must not be given
        memcpy(to, part, length)
    return to + length


cdef void copy_parts(char *to, const rp_message *message) noexcept nogil:
    """Subject, headers and body behind one another."""
    to = copy_part(to, message.subject, message.subject_len)
    to = copy_part(to, message.headers, message.headers_len)
    copy_part(to, message.body, message.body_len)


include "stored.pxi"
include "managing.pxi"
include "place.pxi"
include "group.pxi"
include "records.pxi"
include "watch.pxi"


@cython.final
cdef class _Batch:
    """Prepared frames in private memory, on their way to the log."""

    cdef Log log
    cdef bint block
    cdef object timeout
    cdef int64_t deadline
    cdef char *frames
    cdef size_t used
    cdef uint32_t count
    cdef readonly uint64_t done

    def __cinit__(self, Log log, bint block, timeout):
        self.log = log
        self.block = block
        self.timeout = timeout
        self.deadline = deadline_of(block, timeout)
        self.frames = <char *>PyMem_RawMalloc(BATCH_BUFFER)
        if self.frames is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.frames)

    cdef int add(self, item, bytes subject, bytes headers, uint32_t ttl_ms) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t size = 0
        cdef const char *data
        if self.log.plain and type(item) is bytes:
            return self.add_buffer(KIND_BYTES, PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item), subject,
                                   headers, ttl_ms)
        if self.log.plain and type(item) is str and (<str>item).isascii():
            data = PyUnicode_AsUTF8AndSize(item, &size)
            return self.add_buffer(KIND_TEXT, data, size, subject, headers, ttl_ms)
        kind, buffer = self.log._codec.encode(item)
        if type(buffer) is tuple:
            self.flush()
            self.log.put_parts(kind, buffer, subject, headers, ttl_ms, self.deadline)
            self.done += 1
            return 0
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            return self.add_buffer(kind, <const char *>view.buf, view.len, subject, headers, ttl_ms)
        finally:
            PyBuffer_Release(&view)

    cdef int add_buffer(self, uint8_t kind, const char *data, size_t size, bytes subject,
                        bytes headers, uint32_t ttl_ms) except -1:
        cdef rp_frame *frame
        cdef rp_message message
        cdef size_t payload, span
        set_parts(&message, subject, headers, ttl_ms)
        message.body = data
        message.body_len = size
        message.kind = kind
        payload = message.subject_len + message.headers_len + size
        span = rp_align(sizeof(rp_frame) + payload)
        if payload > RP_INLINE_MAX:
            self.flush()
            self.log.put_large(&message, self.deadline)
            self.done += 1
            return 0
        if self.used + span > BATCH_BUFFER:
            self.flush()
        frame = <rp_frame *>(self.frames + self.used)
        memset(frame, 0, sizeof(rp_frame))
        frame.size = sizeof(rp_frame) + payload
        frame.kind = kind
        frame.subject_len = message.subject_len
        frame.headers_len = message.headers_len
        frame.ttl_ms = ttl_ms
        copy_parts(<char *>frame + sizeof(rp_frame), &message)
        self.used += span
        self.count += 1
        return 0

    cdef int flush(self) except -1:
        cdef char *at = self.frames
        cdef uint32_t done
        cdef size_t done_bytes
        cdef rp_status status
        if self.deadline <= RP_NOW:
            self.deadline = deadline_of(False, self.timeout)  # the items may have taken their time
        while self.count:
            status = rp_try_put_frames(self.log._log, at, self.used, self.count, &done, &done_bytes)
            if status == RP_FULL and self.log.made_room():
                continue
            while status == RP_BUSY or status == RP_INTERRUPTED or (
                    status == RP_FULL and self.deadline > RP_NOW):
                if status == RP_INTERRUPTED:
                    self.log.interrupted()
                    self.log.made_room()
                with nogil:
                    status = rp_put_frames(self.log._log, at, self.used, self.count, self.deadline,
                                           &done, &done_bytes)
                if status == RP_FULL:
                    break
            if status != RP_OK:
                raise self.log.fail(status, "put")
            at += done_bytes
            self.used -= done_bytes
            self.count -= done
            self.done += done
        self.used = 0
        return 0
