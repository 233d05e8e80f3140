"""Logs with storage: a part of _core.pyx. See the header, and native/src/stored.h."""

from cpython.memoryview cimport PyMemoryView_FromMemory

cdef extern from "Python.h":
    const int PyBUF_READ


# ---- reading from storage ---------------------------------------------------------------------

cdef rp_status take_cold(Log log, uint32_t group, char *buffer, size_t size, uint32_t limit,
                         rp_taken *taken) except *:
    cdef Py_buffer view
    cdef rp_range frames
    cdef rp_status status
    data = find_frames(log, taken.cold, &frames)
    if data is None:
        return RP_EMPTY
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    set_range(&frames, &view)
    status = rp_take_cold(log._log, group, &frames, buffer, size, limit, taken)
    PyBuffer_Release(&view)
    return status


cdef rp_status receive_cold(Log log, uint32_t group, char *buffer, size_t size, uint32_t limit, int64_t lease,
                            rp_receipt *receipts, rp_taken *taken) except *:
    cdef Py_buffer view
    cdef rp_range frames
    cdef rp_status status
    data = find_frames(log, taken.cold, &frames)
    if data is None:
        return RP_EMPTY
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    set_range(&frames, &view)
    status = rp_receive_cold(log._log, group, &frames, buffer, size, limit, lease, receipts, taken)
    PyBuffer_Release(&view)
    return status


cdef rp_status skip_large(Log log, uint32_t group, uint64_t sequence, int64_t deadline) except *:
    """Its payload came out of storage: take it."""
    cdef Py_buffer view
    cdef rp_range frames
    cdef rp_status status = rp_skip_large(log._log, group, sequence, NULL, deadline)
    if status != RP_COLD:
        return status
    data = find_frames_of(log, sequence, &frames)
    if data is None:
        return RP_EMPTY
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    set_range(&frames, &view)
    status = rp_skip_large(log._log, group, sequence, &frames, deadline)
    PyBuffer_Release(&view)
    return status


cdef object find_frames(Log log, uint64_t position, rp_range *frames):
    """None: another consumer took them."""
    found = log.need_storage().frames(position)
    if found is None:
        return None
    data, start = found
    memset(frames, 0, sizeof(rp_range))
    frames.position = start
    return data


cdef object find_frames_of(Log log, uint64_t sequence, rp_range *frames):
    position, _ = log.need_storage().find(sequence, 0)
    return find_frames(log, position, frames)


cdef void set_range(rp_range *frames, const Py_buffer *view) noexcept:
    frames.data = view.buf
    frames.end = frames.position + view.len


# ---- writing to storage -----------------------------------------------------------------------

