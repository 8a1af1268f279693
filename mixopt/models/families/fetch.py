"""Checkpoints from elsewhere: an fsspec URL or a name on the Hugging Face hub, into a local folder.

Only what upcycling reads is fetched: safetensors, JSON, the tokenizer. Pickled weights are not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mixopt.core.errors import CheckpointError
from mixopt.io import files
from mixopt.io.markers import SHAPE
from mixopt.models.families.checkpoint import (
    CARRIED_FILES,
    CONFIG,
    INDEX,
    SINGLE,
    refuse_pickled,
)
from mixopt.models.families.gguf import ENDING, convert

WANTED = (CONFIG, INDEX, SHAPE, *CARRIED_FILES, "*.safetensors", f"*{ENDING}")
STATES = "fetched.json"  # in a cached folder: name → state of the file that was fetched
HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?")
OnFile = Callable[[str], None]


def located(name: str, base: Path, cache: Path, on_file: OnFile = lambda _: None) -> Path:
    """The folder of the checkpoint `name` on this disk.

    It is fetched first if it is elsewhere, and written out first if it is a GGUF file.

    Args:
        name: a folder or GGUF file, an fsspec URL of one, or a hub name, `owner/model` or
            `owner/model@revision`.
        base: folder that relative paths start from.
        cache: folder for what is fetched from URLs, or is written out; the hub has its own.
        on_file: is given the name of each file before it is fetched.

    Raises:
        CheckpointError: it cannot be fetched.
        FileError: the cache cannot be written.
    """
    if "://" in name:
        url = name.rstrip("/")
        folder = _from_url(url, cache, on_file)
        is_gguf = PurePosixPath(url).suffix == ENDING
        return _written_out(folder / PurePosixPath(url).name, cache) if is_gguf else folder
    folder = base / Path(name).expanduser()
    if folder.is_file() and folder.suffix == ENDING:
        return _written_out(folder, cache)
    if folder.exists() or not HUB_NAME.fullmatch(name):
        return folder
    on_file(name)
    return _from_hub(name, folder)


def _written_out(path: Path, cache: Path) -> Path:
    """A GGUF file as a folder in the cache; once for each state of the file."""
    status = path.stat()
    state = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
    folder = cache / f"{path.stem}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"
    return folder if folder.exists() else convert(path, folder)


def _from_url(url: str, cache: Path, on_file: OnFile) -> Path:
    folder = cache / f"{PurePosixPath(url).name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    try:
        system, found = _listed(url)
    except Exception as error:  # each protocol has errors of its own
        raise _unfetched(url, error) from error
    if not any(name.endswith((SINGLE, INDEX, ENDING)) for name in found):
        refuse_pickled(url, found)
    states = _states(folder)
    for name, path in found.items():
        if not any(PurePosixPath(name).match(pattern) for pattern in WANTED):
            continue
        state = f"{system.size(path)} {system.ukey(path)}"
        if states.get(name) == state and (folder / name).is_file():
            continue
        on_file(f"{url}/{name}")
        _copy(system, path, folder / name, f"{url}/{name}")
        states[name] = state
        files.write_json(folder / STATES, states)
    return folder


def _listed(url: str) -> tuple[Any, dict[str, str]]:
    """The file system of a folder, and its files: name → path there."""
    import fsspec

    system, root = fsspec.core.url_to_fs(url)
    paths = [entry["name"] for entry in system.ls(root, detail=True) if entry["type"] == "file"]
    return system, {PurePosixPath(path).name: path for path in sorted(paths)}


def _states(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / STATES).read_bytes()))
    except (OSError, ValueError, TypeError):  # not fetched yet: all files are fetched
        return {}


def _copy(system: Any, path: str, to: Path, url: str) -> None:
    """Copy one file, whole or not at all; a disk that fills is told from a server that fails."""
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    with files.writing(to.parent):
        to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.writing(part), part.open("wb") as target:
            for block in _blocks(system, path, url):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        if part.stat().st_size != system.size(path):
            raise CheckpointError("ended early", where=url, hint="Run the same command again")
        part.rename(to)
    finally:
        part.unlink(missing_ok=True)


def _blocks(system: Any, path: str, url: str) -> Any:
    try:
        with system.open(path, "rb") as source:
            while block := source.read(2**24):
                yield block
    except Exception as error:
        raise _unfetched(url, error) from error


def _unfetched(url: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"cannot be fetched: {_first_line(error)}",
        where=url,
        hint="Check the address, its rights and the network, or give a local folder",
    )


def _from_hub(name: str, folder: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"there is no folder {folder}, and names on the hub need huggingface_hub, which is not "
            "installed",
            where=name,
            hint='pip install "mixopt[huggingface]", or give a local folder',
        ) from error
    repository, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(WANTED[:-1])
        )
    except Exception as error:  # of the hub, of its HTTP library, of the network
        raise CheckpointError(
            f"there is no folder {folder}, and the hub gives nothing: {_of_hub(error)}",
            where=name,
            hint="Give a local folder, or see to the network and to your rights on the hub "
            "(`hf auth login`)",
        ) from error
    return Path(found)


def _of_hub(error: Exception) -> str:
    """What the hub means, in a few words."""
    kinds: Mapping[str, str] = {
        "GatedRepoError": "the model is gated, and this account has no access to it",
        "RepositoryNotFoundError": "no such model, or a private one",
        "RevisionNotFoundError": "no such revision",
        "LocalEntryNotFoundError": "it cannot be reached, and its cache lacks the model",
        "IncompleteSnapshotError": "it cannot be reached, and its cache lacks files of the model",
    }
    return kinds.get(type(error).__name__) or _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
