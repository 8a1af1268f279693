"""The release recipe, from version to tag, in a clone that is thrown away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import mixopt

ROOT = Path(__file__).parents[1]
NEXT = f"{Version(mixopt.__version__).major + 1}.0.0"

pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="a release is made from a git checkout"
)


def release(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "release.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_release_has_an_sdist_a_wheel_and_a_tag_and_leaves_the_checkout_alone() -> None:
    before = (ROOT / "CHANGELOG.md").read_bytes()
    done = release(NEXT, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"built mixopt-{NEXT}.tar.gz",
        f"built mixopt-{NEXT}-py3-none-any.whl",
        f"tagged v{NEXT}",
    ]
    assert (ROOT / "CHANGELOG.md").read_bytes() == before


@pytest.mark.parametrize("version", ["0.0.1", "next"])
def test_a_version_that_does_not_follow_is_refused(version: str) -> None:
    done = release(version, "--dry-run")
    assert done.returncode == 1
    assert f"{version} is released already, or comes before" in done.stderr


def test_the_hooks_before_a_commit_are_the_linters_of_make_test() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    for hook in hooks:
        command = hook["entry"].removesuffix(" --force-exclude").replace(".venv/bin/", "$(BIN)/")
        assert command in makefile
