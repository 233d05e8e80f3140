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


cdef object put_records(Log log, uint8_t kind, bytes head, items, size_t item, bint block, timeout,
                        durability):
    cdef Py_buffer view
    cdef uint64_t done = 0, total
    cdef size_t head_size = PyBytes_GET_SIZE(head)
    cdef uint32_t at_once, some = 0
    cdef int64_t deadline, patience
    cdef bint full = False  # and storage makes no room: it is waited for
    cdef rp_status status
    cdef rp_frame *model
    log.check_open()
    if durability is not None:
        log.check_durability(durability)
    deadline = deadline_of(block, timeout)
    model = model_of(kind, head, item)
    at_once = max(RECORDS_AT_ONCE // rp_align(model.size), <uint64_t>1)
    try:
        PyObject_GetBuffer(items, &view, PyBUF_SIMPLE)
        try:
            total = view.len // item
            while done < total:
                patience = RP_NOW if log.is_stored and not full else deadline
                with nogil:
                    status = rp_put_records(log._log, model, head_size, <char *>view.buf + done * item,
                                            min(total - done, <uint64_t>at_once), patience, &some)
                done += some
                if (status == RP_FULL or status == RP_STALLED) and not full and log.is_stored:
                    full = status == RP_STALLED or not log.made_room()
                    continue
                full = False
                if status == RP_INTERRUPTED:
                    log.interrupted()
                    log.made_room()
                elif status != RP_OK:
                    raise log.fail(status, "put", item)
        finally:
            PyBuffer_Release(&view)
        if log.is_stored:
            log.confirm(durability, block, timeout)
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
    cdef Vain in_vain = no_vain()
    log.check_open()
    deadline = deadline_of(block, timeout)
    log.look_at_alarm()
    while True:
        with nogil:
            status = rp_peek(log._log, RP_QUEUE_GROUP, buffer, FRAME_BUFFER, deadline, &taken)
        if status == RP_COLD:
            log.note_in_vain(&in_vain, taken.cold, "get")
            status = peek_cold(log, buffer, &taken)
            if status == RP_EMPTY:
                continue
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


cdef rp_status peek_cold(Log log, char *buffer, rp_taken *taken) except *:
    """RP_EMPTY: another consumer took it."""
    cdef Py_buffer view
    cdef rp_range frames
    cdef rp_status status
    data = find_frames(log, taken.cold, &frames)
    if data is None:
        return RP_EMPTY
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    set_range(&frames, &view)
    status = rp_peek_cold(log._log, RP_QUEUE_GROUP, &frames, buffer, FRAME_BUFFER, taken)
    PyBuffer_Release(&view)
    return status


cdef rp_status take_records_cold(Log log, rp_frame *model, size_t head, char *items, uint32_t limit,
                                 rp_taken *taken) except *:
    cdef Py_buffer view
    cdef rp_range frames
    cdef rp_status status
    data = find_frames(log, taken.cold, &frames)
    if data is None:
        return RP_EMPTY
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    set_range(&frames, &view)
    status = rp_take_records_cold(log._log, RP_QUEUE_GROUP, &frames, model, head, items, limit, taken)
    PyBuffer_Release(&view)
    return status


cdef object take_records(Log log, uint8_t kind, bytes head, items, size_t item):
    """How many of the next messages are of this kind, with this head: taken, up to as many as go into `items`."""
    cdef Py_buffer view
    cdef rp_status status = RP_OK
    cdef uint32_t limit, some, count = 0
    cdef rp_taken taken
    cdef char *to
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
                to = <char *>view.buf + count * item
                with nogil:
                    status = rp_try_take_records(log._log, RP_QUEUE_GROUP, model, head_size, to,
                                                 min(some, limit - count), &taken)
                if status == RP_COLD:
                    status = take_records_cold(log, model, head_size, to, min(some, limit - count), &taken)
                count += taken.count
        finally:
            PyBuffer_Release(&view)
    finally:
        PyMem_RawFree(model)
    if count:
        log.note_settled()
    elif status != RP_OK and status != RP_NOT_FOUND and status != RP_BUSY and status != RP_EMPTY and (
            status != RP_RETURNED_FIRST):
        raise log.fail(status, "get")
    return count
