"""What is measured. To add a work: a class like the others here, and one line below."""

from benchmarks.works.acked import Acked, AckedBatches
from benchmarks.works.base import Work
from benchmarks.works.fan_out import FanOut, FanOutBatches
from benchmarks.works.idle import Idle
from benchmarks.works.latency import RoundTrip
from benchmarks.works.lending import Lending, Records
from benchmarks.works.loops import AsyncBatches, AsyncOneToOne, AsyncRoundTrip
from benchmarks.works.redelivery import Redelivery
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
    Lending(1),
    Lending(10),
    Lending(100),
    Records(),
)
