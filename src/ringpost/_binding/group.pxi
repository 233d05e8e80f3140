"""Groups and what they deliver: a part of _core.pyx."""


cdef class Delivery:
    """One message out of a group. The body is decoded when it is first asked for."""

    def __init__(self):
        raise TypeError("messages are received, not made: see Group.receive()")

    cdef Group _group
    cdef object _body
    cdef bytes _payload
    cdef bytes _subject
    cdef rp_receipt _receipt
    cdef uint8_t _kind
    cdef bint _decoded
    cdef bint _viewed
    cdef View _view  # where the payload lies, as long as it was not copied
    cdef readonly bytes raw_headers
    cdef readonly uint64_t sequence
    cdef readonly uint64_t time_ns
    cdef readonly uint32_t ttl_ms
    cdef readonly uint64_t lost
    cdef public bint settled
    cdef public object holder
    cdef object __weakref__

    @property
    def body(self):
        with cython.critical_section(self):
            if self._decoded:
                return self._body
        if self._group is None:
            raise ValueError("this message was not received")
        body = decode_body(self._group.log, self._kind, self.own_payload(), self.sequence)
        with cython.critical_section(self):
            if not self._decoded:  # by another thread, meanwhile
                self._body = body
                self._decoded = True
            return self._body

    @property
    def payload(self):
        return self.own_payload()

    @property
    def size(self):
        cdef View view = self.current_view()
        if self._payload is not None:
            return len(self._payload)
        return 0 if view is None else len(view)

    def view(self):
        """The payload's buffer: in shared memory if it lies there, which then stays as it is while the buffer does."""
        cdef View view = self.current_view()
        if view is None:
            return self.own_payload()
        self._viewed = True
        return view

    def release(self):
        """Let go of a payload in shared memory; it stays for those who have a view of it."""
        self.drop_view()

    cdef View current_view(self):
        with cython.critical_section(self):
            return self._view

    cdef int drop_view(self) except -1:
        with cython.critical_section(self):
            self._view = None
        return 0

    cdef object decode_in_place(self):
        """For who lets go of the message right then."""
        cdef View view = self.current_view()
        if view is None or self._kind != KIND_PICKLE_BUFFERS:
            return self.body
        return self._group.log._codec.decode(self._kind, view, self.sequence)

    cdef bytes own_payload(self):
        cdef View view = self.current_view()  # another thread may drop it
        cdef bytes payload
        with cython.critical_section(self):
            payload = self._payload
        if payload is not None:
            return payload
        if view is None:
            raise ValueError("this message's payload was released: ask for what you need of it before")
        payload = view.copy()
        with cython.critical_section(self):
            if self._payload is None:
                self._payload = payload
            if not self._viewed:
                self._view = None
            return self._payload

    cdef int end(self) except -1:
        """Settled: who asked for a view has it."""
        self.settled = True
        if self._viewed:
            self.drop_view()
        return 0

    @property
    def kind(self):
        return self._kind

    @property
    def subject(self):
        return "" if self._subject is None else self._subject.decode("utf-8", "replace")

    @property
    def raw_subject(self):
        return self._subject

    @property
    def deliveries(self):
        return self._receipt.deliveries

    @property
    def group(self):
        return self._group

    @property
    def expired(self):
        return is_expired(self.time_ns, self.ttl_ms)

    cdef void fill(self, Group group, const rp_frame *frame, const char *payload, size_t size):
        cdef size_t before = frame.subject_len + frame.headers_len
        self.fill_in(group, frame, payload)
        self._payload = PyBytes_FromStringAndSize(payload + before, size - before)

    cdef void fill_pinned(self, Group group, const rp_frame *frame, const rp_pin *pin):
        self._view = view_of(group.log, pin, frame)
        self.fill_in(group, frame, <const char *>pin.data)

    cdef void fill_in(self, Group group, const rp_frame *frame, const char *payload):
        """All but the payload."""
        self._group = group
        self._kind = frame.kind
        self.sequence = frame.sequence
        self.time_ns = frame.time_ns
        self.ttl_ms = frame.ttl_ms
        if frame.subject_len:
            self._subject = PyBytes_FromStringAndSize(payload, frame.subject_len)
        if frame.headers_len:
            self.raw_headers = PyBytes_FromStringAndSize(payload + frame.subject_len, frame.headers_len)


