"""The public C header, as Cython sees it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "ringpost.h" nogil:
    enum:
        RP_INLINE_MAX
        RP_QUEUE_GROUP
        RP_GROUP_NAME
        RP_PATTERN
        RP_FRAME_LARGE
        RP_FRAME_VOID
    const int64_t RP_NOW
    const int64_t RP_NEVER

    ctypedef bint c_bool "bool"

    ctypedef enum rp_status:
        RP_OK
        RP_EMPTY
        RP_FULL
        RP_BUSY
        RP_STALLED
        RP_INTERRUPTED
        RP_SHUT_DOWN
        RP_DELETED
        RP_TOO_LARGE
        RP_TOO_SMALL
        RP_LARGE
        RP_TOO_MANY
        RP_CORRUPT
        RP_LAYOUT
        RP_STALE
        RP_NOT_OURS
        RP_NO_SLOT
        RP_NO_SPACE
        RP_EXISTS
        RP_NOT_FOUND
        RP_UNSUPPORTED
        RP_INVALID
        RP_SYSTEM
        RP_RETURNED_FIRST
        RP_COLD

    ctypedef struct rp_log:
        pass

    ctypedef struct rp_settings:
        uint64_t capacity
        uint64_t max_messages
        uint32_t groups
        uint32_t leases
        bint broadcast
        bint keep_history
        bint auto_delete
        bint levels
        bint stored
        const uint8_t *log_id
        uint64_t first_position
        uint64_t first_sequence
        uint64_t first_done

    ctypedef struct rp_info:
        uint8_t log_id[16]
        uint64_t file_size
        uint64_t ring_size
        uint64_t pool_size
        uint64_t max_payload
        uint64_t max_messages
        uint64_t next_sequence
        uint64_t ready
        uint64_t unfinished
        uint64_t used_bytes
        uint64_t pool_used
        uint32_t participants
        uint64_t created_ns
        bint shut_down
        bint deleted
        bint keep_history
        bint auto_delete
        bint levels
        bint stored

    ctypedef struct rp_frame:
        uint32_t size
        uint8_t kind
        uint8_t flags
        uint16_t subject_len
        uint64_t sequence
        uint64_t time_ns
        uint32_t headers_len
        uint32_t ttl_ms

    ctypedef struct rp_message:
        const void *subject
        const void *headers
        const void *body
        size_t subject_len
        size_t headers_len
        size_t body_len
        uint32_t ttl_ms
        uint8_t kind
        bint beyond

    ctypedef struct rp_loan:
        void *data
        uint64_t length
        uint32_t first
        uint32_t granules

    ctypedef struct rp_pin:
        const void *data
        uint64_t length
        uint64_t word
        uint32_t entry

    ctypedef struct rp_taken:
        uint32_t count
        size_t bytes
        size_t need
        rp_frame frame
        uint64_t length
        uint64_t lost
        uint64_t cold

    ctypedef struct rp_descriptor:
        uint64_t length
        uint32_t first
        uint32_t granules

    ctypedef struct rp_receipt:
        uint32_t entry
        uint32_t id
        uint32_t bit
        uint32_t deliveries

    ctypedef struct rp_group_settings:
        const char *pattern
        uint64_t policy
        bint from_start
        bint lossy
        bint ends_with_us
        bint placed
        uint64_t position
        uint64_t sequence

    ctypedef struct rp_group_info:
        char name[RP_GROUP_NAME]
        char pattern[RP_PATTERN]
        uint64_t policy
        uint64_t ready
        uint64_t in_flight
        uint64_t delivered
        uint64_t acknowledged
        uint64_t redelivered
        uint64_t returned
        uint64_t rejected
        uint64_t expired
        uint64_t dropped
        uint64_t lost
        uint64_t oldest_ns
        uint64_t lag_bytes
        uint32_t handle
        int32_t pid
        uint32_t pid_namespace
        bint lossy

    ctypedef struct rp_holding:
        int32_t pid
        uint32_t pid_namespace
        uint32_t deliveries
        uint32_t frames
        uint64_t sequence
        int64_t held_ns
        int64_t remaining_ns

    ctypedef enum rp_counter:
        RP_COUNT_REJECTED
        RP_COUNT_EXPIRED
        RP_COUNT_DROPPED

    ctypedef struct rp_range:
        const void *data
        uint64_t position
        uint64_t end
        uint64_t sequence
        uint64_t count
        uint64_t large

    ctypedef struct rp_group_state:
        char name[RP_GROUP_NAME]
        char pattern[RP_PATTERN]
        uint64_t policy
        uint64_t read
        uint64_t read_sequence
        uint64_t acked
        uint32_t held
        bint stays

    ctypedef struct rp_held:
        uint64_t position
        uint64_t sequence
        uint64_t pending
        uint32_t deliveries
        uint32_t delay_ms

    uint64_t rp_align(uint64_t size)
    rp_status rp_create(const char *path, const rp_settings *settings, rp_log **out)
    rp_status rp_attach(const char *path, rp_log **out)
    void rp_detach(rp_log *log)
    void rp_leave(rp_log *log)
    rp_status rp_remove(const char *path)
    rp_status rp_collect(const char *path)
    rp_status rp_get_info(rp_log *log, rp_info *out)
    rp_status rp_ready(rp_log *log, uint64_t *out)
    rp_status rp_is_full(rp_log *log, c_bool *out)
    int32_t rp_holder()
    uint32_t rp_holder_namespace()
    rp_status rp_try_put(rp_log *log, const rp_message *message)
    rp_status rp_put(rp_log *log, const rp_message *message, int64_t deadline)
    rp_status rp_try_put_frames(rp_log *log, const void *frames, size_t size, uint32_t count,
                                uint32_t *done, size_t *done_bytes)
    rp_status rp_put_frames(rp_log *log, const void *frames, size_t size, uint32_t count,
                            int64_t deadline, uint32_t *done, size_t *done_bytes)
    rp_status rp_borrow(rp_log *log, uint64_t length, int64_t deadline, rp_loan *out)
    rp_status rp_commit(rp_log *log, rp_loan *loan, const rp_message *parts, int64_t deadline)
    void rp_abort(rp_log *log, rp_loan *loan)
    rp_status rp_pin_received(rp_log *log, uint32_t group, const rp_receipt *receipt, const rp_frame *frame,
                              rp_pin *out)
    rp_status rp_put_records(rp_log *log, const rp_frame *model, size_t head, const void *items, uint32_t count,
                             int64_t deadline, uint32_t *done)
    rp_status rp_peek(rp_log *log, uint32_t group, void *buffer, size_t size, int64_t deadline, rp_taken *out)
    rp_status rp_try_take_records(rp_log *log, uint32_t group, const rp_frame *model, size_t head, void *items,
                                  uint32_t limit, rp_taken *out)
    rp_status rp_peek_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                           rp_taken *out)
    rp_status rp_take_records_cold(rp_log *log, uint32_t group, const rp_range *frames, const rp_frame *model,
                                   size_t head, void *items, uint32_t limit, rp_taken *out)
    rp_status rp_take_pinned(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, int64_t deadline,
                             rp_pin *out)
    rp_status rp_pin_loan(rp_log *log, const rp_loan *loan, rp_pin *out)
    void rp_unpin(rp_log *log, const rp_pin *pin)
    rp_status rp_try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                          rp_taken *out)
    rp_status rp_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                      int64_t deadline, rp_taken *out)
    rp_status rp_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length,
                            void *extra, size_t extra_len, void *body, int64_t deadline)
    rp_status rp_try_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                             int64_t lease, rp_receipt *receipts, rp_taken *out)
    rp_status rp_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                         int64_t lease, rp_receipt *receipts, int64_t deadline, rp_taken *out)
    rp_status rp_read_large(rp_log *log, uint32_t group, const rp_receipt *receipt, const rp_frame *frame,
                            void *payload, size_t length)
    rp_status rp_settle(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count,
                        int64_t deadline, uint32_t *lost)
    rp_status rp_give_back(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count,
                           int64_t delay, bint unseen, int64_t deadline, uint32_t *lost, uint32_t *done)
    rp_status rp_extend(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t lease,
                        int64_t deadline)
    rp_status rp_group_open(rp_log *log, const char *name, const rp_group_settings *settings,
                            int64_t deadline, uint32_t *group, c_bool *made)
    rp_status rp_group_seek(rp_log *log, uint32_t group, uint64_t sequence, uint64_t time_ns,
                            int64_t deadline)
    rp_status rp_group_set_pattern(rp_log *log, uint32_t group, const char *pattern, int64_t deadline)
    rp_status rp_group_close(rp_log *log, uint32_t group, int64_t deadline)
    rp_status rp_get_group_info(rp_log *log, uint32_t group, rp_group_info *out)
    uint32_t rp_get_holdings(rp_log *log, uint32_t group, rp_holding *out, uint32_t size)
    void rp_count(rp_log *log, uint32_t group, rp_counter counter, uint64_t by)
    bint rp_subject_matches(const char *pattern, size_t pattern_len, const char *subject,
                            size_t subject_len)
    bint rp_glance(rp_log *log, uint32_t group, uint32_t spins)
    rp_status rp_task_done(rp_log *log)
    rp_status rp_join(rp_log *log, int64_t deadline)
    rp_status rp_shut_down(rp_log *log, bint immediate, int64_t deadline)
    void rp_wake_all(rp_log *log)
    void rp_set_alarm(rp_log *log, uint64_t when_ns)
    uint64_t rp_alarm(rp_log *log)
    bint rp_alarm_rings(rp_log *log)
    void rp_group_abandon(rp_log *log, uint32_t group)
    uint32_t rp_levels(rp_log *log)
    void rp_add_level(rp_log *log, uint32_t level)
    uint32_t rp_bell_listen(rp_log *log)
    rp_status rp_bell_wait(rp_log *log, uint32_t heard, int64_t deadline)
    void rp_bell_ring(rp_log *log)
    ctypedef struct rp_watch:
        pass

    ctypedef enum rp_watched:
        RP_WATCH_FRAMES
        RP_WATCH_SPACE
        RP_WATCH_BELL
        RP_WATCH_JOIN

    rp_status rp_watch_open(rp_log *log, rp_watched what, uint32_t group, bint timed, rp_watch **out)
    void rp_watch_close(rp_watch *watch)
    int rp_watch_fd(const rp_watch *watch)
    void rp_watch_clear(rp_watch *watch)
    int64_t rp_watch_arm(rp_watch *watch)
    void rp_watch_keep(rp_watch *watch)
    rp_status rp_watch_look(rp_watch *watch)
    rp_status rp_commit_enter(rp_log *log, rp_log *door, uint64_t position, int64_t deadline, c_bool *lead)
    void rp_commit_leave(rp_log *door)
    uint64_t rp_tail(const rp_log *log)
    uint64_t rp_durable(const rp_log *log)
    void rp_set_durable(rp_log *log, uint64_t position)
    uint64_t rp_needed(rp_log *log)
    rp_status rp_stored_range(rp_log *log, uint64_t position, size_t limit, rp_range *out)
    rp_status rp_copy_frames(rp_log *log, uint64_t position, void *buffer, size_t size, rp_range *out)
    const void *rp_pool_data(rp_log *log, const rp_descriptor *descriptor)
    bint rp_let_go(const void *data)
    rp_status rp_take_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                           uint32_t limit, rp_taken *out)
    rp_status rp_receive_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                              uint32_t limit, int64_t lease, rp_receipt *receipts, rp_taken *out)
    rp_status rp_skip_large(rp_log *log, uint32_t group, uint64_t sequence, const rp_range *frames,
                            int64_t deadline)
    rp_status rp_group_export(rp_log *log, uint32_t group, rp_group_state *out, rp_held *held, uint32_t size,
                              int64_t deadline)
    rp_status rp_group_import(rp_log *log, const rp_group_state *state, const rp_held *held, int64_t deadline)
    rp_status rp_group_discard(rp_log *log, uint32_t group, uint64_t sequence, int64_t deadline)
    rp_status rp_holds(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t deadline)
    rp_status rp_group_place(rp_log *log, uint32_t group, uint64_t position, uint64_t sequence,
                             int64_t deadline)
    int64_t rp_monotonic_ns()
    const char *rp_status_text(rp_status status)
    uint32_t rp_layout_version()
