"""Whoever the study file names is told when a command of a study ends: `notify`.

A webhook gets a POST, a command the same JSON object on stdin. What goes wrong with that is a
warning, and harms nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Literal

from mixopt.core import urls
from mixopt.pipelines.study.session import Session
from mixopt.pipelines.study.standing import verdict_values
from mixopt.pipelines.study.trials import TrialsWait
from mixopt.pipelines.views.json_output import json_text
from mixopt.pipelines.views.wording import headline
from mixopt.study.progress import read_progress
from mixopt.study.records import read_verdict

SECONDS = 20.0  # that a webhook or a command may take
Event = Literal["finished", "failed"]


@contextlib.contextmanager
def notifying(session: Session, command: str) -> Iterator[None]:
    """Tell what becomes of the block: that it finished, or the error that ended it.

    Ctrl-C, and trials that wait for results from elsewhere, are told to nobody.
    """
    try:
        yield
    except TrialsWait:
        raise
    except Exception as error:
        send(session, payload(session, command, "failed", str(error) or type(error).__name__))
        raise
    trials, verdict = session.ledger.trials(), read_verdict(session.home)
    message = headline(trials, session.objective, verdict, session.study.search.repeats)
    send(session, payload(session, command, "finished", message))


def payload(session: Session, command: str, event: Event, message: str) -> dict[str, Any]:
    """What is told, passwords of URLs masked; `text` is what chat services show."""
    progress, verdict = read_progress(session.home), read_verdict(session.home)
    message = urls.masked(message)
    return {
        "study": session.study.name,
        "folder": str(session.home),
        "command": command,
        "event": event,
        "stage": "" if progress is None else progress.stage,
        "message": message,
        "verdict": None if verdict is None else verdict_values(verdict),
        "text": f"mixopt {command} of {session.study.name} {event}: {message}",
    }


def send(session: Session, values: dict[str, Any]) -> None:
    """Tell `values` to all that the study file names; a failure is a warning."""
    asked = session.study.notify
    if asked is None:
        return
    body = json_text(values, indent=None).encode()
    if asked.url is not None:
        try:
            _post(os.path.expandvars(asked.url), body)
        except (OSError, ValueError, http.client.HTTPException) as error:
            # without the address: that of a webhook is a secret
            session.display.warn(f"notify.url was not told: {_reason(error)}")
    if asked.command is not None:
        try:
            _run(asked.command, body, str(session.study.path.parent))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            session.display.warn(f"notify.command failed: {_reason(error)}")


def _post(url: str, body: bytes) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no address that begins with http:// or https://")
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass


def _run(command: str, body: bytes, folder: str) -> None:
    subprocess.run(
        shlex.split(command),
        input=body,
        cwd=folder,
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )


def _reason(error: Exception) -> str:
    """Why, in few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {SECONDS:g} s"
    if isinstance(error, subprocess.CalledProcessError):
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return f"exit code {error.returncode}{': ' if last else ''}{''.join(last)}"
    return str(error)
