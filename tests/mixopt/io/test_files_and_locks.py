"""Files are whole or absent, and locks die with their holder."""

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mixopt.core.errors import FileError, LedgerError
from mixopt.io import files, locks, markers

HOLD = """
import sys, time
from pathlib import Path
from mixopt.io import locks
with locks.hold(Path(sys.argv[1]), "study x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_written_file_replaces_the_old_one_and_leaves_no_parts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "values.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["values.json"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "cannot be read: No such file"),
        ('{"size": ', "is cut or no JSON"),
        ("\xff\x00", "is cut or no JSON"),
        ("[1]", "holds what mixopt does not write there"),
        ('{"other": 1}', "holds what mixopt does not write there: KeyError"),
        ('{"size": "many"}', "holds what mixopt does not write there: ValueError"),
    ],
)
def test_a_file_of_our_own_that_cannot_be_used_is_named_with_what_to_do(
    tmp_path: Path, text: str | None, what: str
) -> None:
    path = tmp_path / "own.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FileError, match=rf"(?s){path}: {what}.*Delete it"):
        files.read_json(path, lambda values: int(values["size"]), hint="Delete it")


def test_a_failed_write_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_file_that_does_not_fit_on_the_disk_is_named_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    files.write_json(path, {"a": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(FileError, match=f"{path}: cannot be written: File too large"):
            files.write_bytes(path, bytes(2048))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/values\.json: cannot be written"):
        files.write_json(tmp_path / "file" / "values.json", {})


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    left = tmp_path / f".values.json.{host}.{ended.pid}.part"
    alive = tmp_path / f".values.json.{host}.{os.getppid()}.part"
    elsewhere = tmp_path / ".values.json.elsewhere.1.part"
    for part in (left, alive, elsewhere):
        part.write_text("{")
    files.write_json(tmp_path / "values.json", {})
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere, tmp_path / "values.json"])
    os.utime(elsewhere, (0, 0))
    files.write_json(tmp_path / "values.json", {})
    assert not elsewhere.exists()


def test_a_marker_counts_with_the_files_it_vouches_for(tmp_path: Path) -> None:
    weights = tmp_path / markers.WEIGHTS
    weights.write_bytes(b"weights")
    markers.write(tmp_path, {"identity": "a"})
    result = markers.read(tmp_path)
    assert result is not None
    assert result["identity"] == "a"
    weights.write_bytes(b"weighty")
    assert markers.read(tmp_path) is None
    weights.unlink()
    assert markers.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", '{"iden', "[]", "{}", '{"files": {"curve.jsonl": 1}}'])
def test_a_marker_that_is_cut_or_of_another_shape_does_not_count(text: str, tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text(text)
    (tmp_path / "curve.jsonl").write_text("")
    assert markers.read(tmp_path) is None


def test_a_marker_or_a_file_of_which_any_bit_flipped_does_not_count(tmp_path: Path) -> None:
    (tmp_path / markers.WEIGHTS).write_bytes(bytes(range(40)))
    (tmp_path / markers.TOKENIZER).write_text("{}")
    markers.write(tmp_path, {"outcomes": [{"bpb/law": 1.25}, {7: None}]})
    assert markers.read(tmp_path)
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        for place in range(len(data.rstrip())):
            flipped = bytearray(data)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            result = markers.read(tmp_path)
            assert result is None or result["outcomes"] == [{"bpb/law": 1.25}, {"7": None}], place
        path.write_bytes(data)
    assert markers.read(tmp_path)


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


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_with_what_to_do(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:  # as network file systems do; none can be mounted here
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = tmp_path / "lock"
    with (
        pytest.raises(LedgerError, match=rf"{lock}: study x cannot be locked.*mounted with locks"),
        locks.hold(lock, "study x"),
    ):
        pass