@cython.final
cdef class Stored:
    """A stored log as its storage sees it. `door` is the log whose lock all writers of one storage share."""

    cdef readonly Log log
    cdef Log door

    def __cinit__(self, Log log not None, Log door not None):
        self.log = log
        self.door = door

    def entering(self, uint64_t position, timeout=None):
        """`with stored.entering(position) as lead`: True: it falls to the caller to write, and nobody else does
        meanwhile. False: everything below `position` is in storage. Raises Stalled."""
        return _Turn.__new__(_Turn, self, position, RP_NEVER if timeout is None else rp_monotonic_ns() + nanoseconds(timeout))

    def tail(self):
        return rp_tail(self.log._log)

    def durable(self):
        return rp_durable(self.log._log)

    def set_durable(self, uint64_t position):
        rp_set_durable(self.log._log, position)

    def needed(self):
        """The position below which no group needs anything; None: there is no group."""
        cdef uint64_t position = rp_needed(self.log._log)
        return None if position == <uint64_t>-1 else position

    def range(self, uint64_t position, size_t limit):
        """Frames in the ring from `position` on: (view, end, first sequence, count, how many are large). None:
        there are none. The view is good until set_durable() passes it."""
        cdef rp_range found
        cdef rp_status status = rp_stored_range(self.log._log, position, limit, &found)
        if status == RP_EMPTY:
            return None
        if status != RP_OK:
            raise self.log.fail(status, "store frames of")
        view = PyMemoryView_FromMemory(<char *>found.data, found.end - found.position, PyBUF_READ)
        return view, found.end, found.sequence, found.count, found.large

    def sequence_at(self, uint64_t position):
        """Of the frame at a position that is not below durable()."""
        cdef rp_range found
        cdef rp_status status = rp_stored_range(self.log._log, position, 0, &found)
        if status != RP_EMPTY and status != RP_TOO_SMALL:
            raise self.log.fail(status, "store frames of")
        return found.sequence

    def payloads(self, frames):
        """(sequence, view of the payload) of each large frame of a copied range. Raises CorruptLog if these are not
        frames."""
        cdef Py_buffer view
        cdef size_t at = 0
        cdef const rp_frame *frame
        cdef rp_descriptor descriptor
        cdef const void *data
        cdef list found = []
        PyObject_GetBuffer(frames, &view, PyBUF_SIMPLE)
        try:
            while at < <size_t>view.len:
                frame = frame_in(&view, at)
                if frame is NULL:
                    raise self.log.fail(RP_CORRUPT, "store frames of")
                if frame.flags & RP_FRAME_LARGE:
                    if frame.size != sizeof(rp_frame) + sizeof(rp_descriptor):
                        raise self.log.fail(RP_CORRUPT, "store frames of")
                    memcpy(&descriptor, <char *>frame + sizeof(rp_frame), sizeof(rp_descriptor))
                    data = rp_pool_data(self.log._log, &descriptor)
                    if data is NULL:
                        raise self.log.fail(RP_CORRUPT, "store frames of")
                    found.append((frame.sequence, PyMemoryView_FromMemory(<char *>data, descriptor.length, PyBUF_READ)))
                at += rp_align(frame.size)
        finally:
            PyBuffer_Release(&view)
        return found

    def copy(self, uint64_t position, size_t size):
        """Frames in the ring, copied; b"": there are none; None: the ring has lost them."""
        cdef rp_range found
        cdef char *buffer = <char *>PyMem_RawMalloc(size)
        cdef rp_status status
        if buffer is NULL:
            raise MemoryError
        try:
            status = rp_copy_frames(self.log._log, position, buffer, size, &found)
            if status == RP_COLD:
                return None
            if status != RP_OK and status != RP_EMPTY:
                raise self.log.fail(status, "read")
            return PyBytes_FromStringAndSize(buffer, found.end - position)
        finally:
            PyMem_RawFree(buffer)

    def groups(self):
        """What is to be stored of each group: a list of (name, pattern, policy, read, its sequence, acked, held)
        with `held` as bytes, sizeof(rp_held) each."""
        cdef rp_group_state state
        cdef rp_status status
        cdef uint32_t number, size = 64
        cdef int64_t deadline = rp_monotonic_ns() + PATIENCE
        cdef rp_held *held = NULL
        cdef list found = []
        cdef rp_group_info info
        try:
            for number in range(<uint32_t>MOST_GROUPS):
                if rp_get_group_info(self.log._log, number, &info) != RP_OK or info.lossy:
                    continue
                while True:
                    if held is NULL:
                        held = <rp_held *>PyMem_RawMalloc(size * sizeof(rp_held))
                        if held is NULL:
                            raise MemoryError
                    with nogil:
                        status = rp_group_export(self.log._log, info.handle, &state, held, size, deadline)
                    if status == RP_TOO_SMALL:
                        PyMem_RawFree(held)
                        held = NULL
                        size = state.held + 64
                    elif status != RP_INTERRUPTED:
                        break
                if status == RP_NOT_FOUND or (status == RP_OK and not state.stays):
                    continue
                if status != RP_OK:
                    raise self.log.fail(status, "store a group of")
                found.append((state.name[:strlen(state.name)], state.pattern[:strlen(state.pattern)],
                              state.policy, state.read, state.read_sequence, state.acked,
                              (<char *>held)[:state.held * sizeof(rp_held)]))
        finally:
            PyMem_RawFree(held)
        return found

    def restore_group(self, bytes name, bytes pattern, uint64_t policy, uint64_t read, uint64_t sequence,
                      uint64_t acked, bytes held):
        """In a log that was just made: a group as groups() gave it."""
        cdef rp_group_state state
        cdef rp_status status
        memset(&state, 0, sizeof(state))
        if len(name) >= RP_GROUP_NAME or len(pattern) >= RP_PATTERN or len(held) % sizeof(rp_held):
            raise ValueError("not a group")
        memcpy(state.name, PyBytes_AS_STRING(name), len(name))
        memcpy(state.pattern, PyBytes_AS_STRING(pattern), len(pattern))
        state.policy = policy
        state.read = read
        state.read_sequence = sequence
        state.acked = acked
        state.held = len(held) // sizeof(rp_held)
        status = rp_group_import(self.log._log, &state, <const rp_held *>PyBytes_AS_STRING(held),
                                 rp_monotonic_ns() + PATIENCE)
        if status != RP_OK:
            raise self.log.fail(status, "restore a group of")


