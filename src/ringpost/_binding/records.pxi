"""Records: items of one size and type, many a call. A part of _core.pyx."""

cdef enum:
    RECORDS_AT_ONCE = 1 << 16  # bytes of frames: several commits on the way keep both sides at work


cdef class _Records:
    """Prepared frames in private memory, all but their items."""

    cdef Log log
    cdef char *frames
    cdef size_t span, item, at  # bytes of a frame, of an item; where in the frame an item lies
    cdef uint32_t most

    def __cinit__(self, Log log, uint8_t kind, bytes head, size_t item):
        cdef rp_frame *frame
        cdef size_t size = sizeof(rp_frame) + PyBytes_GET_SIZE(head) + item
        cdef uint32_t i
        self.log = log
        self.span = rp_align(size)
        self.item = item
        self.at = sizeof(rp_frame) + PyBytes_GET_SIZE(head)
        self.most = max(<size_t>RECORDS_AT_ONCE // self.span, <size_t>1)
        self.frames = <char *>PyMem_RawMalloc(self.most * self.span)
        if self.frames is NULL:
            raise MemoryError
        memset(self.frames, 0, self.most * self.span)
        for i in range(self.most):
            frame = <rp_frame *>(self.frames + i * self.span)
            frame.size = size
            frame.kind = kind
            memcpy(frame + 1, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))

    def __dealloc__(self):
        PyMem_RawFree(self.frames)

    cdef void fill(self, const char *items, uint32_t count) noexcept nogil:
        cdef uint32_t i
        cdef char *to = self.frames + self.at
        if self.item == 32:  # of a size that the compiler knows
            for i in range(count):
                memcpy(to, items, 32)
                to += self.span
                items += 32
            return
        for i in range(count):
            memcpy(to, items, self.item)
            to += self.span
            items += self.item

    cdef int put(self, uint32_t count, int64_t deadline, uint64_t *put) except -1:
        cdef char *at = self.frames
        cdef size_t left = count * self.span, done_bytes = 0
        cdef uint32_t done = 0
        cdef rp_status status
        while count:
            with nogil:
                status = rp_put_frames(self.log._log, at, left, count, deadline, &done, &done_bytes)
            if status == RP_INTERRUPTED:
                self.log.interrupted()
                continue
            if status != RP_OK:
                raise self.log.fail(status, "put", self.item)
            at += done_bytes
            left -= done_bytes
            count -= done
            put[0] += done
        return 0


cdef object put_records(Log log, uint8_t kind, bytes head, items, size_t item, bint block, timeout):
    cdef Py_buffer view
    cdef uint64_t done = 0, total, at = 0
    cdef uint32_t some
    cdef int64_t deadline = deadline_of(block, timeout)
    cdef const char *data
    cdef _Records records
    log.check_open()
    if item == 0 or PyBytes_GET_SIZE(head) % 16 or item + PyBytes_GET_SIZE(head) > RP_INLINE_MAX:
        raise ValueError("records have 1 to 16384 bytes with their head, which has a multiple of 16")
    records = _Records(log, kind, head, item)
    PyObject_GetBuffer(items, &view, PyBUF_SIMPLE)
    try:
        total = view.len // item
        data = <const char *>view.buf
        while at < total:
            some = min(total - at, <uint64_t>records.most)
            with nogil:
                records.fill(data + at * item, some)
            records.put(some, deadline, &done)
            at += some
    except BaseException as error:
        try:
            error.put = done
        except AttributeError:
            pass
        raise
    finally:
        PyBuffer_Release(&view)
    return done


cdef object peek(Log log, bint block, timeout):
    """(kind, payload, at most how many like it) of the next message, which stays. None: a large one, or one that was
    given back."""
    cdef char buffer[FRAME_BUFFER]
    cdef rp_taken taken
    cdef rp_frame *frame = <rp_frame *>buffer
    cdef rp_status status
    cdef size_t before
    cdef int64_t deadline
    log.check_open()
    deadline = deadline_of(block, timeout)
    log.look_at_alarm()
    while True:
        with nogil:
            status = rp_peek(log._log, RP_QUEUE_GROUP, buffer, FRAME_BUFFER, deadline, &taken)
        if status != RP_INTERRUPTED:
            break
        log.interrupted()
    if status == RP_LARGE or status == RP_RETURNED_FIRST:
        return None
    if status != RP_OK:
        raise log.fail(status, "get")
    before = sizeof(rp_frame) + frame.subject_len + frame.headers_len
    payload = PyBytes_FromStringAndSize(buffer + before, frame.size - before)
    return frame.kind, payload, taken.length // rp_align(frame.size)


cdef object take_records(Log log, uint8_t kind, bytes head, items, size_t item):
    """How many of the next messages are of this kind, with this head: taken, up to as many as go into `items`."""
    cdef Py_buffer view
    cdef rp_status status = RP_OK
    cdef uint32_t limit, count = 0
    cdef size_t head_size = PyBytes_GET_SIZE(head)
    cdef rp_frame *model
    log.check_open()
    model = <rp_frame *>PyMem_RawMalloc(sizeof(rp_frame) + head_size)
    if model is NULL:
        raise MemoryError
    try:
        memset(model, 0, sizeof(rp_frame))
        model.size = sizeof(rp_frame) + head_size + item
        model.kind = kind
        memcpy(model + 1, PyBytes_AS_STRING(head), head_size)
        PyObject_GetBuffer(items, &view, PyBUF_WRITABLE)
        try:
            limit = min(view.len // item, <uint64_t>UINT32_MAX)
            with nogil:
                status = rp_try_take_records(log._log, RP_QUEUE_GROUP, model, head_size, view.buf, limit, &count)
        finally:
            PyBuffer_Release(&view)
    finally:
        PyMem_RawFree(model)
    if status != RP_OK and status != RP_NOT_FOUND and status != RP_BUSY and status != RP_EMPTY and (
            status != RP_RETURNED_FIRST):
        raise log.fail(status, "get")
    return count
