"""A Redis server of our own: on a Unix socket, without persistence, and gone with this process."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

_PATIENCE = 10.0
_PR_SET_PDEATHSIG = 1
_OPTIONS = {
    "port": "0",
    "save": "",
    "appendonly": "no",
    "loglevel": "warning",
    "client-output-buffer-limit": "pubsub 0 0 0",  # else it throws slow subscribers out
}

PROGRAM = "redis-server"


class RedisServer:
    """Started by the parent. The processes that get it pickled only connect."""

    def __init__(self, directory: Path, name: str, more: dict[str, str] | None = None) -> None:
        self._address = str(directory / f"{name}.sock")
        options = {**_OPTIONS, "dir": str(directory), "unixsocket": self._address, **(more or {})}
        command = [PROGRAM, *(word for key, value in options.items() for word in (f"--{key}", value))]
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def client(self) -> Any:
        """A connection, for the process that asks."""
        import redis

        return redis.Redis(unix_socket_path=self._address, protocol=2)

    def stop(self) -> None:
        """It keeps nothing: there is nothing to wait for."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __getstate__(self) -> dict[str, Any]:
        return {"_address": self._address, "_process": None}

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self._address) == 0:
                    return
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"{PROGRAM} ended with exit code {self._process.returncode}")
            time.sleep(0.005)
        raise RuntimeError(f"{PROGRAM} did not answer within {_PATIENCE:.0f} s")


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C reaches the parent too, which ends it
