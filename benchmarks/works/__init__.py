"""What is measured. To add a work: a class like the others here, and one line below."""

from benchmarks.works.acked import Acked, AckedBatches
from benchmarks.works.base import Work
from benchmarks.works.durable import Durable, DurableBacklog, DurableBatches, DurableEight, DurableLater
from benchmarks.works.fan_out import FanOut, FanOutBatches
from benchmarks.works.idle import Idle
from benchmarks.works.latency import RoundTrip
from benchmarks.works.lending import Lending, Records
from benchmarks.works.loops import AsyncBatches, AsyncOneToOne, AsyncRoundTrip
from benchmarks.works.redelivery import Redelivery
from benchmarks.works.scaling import SCALING
from benchmarks.works.stream import Batches, FourToOne, LargeMessages, OneToOne

WORKS: tuple[Work, ...] = (
    OneToOne(),
    Batches(),
    FourToOne(),
    RoundTrip(),
    LargeMessages(),
    Idle(),
    Acked(),
    AckedBatches(),
    Redelivery(),
    FanOut(1),
    FanOut(4),
    FanOut(16),
    FanOutBatches(4),
    AsyncOneToOne(),
    AsyncBatches(),
    AsyncRoundTrip(),
    Durable(),
    DurableEight(),
    DurableBatches(),
    DurableLater(),
    DurableBacklog(),
    *SCALING,
    Lending(1),
    Lending(10),
    Lending(100),
    Records(),
)

QUICK = (
    *("1-to-1", "batches", "4-to-1", "latency", "large", "acked", "fan-out-4"),
    *("size-64", "size-4096", "size-262144", "producers-1", "producers-4", "producers-16"),
    *("consumers-1", "consumers-4", "consumers-16", "subscribers-1", "subscribers-16"),
    *("backlog-1000", "backlog-100000", "durable", "durable-batches"),
)
"""The works of a quick run."""
QUICK_RIVALS = ("ringpost", "multiprocessing.Queue", "pyzmq")
"""Who does the families among them."""
