"""MLflow's own pages in a real browser show what a person looks for."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixopt.core.errors import MixoptError, StudyError
from mixopt.pipelines.views.mlflow import run_tags
from mixopt.pipelines.views.mlflow.links import run_link
from mixopt.pipelines.views.mlflow.mlflow_store import RunStore, tracking_uri
from mixopt.pipelines.views.mlflow.server import free_port, serving
from mixopt.pipelines.views.mlflow.tracking import Tracker
from mixopt.pipelines.views.mlflow.ui import find_pages, show_ui
from mixopt.study.champion import ChampionDecision
from mixopt.study.records import read_promotion
from mixopt.study.settings import Study, load_study
from tests.pipelines.finished_study import finished_study, open_ledger, owner_of, write_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page = playwright.Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 120  # for a page to show: servers and browsers are slow on busy cores
pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A finished study that MLflow shows, its promoted model the champion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        study = finished_study(tmp_path_factory.mktemp("study"), "seen", trials=14)
        ledger = open_ledger(study)
        tracker = Tracker.open(study, owner_of(study), on_warning=pytest.fail)
        assert tracker.sync(ledger.trials())
        ledger.close()
        promotion = read_promotion(study.home)
        assert promotion is not None
        decision = ChampionDecision(promotion=promotion.key, alias="champion", reason="the first")
        assert tracker.decided(decision)
        tracker.close()
        yield study


@pytest.fixture(scope="module")
def links(study: Study) -> Iterator[dict[str, str]]:
    """What each page is → its address, while a server shows it."""
    with serving(tracking_uri(study), free_port(None)) as address:
        yield find_pages(study).links(address)


@pytest.fixture(scope="module")
def page(links: dict[str, str]) -> Iterator[Page]:
    base = next(iter(links.values())).split("#")[0]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1100})
        page.set_default_timeout(SECONDS * 1000)
        # what MLflow asks of other machines never answers here
        page.route(
            "**/*",
            lambda it: it.continue_() if it.request.url.startswith(base) else it.abort(),
        )
        yield page
        browser.close()


def seen(page: Page, address: str, text: str) -> str:
    """All text of the page at `address`, once it has `text`."""
    page.goto("about:blank")  # another fragment alone loads nothing anew
    page.goto(address, wait_until="commit")
    page.get_by_text(text).first.wait_for()
    for more in page.get_by_text("Show more", exact=True).all():
        more.click()
    return str(page.inner_text("body"))


@needs_browser
def test_the_experiment_opens_on_its_trials_the_best_first(
    page: Page, links: dict[str, str]
) -> None:
    text = seen(page, links["trials, best first"], "select · 2.")
    assert "seen: trials, best first" in text
    heads = page.locator("[role=columnheader][col-id]").evaluate_all(
        "all => all.map(it => [it.getBoundingClientRect().left, it.getAttribute('col-id')])"
        ".sort((a, b) => a[0] - b[0]).map(it => it[1])"
    )
    shown = [name for name in heads if name.startswith(("metrics.`", "params.`"))]
    order = ["metrics.`objective`", "params.`role`", "params.`round`", "params.`fidelity`"]
    assert shown[:4] == order
    names = page.locator("[role=gridcell] a").all_inner_texts()
    middle = [name.split(" · ")[1] for name in names if name.count(" · ") >= 2]
    assert middle.pop() == "diverged"  # no score: last
    values = list(map(float, middle))
    assert len(values) > 5
    assert values == sorted(values)


@needs_browser
def test_a_trial_says_what_it_was_and_shows_the_objective_first(
    page: Page, links: dict[str, str], study: Study
) -> None:
    store = RunStore.find(study)
    assert store is not None
    [run] = store.runs({run_tags.KIND: "trial", run_tags.TRIAL: "11"})
    address = run_link(links["study"].split("#")[0], store.experiment, run.info.run_id)
    text = seen(page, address, "Metrics (")
    assert str(run.info.run_name) in text
    assert "Trial 11, search: a mixture that the proposer asked for." in text
    metrics, params = text[text.index("Metrics (") :].split("Parameters (")
    first = next(line for line in metrics.splitlines() if "/" in line or line == "objective")
    assert first == "objective"
    rows = params.splitlines()
    order = ["trial", "role", "round", "fidelity", "seed"]
    assert [name for name in rows if name in order] == order
    assert "corpus (" in text  # its dataset
    assert "mlflow.mixopt" not in text


@needs_browser
def test_the_study_says_verdict_next_step_mixtures_and_bill(
    page: Page, links: dict[str, str]
) -> None:
    text = seen(page, links["study"], "Metrics (")
    page_of = text[text.index("Description") :]
    parts = ["The found mixture is selected", "Next:", "Mixtures", "Promoted model", "Bill"]
    places = [page_of.index(part) for part in parts]
    assert places == sorted(places)
    assert "found (selected)" in page_of
    way = page.get_by_role("link", name="all trials, best first").first.get_attribute("href")
    assert way is not None
    assert way.split("#")[1] == links["trials, best first"].split("#")[1]


@needs_browser
def test_the_model_says_method_mixture_verdict_and_lineage(
    page: Page, links: dict[str, str]
) -> None:
    text = seen(page, links["model"], "Lineage")
    for part in (
        "Upcycled by branch-train-mix",
        "The found mixture is selected",
        "docstrings",
        "made-up",  # the promotion's id
        "champion",
        "mixopt.reason",
    ):
        assert part in text
    assert "mlflow.mixopt" not in text


def test_ui_prints_its_links_and_ends_on_ctrl_c(study: Study) -> None:
    port = free_port(None)
    command = [sys.executable, "-m", "mixopt", "ui", str(study.path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        lines = []
        for line in served.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        served.send_signal(signal.SIGINT)
        rest = served.stdout.read()
        assert served.wait(60) == 0
    assert "pages are closed" in rest
    assert sum(f"http://127.0.0.1:{port}/#/" in line for line in lines) == 4
    assert free_port(port) == port  # nobody listens any more


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MixoptError, match=f"port {port} is in use"):
            free_port(port)


def test_ui_of_a_study_that_nothing_shows_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = write_study(tmp_path, "unseen")
    assert owner_of(study).id  # it has begun
    database = study.home / "mlflow.db"
    before = database.read_bytes()
    with pytest.raises(StudyError, match="mixopt sync"):
        show_ui(study.path)
    assert database.read_bytes() == before
    study.path.write_text(study.path.read_text() + "mlflow: {enabled: false}\n")
    with pytest.raises(StudyError, match="MLflow is switched off"):
        show_ui(load_study(study.path).path)
