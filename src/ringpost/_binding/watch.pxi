"""Descriptors for event loops: a part of _core.pyx.

Without a GIL each call has the object to itself, so that none uses what another thread closes.
"""


@cython.final
cdef class Watch:
    """A descriptor that is readable while a try may succeed; see rp_watch_open in ringpost.h."""

    cdef readonly Log log
    cdef rp_watch *_watch
    cdef uint32_t handle
    cdef bint frames

    def __init__(self):
        raise TypeError("watches are opened, not made: see Group.watch()")

    def __dealloc__(self):
        if self._watch is not NULL:
            rp_watch_close(self._watch)

    @cython.critical_section
    def close(self):
        if self._watch is not NULL:
            rp_watch_close(self._watch)
        self._watch = NULL

    cdef int check_open(self) except -1:
        if self._watch is NULL:
            raise ValueError(f"{self.log.label} is closed: this handle was closed before")
        return 0

    @cython.critical_section
    def fileno(self):
        self.check_open()
        return rp_watch_fd(self._watch)

    @cython.critical_section
    def clear(self):
        self.check_open()
        rp_watch_clear(self._watch)

    @cython.critical_section
    def arm(self):
        """Seconds until something is due that nobody will tell of, or None."""
        self.check_open()
        cdef int64_t due = rp_watch_arm(self._watch)
        return None if due == RP_NEVER else due / 1e9

    @cython.critical_section
    def keep(self):
        self.check_open()
        rp_watch_keep(self._watch)

    def glance(self, uint32_t spins):
        """Spin a little until there may be something."""
        self.check_open()
        return self.frames and rp_glance(self.log._log, self.handle, spins)

    @cython.critical_section
    def look(self):
        """Is a try worth it? Raises QueueDeleted."""
        self.check_open()
        if self.log.closed:
            return True
        cdef rp_status status = rp_watch_look(self._watch)
        if status == RP_DELETED:
            raise self.log.fail(status, "look at")
        return status == RP_OK


cdef Watch open_watch(Log log, rp_watched what, uint32_t handle, bint timed):
    cdef Watch watch = Watch.__new__(Watch)
    log.check_open()
    watch.log = log
    cdef rp_status status
    cdef rp_watch *opened = NULL
    with nogil:
        status = rp_watch_open(log._log, what, handle, timed, &opened)
    if status != RP_OK:
        raise log.fail(status, "watch")
    watch._watch = opened
    watch.handle = handle
    watch.frames = what == RP_WATCH_FRAMES
    return watch
