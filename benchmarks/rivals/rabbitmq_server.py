"""A RabbitMQ server of our own: on loopback, in a directory of its own, and gone with this process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.rivals.redis_server import end_with_parent

PROGRAM = "rabbitmq-server"
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; the one in the PATH insists on its user
_PATIENCE = 60.0


class RabbitMQServer:
    """Started by the parent. The processes that get it pickled only connect."""

    def __init__(self, directory: Path) -> None:
        self._port, distribution, mapper = _free_port(), _free_port(), _free_port()
        config = directory / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\nlog.console.level = error\n")
        self._environment = {
            **os.environ,
            "HOME": str(directory),  # the Erlang cookie
            "RABBITMQ_NODENAME": f"ringpost-bench-{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # so that it can be ended
        }
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [str(_SERVER)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def connection(self) -> Any:
        """For the process that asks."""
        import amqp

        connection = amqp.Connection(f"127.0.0.1:{self._port}", connect_timeout=10)
        connection.connect()
        return connection

    def stop(self) -> None:
        """The server, and Erlang's port mapper, which it left behind."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        mapper = shutil.which("epmd")
        if mapper is not None:
            subprocess.run([mapper, "-kill"], env=self._environment, capture_output=True, check=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"_port": self._port, "_process": None}

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                self.connection().close()
                return
            except OSError:
                time.sleep(0.1)
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"{_SERVER} ended with exit code {self._process.returncode}")
        raise RuntimeError(f"{_SERVER} did not answer within {_PATIENCE:.0f} s")


def version() -> str | None:
    """Its programs cannot be asked without leaving a daemon behind: Debian's folder says it."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
    return found[-1].name.partition("-")[2] if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
