"""Payloads in place: what is written or read in shared memory itself. A part of _core.pyx."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo

cdef enum:
    LOAN_OPEN
    LOAN_COMMITTED
    LOAN_ABORTED
    LEAST_LOAN = 16385  # bytes: three granules, so that it can be pinned by its maker and its receiver


@cython.final
@cython.no_gc_clear
cdef class View:
    """A received payload where it lies: a read-only buffer. It stays as it is while this object, or what was made
    of its buffer, is there."""

    cdef Log log
    cdef rp_pin pin
    cdef size_t before  # bytes of subject and headers
    cdef bint pinned

    def __init__(self):
        raise TypeError("views are received, not made: see Delivery.view()")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <char *>self.pin.data + self.before, self.pin.length - self.before, True,
                          flags)

    def __len__(self):
        return self.pin.length - self.before

    def __dealloc__(self):
        if self.pinned:
            rp_unpin(self.log._log, &self.pin)

    cdef bytes copy(self):
        cdef size_t size = self.pin.length - self.before
        cdef bytes payload = PyBytes_FromStringAndSize(NULL, size)
        cdef char *to = PyBytes_AS_STRING(payload)
        with nogil:
            memcpy(to, <const char *>self.pin.data + self.before, size)
        return payload


@cython.final
cdef class _Parts:
    """Buffers that travel behind one another, as one body."""

    cdef Py_buffer *views
    cdef Py_ssize_t count
    cdef size_t size  # of all of them, bytes

    def __cinit__(self, tuple buffers):
        self.views = <Py_buffer *>PyMem_RawMalloc((len(buffers) + 1) * sizeof(Py_buffer))
        if self.views is NULL:
            raise MemoryError
        for buffer in buffers:
            PyObject_GetBuffer(buffer, &self.views[self.count], PyBUF_SIMPLE)
            self.size += self.views[self.count].len
            self.count += 1

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            PyBuffer_Release(&self.views[i])
        PyMem_RawFree(self.views)

    cdef void copy(self, const rp_message *message, char *to) noexcept:
        """Behind the message's subject and headers."""
        cdef Py_ssize_t i
        with nogil:
            to = copy_part(to, message.subject, message.subject_len)
            to = copy_part(to, message.headers, message.headers_len)
            for i in range(self.count):
                to = copy_part(to, self.views[i].buf, self.views[i].len)


cdef View view_of(Log log, const rp_pin *pin, const rp_frame *frame):
    cdef View view = View.__new__(View)
    view.log = log
    view.pin = pin[0]
    view.before = frame.subject_len + frame.headers_len
    view.pinned = True
    return view


@cython.final
@cython.no_gc_clear
cdef class Loan:
    """Room for one message in shared memory: a writable buffer, sent by commit(). While this object, or what was
    made of its buffer, is there, the room is used for nothing else."""

    cdef Log log
    cdef rp_loan loan
    cdef rp_pin pin
    cdef int state

    def __init__(self):
        raise TypeError("loans are borrowed, not made: see Log.borrow()")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.loan.data, self.loan.length, self.state != LOAN_OPEN, flags)

    def __dealloc__(self):
        if self.loan.data is NULL:
            return
        if self.state == LOAN_COMMITTED:
            rp_unpin(self.log._log, &self.pin)
        else:
            rp_abort(self.log._log, &self.loan)

    @property
    def open(self):
        """Neither committed nor aborted."""
        return self.state == LOAN_OPEN

    @property
    def buffer(self):
        return memoryview(self)

    def commit(self, uint8_t kind, uint16_t subject_len=0, uint32_t headers_len=0, uint32_t ttl_ms=0,
               bint block=True, timeout=None, durability=None):
        """Send it: subject, headers and body lie in it behind one another. It stays open if this raises, but for
        storage's errors, after which it is sent."""
        cdef rp_message parts
        cdef rp_status status
        cdef int64_t deadline
        self.log.check_open()
        if durability is not None:
            self.log.check_durability(durability)
        deadline = deadline_of(block, timeout)
        with cython.critical_section(self):
            if self.state != LOAN_OPEN:
                raise ValueError("this loan was committed or aborted before")
            self.state = LOAN_COMMITTED
        memset(&parts, 0, sizeof(parts))
        parts.kind = kind
        parts.subject_len = subject_len
        parts.headers_len = headers_len
        parts.ttl_ms = ttl_ms
        if rp_pin_loan(self.log._log, &self.loan, &self.pin) != RP_OK:
            self.state = LOAN_OPEN
            raise ValueError("this loan is its parent process's, or it was committed or aborted before")
        try:
            while True:
                with nogil:
                    status = rp_commit(self.log._log, &self.loan, &parts, deadline)
                if status == RP_FULL and self.log.made_room():
                    continue
                if status != RP_INTERRUPTED:
                    break
                self.log.interrupted()
                self.log.made_room()
            if status != RP_OK:
                raise self.log.fail(status, "put", self.loan.length)
        except BaseException:
            rp_unpin(self.log._log, &self.pin)
            self.state = LOAN_OPEN
            raise
        if self.log.is_stored:
            self.log.confirm(durability, block, timeout)

    def abort(self):
        """Send nothing. The room is free once nobody has a buffer of it."""
        with cython.critical_section(self):
            if self.state == LOAN_OPEN:
                self.state = LOAN_ABORTED


cdef Loan borrow(Log log, uint64_t size, int64_t deadline):
    cdef Loan loan = Loan.__new__(Loan)
    cdef rp_status status
    cdef uint64_t room = max(size, <uint64_t>LEAST_LOAN)
    loan.log = log
    while True:
        with nogil:
            status = rp_borrow(log._log, room, RP_NOW if log.is_stored else deadline, &loan.loan)
        if (status == RP_FULL or status == RP_STALLED) and log.is_stored:
            if status == RP_FULL and log.made_room():
                continue
            with nogil:
                status = rp_borrow(log._log, room, deadline, &loan.loan)
        if status != RP_INTERRUPTED:
            break
        log.interrupted()
    if status != RP_OK:
        loan.loan.data = NULL
        raise log.fail(status, "put", size)
    loan.loan.length = size
    return loan
