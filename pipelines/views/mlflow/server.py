"""A MLflow server on this machine that shows a study's database for as long as it is needed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mixopt.core.errors import MixoptError

COMMAND = (sys.executable, "-m", "mlflow", "server")
HOST = "127.0.0.1"
FIRST, TRIED = 5000, 50  # ports that are tried where none is asked for
SECONDS = 120.0  # for the server to answer: its imports alone take ten on a busy core
GRACE = 10.0  # seconds to end


def free_port(asked: int | None) -> int:
    """A port of this machine that nobody listens on: the one asked for, else the first free one.

    Raises:
        MixoptError: the one asked for is in use, or all that were tried.
    """
    ports = range(FIRST, FIRST + TRIED) if asked is None else (asked,)
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    where = "--port" if asked is not None else f"ports {FIRST} to {FIRST + TRIED - 1}"
    what = f"port {asked} is in use" if asked is not None else "all of them are in use"
    raise MixoptError(what, where=where, hint="Give --port one that is free")


@contextlib.contextmanager
def serving(uri: str, port: int) -> Iterator[str]:
    """Serve the MLflow database `uri` on loopback within the block; the address.

    Raises:
        MixoptError: the server ended before it answered, or never did; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="mixopt-ui-") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*COMMAND, "--host", HOST, "--port", str(port), "--workers", "1"],
                # a password in the address is seen by nobody in the list of processes
                env=os.environ
                | {
                    "MLFLOW_BACKEND_STORE_URI": uri,
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                },
                cwd=folder,  # where it would put ./mlruns
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            _wait(server, f"http://{HOST}:{port}", log)
            yield f"http://{HOST}:{port}"
        finally:
            _end(server)


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{address}/health", timeout=5),
        ):
            return
        time.sleep(0.2)
    last = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise MixoptError(
        f"MLflow's server does not answer: {' | '.join(last) or 'it said nothing'}",
        where=address,
        hint="`mlflow server` by hand shows all that it says",
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with all its processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
            return
