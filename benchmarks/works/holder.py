"""A consumer that receives and never acks, to be killed: python -m benchmarks.works.holder

Reads how from stdin, says on stdout when it holds everything, and ends when stdin does.
"""

from __future__ import annotations

import pickle
import sys

from benchmarks.peer import arm_watchdog

_LONGEST_LIFE = 60.0


def main() -> None:
    """The process."""
    arm_watchdog(_LONGEST_LIFE)
    lane, count = pickle.load(sys.stdin.buffer)
    consumer = lane.consumer()
    deliveries = [consumer.receive() for _ in range(count)]
    print(f"holding {len(deliveries)}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
