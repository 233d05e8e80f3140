"""Threads that fill and empty a queue, asleep without the interpreter's lock. Only a weakened core races."""

import threading

import ringpost

TIMES = 400
LARGE = bytes(1 << 20)


def put(queue: ringpost.Queue[object]) -> None:
    for _ in range(TIMES):
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
