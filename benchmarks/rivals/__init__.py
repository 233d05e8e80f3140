"""Who is measured. To add a rival: one file like the others here, and one line below."""

from __future__ import annotations

from benchmarks.rivals.base import Rival
from benchmarks.rivals.cloudtoid import Cloudtoid
from benchmarks.rivals.fasterfifo import FasterFifo
from benchmarks.rivals.iceoryx2 import Iceoryx2, Iceoryx2Events
from benchmarks.rivals.lite_queue import LiteQueue
from benchmarks.rivals.mp_pipe import MultiprocessingPipe
from benchmarks.rivals.mp_queue import MultiprocessingQueue
from benchmarks.rivals.mp_simplequeue import MultiprocessingSimpleQueue
from benchmarks.rivals.persist_queue import PersistQueue
from benchmarks.rivals.redis_pubsub import RedisPubSub
from benchmarks.rivals.redis_streams import RedisStreams
from benchmarks.rivals.ringpost import Ringpost
from benchmarks.rivals.shared_memory import SharedMemoryByHand
from benchmarks.rivals.stored_lmdb import StoredLmdb
from benchmarks.rivals.stored_others import (
    StoredDeque,
    StoredLeanQueue,
    StoredLiteQueue,
    StoredLocalQueue,
    StoredPersistQueue,
)
from benchmarks.rivals.stored_rabbitmq import StoredRabbitMQ
from benchmarks.rivals.stored_redis import StoredRedis
from benchmarks.rivals.stored_ringpost import StoredRingpost
from benchmarks.rivals.stored_sqlite import StoredSqlite
from benchmarks.rivals.subetha import SubEtha, SubEthaCondvar
from benchmarks.rivals.zeromq import ZeroMQ

BASELINE = "ringpost"
"""Whom the ratios are about."""

RIVALS: tuple[Rival, ...] = (
    Ringpost(),
    MultiprocessingQueue(),
    MultiprocessingSimpleQueue(),
    MultiprocessingPipe(),
    FasterFifo(),
    ZeroMQ(),
    Cloudtoid(),
    SubEtha(),
    SubEthaCondvar(),
    Iceoryx2(),
    Iceoryx2Events(),
    RedisStreams(),
    RedisPubSub(),
    PersistQueue(),
    LiteQueue(),
    StoredRingpost(),
    StoredLmdb(),
    StoredSqlite(),
    StoredPersistQueue(),
    StoredLiteQueue(),
    StoredDeque(),
    StoredLocalQueue(),
    StoredLeanQueue(),
    StoredRedis(),
    StoredRabbitMQ(),
    SharedMemoryByHand(),
)