cdef extern from *:
    """
    /* type.__new__(type), without looking for it each time */
    static PyObject *rp_new_message(PyObject *type) {
        static PyObject *nothing;
        if (!nothing && !(nothing = PyTuple_New(0))) return NULL;
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, nothing, NULL);
    }
    """
    object rp_new_message(object)


def hand_out(ahead, set held):
    """The next one of the deque `ahead`, put into `held`: no signal handler, no thread sees it in neither.
    None: there is none."""
    if not ahead:
        return None
    try:
        message = ahead.popleft()
    except IndexError:  # without a GIL, another thread was faster
        return None
    if held is not None:
        held.add(message)
    return message


def any_ttl(list messages):
    """Has any of them a time to live?"""
    cdef Delivery message
    for message in messages:
        if message.ttl_ms:
            return True
    return False


cdef Group group_of(Log log, uint32_t handle):
    cdef Group group = Group.__new__(Group)
    group.log = log
    group.handle = handle
    return group


cdef dict group_fields(const rp_group_info *info):
    cdef dict fields = {
        "policy": info.policy, "ready": info.ready, "in_flight": info.in_flight,
        "delivered": info.delivered, "acknowledged": info.acknowledged, "redelivered": info.redelivered,
        "returned": info.returned, "rejected": info.rejected, "expired": info.expired,
        "dropped": info.dropped, "lost": info.lost, "oldest_ns": info.oldest_ns,
        "lag_bytes": info.lag_bytes, "handle": info.handle, "pid": info.pid, "pid_namespace": info.pid_namespace,
        "lossy": bool(info.lossy),
    }
    fields["name"] = (<bytes>info.name[:strlen(info.name)]).decode("utf-8", "replace")
    fields["pattern"] = (<bytes>info.pattern[:strlen(info.pattern)]).decode("utf-8", "replace")
    return fields


cdef list hand_over(list messages, into, holder):
    cdef Delivery message
    if type(into) is set:
        (<set>into).update(messages)
    elif into is not None:
        into.extend(messages)
    if holder is not None:
        for message in messages:
            message.holder = holder
    return messages


cdef int64_t nanoseconds(object seconds) except -1:
    return <int64_t>(min(seconds_of(seconds), LONGEST_WAIT) * 1e9)


cdef int64_t patience_of(object seconds) except -1:
    """For a lock that somebody else holds: so long it takes if they were stopped."""
    return PATIENCE if seconds is None else nanoseconds(seconds)