@cython.final
@cython.no_gc
cdef class _Turn:
    """Of one writer: what Stored.entering() gives, for one `with`. In C: a signal handler may raise between any two
    steps of Python, and a door that nobody leaves is shut as long as the process lives. Where CPython lets one in
    between this and the statement's body, or its end, the statement forgets this, and that leaves, too."""

    cdef Log log
    cdef Log door
    cdef uint64_t position
    cdef int64_t deadline
    cdef c_bool lead

    def __cinit__(self, Stored stored not None, uint64_t position, int64_t deadline):
        self.log = stored.log
        self.door = stored.door
        self.position = position
        self.deadline = deadline

    def __enter__(self):
        cdef rp_status status
        if self.lead:
            raise RuntimeError("it is entered already")
        while True:
            with nogil:
                status = rp_commit_enter(self.log._log, self.door._log, self.position, self.deadline, &self.lead)
            if status != RP_INTERRUPTED:
                break
            PyErr_CheckSignals()
        if status != RP_OK:
            raise self.log.fail(status, "store what was put into")
        return self.lead

    def __exit__(self, *unused):
        self.end()

    def __dealloc__(self):
        self.end()

    cdef void end(self) noexcept:
        if self.lead:
            self.lead = False
            rp_commit_leave(self.door._log)


# ---- frames in private memory -----------------------------------------------------------------

cdef const rp_frame *frame_in(const Py_buffer *view, size_t at) noexcept:
    """NULL: there is no whole frame."""
    cdef const rp_frame *frame = <const rp_frame *>(<const char *>view.buf + at)
    cdef size_t size = view.len
    if size - at < sizeof(rp_frame) or frame.size < sizeof(rp_frame) or rp_align(frame.size) > size - at:
        return NULL
    return frame


def let_go(data not None):
    """These bytes lie in a file that is mapped: what was read of it is not to count as this process's memory.
    False: they do not."""
    cdef Py_buffer view
    cdef bint done
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    done = rp_let_go(view.buf)
    PyBuffer_Release(&view)
    return done


def frames_from_end(data, size_t count):
    """The offset of the `count`-th last frame; 0 if there are fewer. Raises ValueError: these are not frames."""
    cdef Py_buffer view
    cdef size_t at = 0, seen = 0
    cdef const rp_frame *frame
    cdef size_t[256] last
    if not 0 < count <= 256:
        raise ValueError("'count' must be 1 to 256")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        while at < <size_t>view.len:
            frame = frame_in(&view, at)
            if frame is NULL:
                raise ValueError(f"no frame at byte {at} of {view.len}")
            last[seen % count] = at
            seen += 1
            at += rp_align(frame.size)
        return last[seen % count] if seen >= count else 0
    finally:
        PyBuffer_Release(&view)


def find_frame(data, uint64_t sequence, uint64_t time_ns):
    """(offset, sequence) of the first frame with at least this sequence and time; None. Raises ValueError."""
    cdef Py_buffer view
    cdef size_t at = 0
    cdef const rp_frame *frame
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        while at < <size_t>view.len:
            frame = frame_in(&view, at)
            if frame is NULL:
                raise ValueError(f"no frame at byte {at} of {view.len}")
            if frame.sequence >= sequence and frame.time_ns >= time_ns:
                return at, frame.sequence
            at += rp_align(frame.size)
        return None
    finally:
        PyBuffer_Release(&view)
