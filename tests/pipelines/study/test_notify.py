"""`notify`: a real webhook and a real command are told, and what fails harms nothing."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mixopt.core.errors import StudyError, TrainingError
from mixopt.pipelines.study import notify
from mixopt.pipelines.study.session import open_session
from mixopt.pipelines.views.console import Display
from mixopt.study.overrides import overriding
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return finished_study(tmp_path_factory.mktemp("told"))


@contextlib.contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps what is posted to it, and its address."""
    told: list[Any] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


def run_with(study: Study, error: Exception | None = None, **asked: str) -> str:
    """Open the study, let a command of it end (by `error`), and return what was printed."""
    settings = ", ".join(f"{key}: {json.dumps(value)}" for key, value in asked.items())
    printed = io.StringIO()
    display = Display(Console(file=printed, width=200))
    with (
        overriding([f"notify={{{settings}}}", "mlflow.enabled=false"]),
        open_session(study.path, display) as session,
        contextlib.suppress(TrainingError),
        notify.notifying(session, "run"),
    ):
        if error is not None:
            raise error
    return printed.getvalue().partition("\n")[2]  # after the line on overrides


def test_a_webhook_is_told_of_the_end_with_the_verdict(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "T0/B1")
    with webhook() as (url, told):
        assert run_with(study, url=f"{url}/services/$HOOK_SECRET") == ""
    ((path, kind, values),) = told
    assert (path, kind) == ("/services/T0/B1", "application/json")
    assert (values["study"], values["event"], values["command"]) == ("tiny", "finished", "run")
    assert values["verdict"]["selected"] in values["message"]
    assert values["text"].startswith("mixopt run of tiny finished: ")


def test_a_failure_is_told_without_passwords_and_still_raised(study: Study) -> None:
    error = TrainingError("postgresql://me:secret@host/db is gone", where="trial 3")
    with webhook() as (url, told):
        run_with(study, error, url=url)
        with (
            pytest.raises(ZeroDivisionError),
            open_session(study.path) as session,
            notify.notifying(session, "run"),
        ):
            raise ZeroDivisionError
    ((_, _, values),) = told  # the second had nobody to tell
    assert values["event"] == "failed"
    assert values["message"].startswith("trial 3: postgresql://me:***@host/db is gone")


def test_a_command_gets_the_same_on_stdin_beside_the_study_file(study: Study) -> None:
    assert run_with(study, command="""sh -c 'cat > "told $0.json"' now""") == ""
    values = json.loads((study.path.parent / "told now.json").read_text())
    assert values["event"] == "finished"


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("sh -c 'echo no mail >&2; exit 3'", "notify.command failed: exit code 3: no mail"),
        ("no-such-program", "notify.command failed: "),
        ("sleep 600", "notify.command failed: it took longer than 0.2 s"),
    ],
)
def test_a_command_that_fails_is_a_warning(
    study: Study, command: str, warning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.2)
    assert warning in run_with(study, command=command)


def test_a_webhook_that_refuses_or_is_gone_is_a_warning_without_its_address(study: Study) -> None:
    with webhook(status=500) as (url, _):
        refused = run_with(study, url=f"{url}/secret")
    gone = run_with(study, url=f"{url}/secret")
    assert "notify.url was not told: HTTP 500" in refused
    assert "notify.url was not told: " in gone
    assert "no address" in run_with(study, url="$NOT_SET/secret")
    assert "secret" not in refused + gone


def test_the_study_file_may_name_the_webhook_alone(study: Study) -> None:
    text = study.path.read_text()
    file = Path(study.path).with_name("short.yaml")
    file.write_text(text + "notify: https://hooks.example/x\n")
    asked = load_study(file).notify
    assert asked is not None
    assert (asked.url, asked.command) == ("https://hooks.example/x", None)
    file.write_text(text + 'notify: {command: "mail \'me"}\n')
    with pytest.raises(StudyError, match=r"short\.yaml:\d+: notify\.command"):
        load_study(file)
