"""Threads that fill and empty a queue, asleep without the interpreter's lock. Only a weakened core races:
who sleeps takes what is put before he has that lock again."""

import threading
import time

import ringpost

TIMES = 100
PAUSE = 0.002  # seconds: by then the others sleep
LARGE = bytes(1 << 20)


def put(queue: ringpost.Queue[object]) -> None:
    for _ in range(TIMES):
        time.sleep(PAUSE)
        queue.put(LARGE)


def get(queue: ringpost.Queue[object]) -> None:
    for _ in range(TIMES):
        queue.get(timeout=60)


queue = ringpost.Queue[object]()
threads = [threading.Thread(target=work, args=(queue,)) for work in (put, put, get, get)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert queue.empty()
