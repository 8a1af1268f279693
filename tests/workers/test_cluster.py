"""A cluster that is not there is refused in seconds, naming its address and the way on."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.workers.cluster import HTTP2_SETTINGS, check_address, endpoint


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No RAY_ADDRESS, and no cluster that was started on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def dashboard() -> Iterator[str]:
    """An address where a web server listens, as Ray's dashboard does."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_named(dead: str, scheme: str) -> None:
    with pytest.raises(StudyError, match=r"ray\.address: no Ray answers at .*leave it out"):
        check_address(scheme + dead)


def test_a_dead_address_of_the_environment_is_named(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead)
    with pytest.raises(StudyError, match=f"no Ray answers at {dead}.*unset RAY_ADDRESS"):
        check_address(None)


def test_what_a_dead_cluster_left_on_this_machine_is_named(dead: str, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(dead)
    with pytest.raises(StudyError, match=r"ray_current_cluster: no Ray .*delete this file"):
        check_address(None)


def test_a_web_server_is_no_ray(dashboard: str) -> None:
    with pytest.raises(StudyError, match=f"no Ray answers at {dashboard}"):
        check_address(dashboard)


def test_where_no_cluster_is_named_ray_may_start_one() -> None:
    check_address(None)


def test_a_server_of_http_2_may_be_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"\0\0\0" + HTTP2_SETTINGS + b"\0" * 5)
                connection.recv(100)

        threading.Thread(target=answer, daemon=True).start()
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray://head:10002", ("head", 10002)),
        ("ray://head", ("head", 10001)),
        ("[::1]:6379", ("::1", 6379)),
        ("head", None),
        ("head:port", None),
        ("", None),
    ],
)
def test_an_address_names_host_and_port(address: str, found: tuple[str, int] | None) -> None:
    assert endpoint(address) == found


def test_a_ray_that_does_not_start_here_is_one_sentence_with_the_way_on(tmp_path: Path) -> None:
    code = "from mixopt.workers.cluster import connect\nwith connect('local'): pass"
    long = tmp_path / ("long" * 30)  # Ray raises an OSError: a socket's path has 107 characters
    environment = os.environ | {"RAY_TMPDIR": str(long)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mixopt.core.errors.StudyError: ray.address: Ray did not start on this")
    assert "Run the same command again" in last
    assert "ray start" not in last
