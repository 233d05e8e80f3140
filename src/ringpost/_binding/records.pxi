"""Records: items of one size and type, many a call. A part of _core.pyx."""

cdef enum:
    RECORDS_AT_ONCE = 1 << 15  # bytes of frames: several commits on the way keep both sides at work


cdef rp_frame *model_of(uint8_t kind, bytes head, size_t item) except NULL:
    """A frame without its item. To be freed."""
    cdef size_t size = sizeof(rp_frame) + PyBytes_GET_SIZE(head)
    cdef rp_frame *model
    if item == 0 or PyBytes_GET_SIZE(head) % 16 or item + PyBytes_GET_SIZE(head) > RP_INLINE_MAX:
        raise ValueError("records have 1 to 16384 bytes with their head, which has a multiple of 16")
    model = <rp_frame *>PyMem_RawMalloc(size)
    if model is NULL:
        raise MemoryError
    memset(model, 0, sizeof(rp_frame))
    model.size = size + item
    model.kind = kind
    memcpy(model + 1, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    return model


cdef object put_records(Log log, uint8_t kind, bytes head, items, size_t item, bint block, timeout):
    cdef Py_buffer view
    cdef uint64_t done = 0, total
    cdef size_t head_size = PyBytes_GET_SIZE(head)
    cdef uint32_t at_once, some = 0
    cdef int64_t deadline
    cdef rp_status status
    cdef rp_frame *model
    log.check_open()
    deadline = deadline_of(block, timeout)
    model = model_of(kind, head, item)
    at_once = max(RECORDS_AT_ONCE // rp_align(model.size), <uint64_t>1)
    try:
        PyObject_GetBuffer(items, &view, PyBUF_SIMPLE)
        try:
            total = view.len // item
            while done < total:
                with nogil:
                    status = rp_put_records(log._log, model, head_size, <char *>view.buf + done * item,
                                            min(total - done, <uint64_t>at_once), deadline, &some)
                done += some
                if status == RP_INTERRUPTED:
                    log.interrupted()
                elif status != RP_OK:
                    raise log.fail(status, "put", item)
        finally:
            PyBuffer_Release(&view)
    except BaseException as error:
        try:
            error.put = done
        except AttributeError:
            pass
        raise
    finally:
        PyMem_RawFree(model)
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
    cdef uint32_t limit, some, done = 0, count = 0
    cdef size_t head_size = PyBytes_GET_SIZE(head)
    cdef rp_frame *model
    log.check_open()
    model = model_of(kind, head, item)
    try:
        PyObject_GetBuffer(items, &view, PyBUF_WRITABLE)
        try:
            limit = min(view.len // item, <uint64_t>UINT32_MAX)
            some = max(2 * RECORDS_AT_ONCE // rp_align(model.size), <uint64_t>1)  # so that producers get room soon
            while count < limit and status == RP_OK:
                with nogil:
                    status = rp_try_take_records(log._log, RP_QUEUE_GROUP, model, head_size,
                                                 <char *>view.buf + count * item, min(some, limit - count), &done)
                count += done
        finally:
            PyBuffer_Release(&view)
    finally:
        PyMem_RawFree(model)
    if count == 0 and status != RP_OK and status != RP_NOT_FOUND and status != RP_BUSY and status != RP_EMPTY and (
            status != RP_RETURNED_FIRST):
        raise log.fail(status, "get")
    return count
