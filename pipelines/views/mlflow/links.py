"""Addresses of a study's pages in MLflow.

A bare link to an experiment or run lands among pages for language-model traces in MLflow 3.17;
`workflowType` leads to those for training runs.
"""

from __future__ import annotations

from urllib.parse import quote

TRAINING = "workflowType=machine_learning"


def runs_link(base: str, experiment: str, view: str = "") -> str:
    """The table of runs, with the columns and order of the saved view `view`.

    >>> runs_link("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
    """
    chosen = f"&viewStateShareKey={quote(view)}" if view else ""
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs?{TRAINING}{chosen}"


def run_link(base: str, experiment: str, run: str) -> str:
    """The page of one run."""
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run}?{TRAINING}"


def version_link(base: str, name: str, version: str) -> str:
    """The page of a version of a registered model.

    >>> version_link("", "my study", "2")
    '/#/models/my%20study/versions/2?workflowType=machine_learning'
    """
    return f"{base.rstrip('/')}/#/models/{quote(name, safe='')}/versions/{version}?{TRAINING}"
