"""Models that are elsewhere: fetched whole, only where they changed, or one clear message."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from huggingface_hub import constants
from safetensors.torch import load_file

from tests.mixopt.models.dense_checkpoints import WEIGHTS, split, write_dense
from tests.mixopt.models.families.gguf_files import write as write_gguf
from tests.pipelines.made_runs import Run

URL = "memory://models/seed"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def remote() -> Iterator[str]:
    """A folder in memory, behind fsspec as any bucket is."""
    yield URL
    fsspec.filesystem("memory").rm("/models", recursive=True)


def upload(folder: Path, url: str = URL) -> None:
    for path in folder.iterdir():
        with fsspec.open(f"{url}/{path.name}", "wb") as file:
            file.write(path.read_bytes())


def sparse(folder: Path, seed: str) -> str:
    (folder / "spec.yaml").write_text(f"method: sparse\nseed: {seed}\nexperts: 2\n")
    return "spec.yaml"


def test_a_url_is_fetched_once_and_again_only_what_changed(
    folder: Path, remote: str, run: Run
) -> None:
    upload(split(write_dense(folder / "seed", 0)))
    first = run("upcycle", sparse(folder, remote), "one")
    again = run("upcycle", sparse(folder, remote), "two")
    upload(split(write_dense(folder / "other", 1)))
    changed = run("upcycle", sparse(folder, remote), "three")
    assert (first.code, again.code, changed.code) == (0, 0, 0)
    assert [r.err.count("fetching") for r in (first, again)] == [5, 0]
    assert 2 <= changed.err.count("fetching") <= 5
    one, two, three = (load_file(folder / out / WEIGHTS) for out in ("one", "two", "three"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert one[name].equal(two[name])
    assert not one[name].equal(three[name])
    assert list(folder.rglob("*.part")) == []


def test_what_upcycling_does_not_read_is_not_fetched(folder: Path, remote: str, run: Run) -> None:
    seed = write_dense(folder / "seed")
    (seed / "optimizer.pt").write_bytes(b"0" * 100)
    (seed / "README.md").write_text("about")
    upload(seed)
    assert run("upcycle", sparse(folder, remote), "moe", "--cache", "kept").code == 0
    (cached,) = (folder / "kept").iterdir()
    fetched = {path.name for path in cached.iterdir()} - {"fetched.json"}
    assert fetched == {"config.json", "tokenizer.json", WEIGHTS}
    assert not (folder / "upcycling-cache").exists()


def test_a_cached_file_that_is_gone_is_fetched_again(folder: Path, remote: str, run: Run) -> None:
    upload(write_dense(folder / "seed"))
    assert run("upcycle", sparse(folder, remote), "one").code == 0
    (cached,) = (folder / "upcycling-cache").iterdir()
    (cached / WEIGHTS).unlink()
    again = run("upcycle", sparse(folder, remote), "two")
    assert (again.code, again.err.count("fetching")) == (0, 1)


def test_pickled_weights_are_refused_before_anything_is_fetched(
    folder: Path, remote: str, run: Run
) -> None:
    seed = write_dense(folder / "seed")
    (seed / WEIGHTS).rename(seed / "pytorch_model.bin")
    upload(seed)
    result = run("upcycle", sparse(folder, remote), "moe")
    assert result.code == 1
    assert result.err.startswith(f"error {URL}/pytorch_model.bin: weights are pickled")
    assert not (folder / "upcycling-cache").exists()


@pytest.mark.parametrize(
    "url", ["memory://nothing", "http://127.0.0.1:9/seed", "nowhere://seed", "file:///no/such"]
)
def test_a_url_that_gives_nothing_is_one_message(url: str, folder: Path, run: Run) -> None:
    result = run("upcycle", sparse(folder, url), "moe")
    assert result.code == 1
    assert result.err.startswith(f"error {url}: cannot be fetched: ")
    assert len(result.err.splitlines()) == 1
    assert [path.name for path in folder.iterdir()] == ["spec.yaml"]


def test_a_gguf_file_is_read_from_disk_and_from_a_url(folder: Path, remote: str, run: Run) -> None:
    made = write_gguf(folder / "it.gguf")
    with fsspec.open(f"{remote}/it.gguf", "wb") as file:
        file.write((folder / "it.gguf").read_bytes())
    for number, seed in enumerate(("it.gguf", f"{remote}/it.gguf")):
        result = run("upcycle", sparse(folder, seed), f"moe{number}")
        assert result.code == 0, result.err
        moe = load_file(folder / f"moe{number}" / WEIGHTS)
        q = "model.layers.0.self_attn.q_proj.weight"
        assert moe[q].equal(made.state_dict()[q])
        assert (folder / f"moe{number}" / "tokenizer.json").is_file()


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """A web server that lists the folder's files."""
    yield from _served(partial(SimpleHTTPRequestHandler, directory=str(folder)))


def _served(
    handler: partial[BaseHTTPRequestHandler] | type[BaseHTTPRequestHandler],
) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_web_server_is_read(folder: Path, server: str, run: Run) -> None:
    pytest.importorskip("aiohttp")
    seed = write_dense(folder / "seed")
    result = run("upcycle", sparse(folder, f"{server}/seed/"), "moe")
    assert result.code == 0, result.err
    moe, dense = load_file(folder / "moe" / WEIGHTS), load_file(seed / WEIGHTS)
    assert moe["model.norm.weight"].equal(dense["model.norm.weight"])


HUB_ERRORS = {"gated": (403, "GatedRepo"), "absent": (404, "RepoNotFound")}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does about models that one may not have."""

    def do_GET(self) -> None:
        code, name = HUB_ERRORS["gated" if "gated" in self.path else "absent"]
        self.send_response(code)
        self.send_header("X-Error-Code", name)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for endpoint in _served(Hub):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        yield endpoint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/gated", "the model is gated, and this account has no access to it"),
        ("owner/absent", "no such model, or a private one"),
    ],
)
def test_what_the_hub_refuses_is_one_message(
    name: str, expected: str, folder: Path, hub: str, run: Run
) -> None:
    result = run("upcycle", sparse(folder, name), "moe")
    assert result.code == 1
    assert f"error {name}: there is no folder {name}, and the hub gives nothing: {expected}. " in (
        result.err
    )
    assert "Give a local folder, or see to the network" in result.err
    assert [path.name for path in folder.iterdir()] == ["spec.yaml"]


def test_a_hub_name_without_a_network_is_one_message(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = run("upcycle", sparse(folder, "owner/model@main"), "moe")
    assert result.code == 1
    assert "it cannot be reached, and its cache lacks the model" in result.err
    assert "model" in json.dumps(result.err)
