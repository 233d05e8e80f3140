"""A worker in C among Python processes: texts go there, and come back counted.

Builds examples/c/count_letters.c with the compiler of this machine, in a temporary directory, and starts it
twice. One of the two is killed with -9 on the way; no text is lost.

    python examples/c_worker.py
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import ringpost

ROOT = Path(__file__).parents[1]
TEXTS = 20_000
PATIENCE = 60  # seconds without an answer: something is wrong


def build(directory: Path) -> Path:
    program = directory / "count_letters"
    sources = [ROOT / "examples" / "c" / "count_letters.c", *sorted((ROOT / "native" / "src").glob("*.c"))]
    options = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", f"-I{ROOT / 'native' / 'include'}"]
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, *options, "-o", str(program), *map(str, sources)], check=True)
    return program


def main() -> None:
    broker = ringpost.connect(f"ring:c-worker-{os.getpid()}")
    texts, answers = broker.queue("texts"), broker.queue("answers")
    found: dict[str, str] = {}  # by the text's number: one that was sent, and not yet acked, comes twice
    with tempfile.TemporaryDirectory() as directory:
        command = [str(build(Path(directory))), texts.path, answers.path]
        workers = [subprocess.Popen(command) for _ in range(2)]
        try:
            for number in range(TEXTS):
                texts.put(text_of(number))
                if number == TEXTS // 2:
                    workers[0].kill()
            texts.shutdown()
            while len(found) < TEXTS:
                found.update(answer.split(" ", 1) for answer in answers.get_many(timeout=PATIENCE))
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(PATIENCE)
            broker.destroy()
    assert all(Counter(parts(found[str(number)])) == letters_of(number) for number in range(TEXTS))
    print(f"kill -9 {workers[0].pid}: the other worker in C went on")
    print(f"{TEXTS} texts counted, none lost; number 1: {found['1']}")


def text_of(number: int) -> str:
    return f"{number} message to C" if number % 1000 else f"{number} " + "long " * 10_000


def letters_of(number: int) -> Counter[str]:
    return Counter(letter for letter in text_of(number).lower() if letter.isalpha())


def parts(answer: str) -> dict[str, int]:
    return {part[0]: int(part[1:]) for part in answer.split()}


if __name__ == "__main__":
    main()