@cython.final
cdef class Group:
    """A cursor on a log which any number of consumers share."""

    cdef readonly Log log
    cdef uint32_t handle
    cdef bint stopped  # by interrupt()
    cdef uint64_t lost  # frames that were overwritten, and of which no message has told yet

    def __init__(self):
        raise TypeError("groups are opened, not made: see Log.open_group()")

    # ---- receiving -------------------------------------------------------------------------

    def receive(self, limit=1, lease=0, bint block=True, timeout=None, message_type=Delivery, into=None,
                holder=None):
        """Messages that stay in the log until they are settled; at least one, or Empty. They are in `into`
        before any signal handler runs."""
        messages = self.deliver(batch_limit(limit), nanoseconds(lease), True, block, timeout, message_type)
        return hand_over(messages, into, holder)

    def take(self, limit=1, bint block=True, timeout=None, message_type=Delivery, into=None, holder=None):
        """Messages that are taken for good; at least one, or Empty."""
        messages = self.deliver(batch_limit(limit), 0, False, block, timeout, message_type)
        return hand_over(messages, into, holder)

    cdef list deliver(self, uint32_t limit, int64_t lease, bint leased, bint block, timeout, message_type):
        cdef size_t size = BATCH_BUFFER if limit > 1 else FRAME_BUFFER
        cdef int64_t deadline
        cdef char *buffer
        cdef rp_receipt *receipts
        self.log.check_open()
        limit = min(limit, <uint32_t>DEFAULT_BATCH)
        if limit == 0:
            return []
        deadline = deadline_of(block, timeout)
        self.log.look_at_alarm()
        buffer = <char *>PyMem_RawMalloc(size + limit * sizeof(rp_receipt))
        if buffer is NULL:
            raise MemoryError
        receipts = <rp_receipt *>(buffer + size)
        try:
            if leased:
                return self.deliver_leased(buffer, size, limit, lease, receipts, block, deadline, message_type)
            return self.deliver_taken(buffer, size, limit, block, deadline, message_type)
        finally:
            PyMem_RawFree(buffer)

    cdef list deliver_leased(self, char *buffer, size_t size, uint32_t limit, int64_t lease,
                             rp_receipt *receipts, bint block, int64_t deadline, message_type):
        while True:
            messages = self.receive_leased(buffer, size, limit, lease, receipts, block, deadline, message_type)
            if messages:
                return messages

    cdef list receive_leased(self, char *buffer, size_t size, uint32_t limit, int64_t lease,
                             rp_receipt *receipts, bint block, int64_t deadline, message_type):
        cdef rp_taken taken
        cdef rp_status status = rp_try_receive(self.log._log, self.handle, buffer, size, limit, lease,
                                               receipts, &taken)
        cdef Vain in_vain = no_vain()
        while (status == RP_BUSY or status == RP_INTERRUPTED or status == RP_COLD
               or (status == RP_EMPTY and block)):
            if status == RP_COLD:
                self.log.note_in_vain(&in_vain, taken.cold, "receive from")
                status = receive_cold(self.log, self.handle, buffer, size, limit, lease, receipts, &taken)
                if status == RP_EMPTY:
                    status = rp_try_receive(self.log._log, self.handle, buffer, size, limit, lease, receipts,
                                            &taken)
                continue
            if status == RP_EMPTY:  # what comes after a wait is not in vain: it may wait for a lease for hours
                in_vain = no_vain()
            with nogil:
                status = rp_receive(self.log._log, self.handle, buffer, size, limit, lease, receipts, deadline,
                                    &taken)
            if status == RP_INTERRUPTED:
                self.look_around()
            elif status != RP_COLD:
                break
        if status != RP_OK:
            raise self.log.fail(status, "receive from")
        try:
            return self.unpack(buffer, &taken, receipts, message_type)
        except BaseException:
            self.give_back_receipts(receipts, taken.count, 0, True)
            raise

    cdef int note_lost(self, uint64_t count) except -1:
        if count:
            with cython.critical_section(self):
                self.lost += count
        return 0

    cdef uint64_t tell_lost(self) except? 0:
        cdef uint64_t count
        with cython.critical_section(self):
            count = self.lost
            self.lost = 0
        return count

    cdef list deliver_taken(self, char *buffer, size_t size, uint32_t limit, bint block, int64_t deadline,
                            message_type):
        cdef rp_taken taken
        cdef rp_status status
        cdef Vain in_vain = no_vain()
        while True:
            status = self.log.try_take(self.handle, buffer, size, limit, &taken)
            self.note_lost(taken.lost)
            while (status == RP_BUSY or status == RP_INTERRUPTED or status == RP_COLD
                   or (status == RP_EMPTY and block)):
                if status == RP_COLD:
                    self.log.note_in_vain(&in_vain, taken.cold, "receive from")
                    status = self.log.try_take(self.handle, buffer, size, limit, &taken)
                    continue
                if status == RP_EMPTY:
                    in_vain = no_vain()
                with nogil:
                    status = rp_take(self.log._log, self.handle, buffer, size, limit, deadline, &taken)
                self.note_lost(taken.lost)
                if status == RP_INTERRUPTED:
                    self.look_around()
                elif status != RP_COLD:
                    break
            if status == RP_OK:
                self.log.note_settled()
                messages = self.unpack(buffer, &taken, NULL, message_type)
                if messages:
                    return messages
                continue
            if status == RP_TOO_SMALL:
                return self.take_with_room(taken.need, limit, deadline, message_type)
            if status == RP_RETURNED_FIRST:
                try:
                    messages = self.receive(limit, 0, False, None, message_type)
                except Empty:
                    self.log.note_in_vain(&in_vain, RETURNED, "receive from")
                    continue
                self.settle(messages)
                return messages
            if status != RP_LARGE:
                raise self.log.fail(status, "receive from")
            message = self.take_large_message(&taken, deadline, message_type)
            self.log.note_settled()
            if message is not None:
                return [message]
            self.log.note_in_vain(&in_vain, taken.frame.sequence, "receive from")

    def restore(self, message_type, uint8_t kind, bytes payload, bytes subject, bytes headers,
                uint64_t sequence, uint64_t time_ns):
        """A message that was kept elsewhere."""
        cdef Delivery message = message_type.__new__(message_type)
        message._group = self
        message._kind = kind
        message._payload = payload
        message._subject = subject
        message.raw_headers = headers
        message.sequence = sequence
        message.time_ns = time_ns
        message._receipt.deliveries = 1
        message.settled = True
        return message

    cdef object take_large_message(self, rp_taken *taken, int64_t deadline, message_type):
        """None: another consumer was faster."""
        cdef rp_status status
        cdef rp_pin pin
        cdef bytes payload
        cdef char *data = NULL
        cdef Delivery message = message_type.__new__(message_type)
        while True:
            with nogil:
                if data is NULL:
                    status = rp_take_pinned(self.log._log, self.handle, taken.frame.sequence, taken.length,
                                            deadline, &pin)
                else:
                    status = rp_take_large(self.log._log, self.handle, taken.frame.sequence, taken.length, NULL,
                                           0, data, deadline)
            if status == RP_COLD:
                payload = self.log.need_storage().payload(taken.frame.sequence, taken.length)
                if payload is None:
                    return None
                data = PyBytes_AS_STRING(payload)
                status = skip_large(self.log, self.handle, taken.frame.sequence, deadline)
                if status == RP_OK and not (payload and self.wants(&taken.frame, data)):
                    return None
            if status == RP_NO_SLOT and data is NULL:
                payload = PyBytes_FromStringAndSize(NULL, taken.length)
                data = PyBytes_AS_STRING(payload)
            elif status == RP_INTERRUPTED:
                self.log.interrupted()
            else:
                break
        if status == RP_EMPTY or status == RP_RETURNED_FIRST:
            return None
        if status != RP_OK:
            raise self.log.fail(status, "receive from")
        if data is NULL:
            message.fill_pinned(self, &taken.frame, &pin)
        else:
            message.fill(self, &taken.frame, data, taken.length)
        message._receipt.deliveries = 1
        message.settled = True
        return message

    cdef list take_with_room(self, size_t size, uint32_t limit, int64_t deadline, message_type):
        """A lossy group hands large messages out whole: try again with a buffer that holds this one."""
        cdef char *buffer = <char *>PyMem_RawMalloc(size)
        if buffer is NULL:
            raise MemoryError
        try:
            return self.deliver_taken(buffer, size, limit, True, deadline, message_type)
        finally:
            PyMem_RawFree(buffer)

    cdef list unpack(self, char *frames, const rp_taken *taken, const rp_receipt *receipts, message_type):
        cdef list messages = []
        cdef rp_frame *frame
        cdef Delivery message
        cdef uint32_t i
        cdef bint again = False
        for i in range(taken.count):
            frame = <rp_frame *>frames
            frames += rp_align(frame.size)
            message = <Delivery>rp_new_message(message_type)
            if receipts is not NULL:
                message._receipt = receipts[i]
                again |= receipts[i].deliveries > 1
            if frame.flags & RP_FRAME_VOID:
                if receipts is not NULL:
                    self.settle_one(message)
                continue
            if frame.flags & RP_FRAME_LARGE:
                if not self.unpack_large(message, frame):
                    self.settle_one(message)  # no longer ours, or not wanted
                    continue
            else:
                message.fill(self, frame, <char *>frame + sizeof(rp_frame), frame.size - sizeof(rp_frame))
            if receipts is NULL:
                message._receipt.deliveries = 1
                message.settled = True
                message.lost = self.tell_lost()
            messages.append(message)
        if again and self.log.is_stored:
            return self.log.need_storage().handed_out_again(self, messages)
        return messages

    cdef bint unpack_large(self, Delivery message, rp_frame *frame) except -1:
        cdef rp_descriptor *descriptor = <rp_descriptor *>(<char *>frame + sizeof(rp_frame))
        cdef bytes payload
        cdef char *data
        cdef rp_status status
        cdef rp_pin pin
        cdef size_t length = descriptor.length
        status = rp_pin_received(self.log._log, self.handle, &message._receipt, frame, &pin)
        if status == RP_OK:
            message.fill_pinned(self, frame, &pin)
            return True
        if status == RP_NO_SLOT:
            payload = PyBytes_FromStringAndSize(NULL, length)
            data = PyBytes_AS_STRING(payload)
            with nogil:
                status = rp_read_large(self.log._log, self.handle, &message._receipt, frame, data, length)
        if status == RP_NOT_FOUND:
            return False
        if status == RP_COLD:
            payload = self.log.need_storage().payload(frame.sequence, length)
            if payload is None:
                if self.holds(message):
                    raise self.log.need_storage().missing_payload(frame.sequence)
                return False  # the lease ended meanwhile, and somebody else settled it
            data = PyBytes_AS_STRING(payload)
            if not (payload and self.wants(frame, data)):
                return False
        elif status != RP_OK:
            raise self.log.fail(status, "receive from")
        message.fill(self, frame, data, length)
        return True

    cdef bint wants(self, const rp_frame *frame, const char *subject) except -1:
        """The subjects of large messages in storage are not seen by those who pass messages over."""
        cdef bytes pattern = self.info()["pattern"].encode()
        return not pattern or rp_subject_matches(pattern, len(pattern), subject, frame.subject_len)

    cdef int look_around(self) except -1:
        """Between two slices of a wait."""
        self.log.interrupted()
        if self.stopped:
            raise ValueError(f"{self.log.label}: this consumer was closed before")
        return 0

    def interrupt(self):
        """Calls that wait in this object, in other threads, raise ValueError."""
        self.stopped = True
        rp_wake_all(self.log._log)

    def watch(self, bint timed=False):
        return open_watch(self.log, RP_WATCH_FRAMES, self.handle, timed)

    # ---- settling --------------------------------------------------------------------------

    def settle_one(self, Delivery message, patience=None):
        """Ack one. False: it is no longer ours."""
        cdef rp_receipt receipt = message._receipt
        cdef int64_t lost = self.settle_receipts(&receipt, 1, patience_of(patience))
        message.end()
        return lost == 0

    def settle(self, messages, patience=None):
        """Ack these. Returns those that were no longer ours."""
        cdef Delivery message
        cdef list these = list(messages)
        cdef uint32_t count = len(these), i = 0
        cdef rp_receipt *receipts = <rp_receipt *>PyMem_RawMalloc((count + 1) * sizeof(rp_receipt))
        if receipts is NULL:
            raise MemoryError
        try:
            for message in these:
                receipts[i] = message._receipt
                i += 1
            self.settle_receipts(receipts, count, patience_of(patience))
            for message in these:
                message.end()
            return [these[i] for i in range(count) if receipts[i].entry == UINT32_MAX]
        finally:
            PyMem_RawFree(receipts)

    cdef int64_t settle_receipts(self, rp_receipt *receipts, uint32_t count, int64_t patience) except -1:
        cdef uint32_t lost = 0
        cdef int64_t deadline = rp_monotonic_ns() + patience
        cdef rp_status status
        while True:
            status = rp_settle(self.log._log, self.handle, receipts, count, deadline, &lost)
            if status != RP_INTERRUPTED:
                break
            PyErr_CheckSignals()
        if status != RP_OK:
            raise self.log.fail(status, "acknowledge in")
        self.log.note_settled()
        return lost

    def give_back(self, messages, delay=0, bint unseen=False, bint wait=True, patience=None):
        """Hand these out again, after `delay` seconds. Returns those that were no longer ours."""
        cdef Delivery message
        cdef list these = list(messages)
        cdef uint32_t count = len(these), i = 0
        cdef rp_receipt *receipts = <rp_receipt *>PyMem_RawMalloc((count + 1) * sizeof(rp_receipt))
        if receipts is NULL:
            raise MemoryError
        try:
            for message in these:
                receipts[i] = message._receipt
                i += 1
            self.give_back_receipts(receipts, count, nanoseconds(delay), unseen,
                                    patience_of(patience) if wait else 0)
            for message in these:
                message.end()
            return [these[i] for i in range(count) if receipts[i].entry == UINT32_MAX]
        finally:
            PyMem_RawFree(receipts)

    cdef int give_back_receipts(self, rp_receipt *receipts, uint32_t count, int64_t delay, bint unseen,
                                int64_t patience=PATIENCE) except -1:
        cdef uint32_t lost = 0, done = 0
        cdef int64_t deadline = rp_monotonic_ns() + patience
        cdef rp_status status
        while count:
            status = rp_give_back(self.log._log, self.handle, receipts, count, delay, unseen, deadline, &lost,
                                  &done)
            receipts += done
            count -= done
            if status != RP_OK and status != RP_INTERRUPTED:
                raise self.log.fail(status, "give messages back to")
            PyErr_CheckSignals()
        return 0

    def extend(self, Delivery message, seconds, patience=None):
        """Hold it that much longer from now; None: until this process ends. False: no longer ours."""
        cdef int64_t lease = 0 if seconds is None else nanoseconds(seconds)
        cdef int64_t deadline = rp_monotonic_ns() + patience_of(patience)
        cdef rp_status status
        while True:
            status = rp_extend(self.log._log, self.handle, &message._receipt, lease, deadline)
            if status != RP_INTERRUPTED:
                break
            PyErr_CheckSignals()
        if status != RP_OK and status != RP_NOT_FOUND:
            raise self.log.fail(status, "extend a lease of")
        return status == RP_OK

    def holds(self, Delivery message):
        """Is it still ours to settle?"""
        cdef rp_status status = rp_holds(self.log._log, self.handle, &message._receipt,
                                         rp_monotonic_ns() + PATIENCE)
        if status != RP_OK and status != RP_NOT_FOUND:
            raise self.log.fail(status, "look at")
        return status == RP_OK

    def discard(self, uint64_t sequence):
        """Ack one in whosever hands it is. None: it was not handed out yet; False: it was settled before."""
        cdef rp_status status = rp_group_discard(self.log._log, self.handle, sequence,
                                                 rp_monotonic_ns() + PATIENCE)
        if status == RP_EMPTY:
            return None
        if status != RP_OK and status != RP_NOT_FOUND:
            raise self.log.fail(status, "acknowledge in")
        return status == RP_OK

    # ---- looking ---------------------------------------------------------------------------

    def info(self):
        cdef rp_group_info info
        self.log.check_open()
        cdef rp_status status = rp_get_group_info(self.log._log, self.handle, &info)
        if status != RP_OK:
            raise self.log.fail(status, "look at")
        return group_fields(&info)

    def holdings(self):
        """What is in whose hands: a dict for each lease."""
        cdef rp_holding *found
        cdef uint32_t count = rp_get_holdings(self.log._log, self.handle, NULL, 0), i
        found = <rp_holding *>PyMem_RawMalloc((count + 1) * sizeof(rp_holding))
        if found is NULL:
            raise MemoryError
        try:
            count = min(count, rp_get_holdings(self.log._log, self.handle, found, count))
            return [found[i] for i in range(count)]
        finally:
            PyMem_RawFree(found)

    def seek(self, uint64_t sequence=0, uint64_t time_ns=0):
        """Pass over messages until one has at least this sequence and time (ns since the epoch)."""
        cdef rp_status status = rp_group_seek(self.log._log, self.handle, sequence, time_ns,
                                              rp_monotonic_ns() + PATIENCE)
        while status == RP_COLD:
            position, there = self.log.need_storage().find(sequence, time_ns)
            status = rp_group_place(self.log._log, self.handle, position, there, rp_monotonic_ns() + PATIENCE)
            if status == RP_INVALID:  # it stands behind that already
                status = RP_OK
            elif status == RP_OK:
                status = rp_group_seek(self.log._log, self.handle, sequence, time_ns,
                                       rp_monotonic_ns() + PATIENCE)
                if status == RP_COLD:  # it is there
                    status = RP_OK
        if status != RP_OK:
            raise self.log.fail(status, "seek in")

    def set_pattern(self, str pattern):
        """From now on it wants these subjects: a pattern, or several with blanks between."""
        cdef bytes text = pattern.encode()
        cdef rp_status status = rp_group_set_pattern(self.log._log, self.handle, text,
                                                     rp_monotonic_ns() + PATIENCE)
        if status != RP_OK:
            raise self.log.fail(status, "subscribe to")

    def count_rejected(self, uint64_t by=1):
        rp_count(self.log._log, self.handle, RP_COUNT_REJECTED, by)

    def count_expired(self, uint64_t by=1):
        rp_count(self.log._log, self.handle, RP_COUNT_EXPIRED, by)

    def count_dropped(self, uint64_t by=1):
        rp_count(self.log._log, self.handle, RP_COUNT_DROPPED, by)

    def abandon(self):
        """Close a group that ends with this process. Never waits."""
        rp_group_abandon(self.log._log, self.handle)

    def remove(self):
        """Close the group for everybody: what it has not handed out is nobody's any more."""
        cdef rp_status status
        cdef int64_t deadline = rp_monotonic_ns() + PATIENCE
        while True:
            with nogil:
                status = rp_group_close(self.log._log, self.handle, deadline)
            if status != RP_INTERRUPTED:
                break
            PyErr_CheckSignals()
        if status != RP_OK and status != RP_NOT_FOUND:
            raise self.log.fail(status, "unsubscribe from")
