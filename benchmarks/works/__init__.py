"""What is measured. To add a work: a class like the others here, and one line below."""

from benchmarks.works.base import Work
from benchmarks.works.idle import Idle
from benchmarks.works.latency import RoundTrip
from benchmarks.works.stream import Batches, FourToOne, LargeMessages, OneToOne

WORKS: tuple[Work, ...] = (
    OneToOne(),
    Batches(),
    FourToOne(),
    RoundTrip(),
    LargeMessages(),
    Idle(),
)
