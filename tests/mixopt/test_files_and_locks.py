"""Files are whole or absent, and locks die with their holder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt import files, locks
from mixopt.errors import LedgerError

HOLD = """
import sys, time
from pathlib import Path
from mixopt import locks
with locks.hold(Path(sys.argv[1]), "study x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_written_file_replaces_the_old_one_and_leaves_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "said.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["said.json"]


def test_a_failed_write_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_second_holder_is_refused_naming_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with (
            pytest.raises(LedgerError, match=f"process {holder.pid} on"),
            locks.hold(lock, "study x"),
        ):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with locks.hold(lock, "study x", patience=5):  # the kernel freed it with its holder
        assert json.loads(lock.read_text())["pid"] == os.getpid()
