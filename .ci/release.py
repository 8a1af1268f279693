"""Make a release: version, changelog, sdist, the wheel from it, commit and tag.

    .venv/bin/python .ci/release.py 0.2.0 --dry-run     # all of it, in a clone that is thrown away
    .venv/bin/python .ci/release.py 0.2.0               # here; then: git push --follow-tags

`make test test-slow test-numerics` come first. Publishing is by hand: `twine upload dist/*`.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
VERSION = re.compile(r'^__version__ = ".+"$', re.MULTILINE)
UNRELEASED = re.compile(r"^## (\S+) \(unreleased\)$", re.MULTILINE)


def main() -> None:
    """Release as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true", help="in a clone that is thrown away")
    asked = parser.parse_args()
    if not asked.dry_run:
        release(ROOT, asked.version)
        return
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "mixopt"
        run(Path(folder), "git", "clone", "-q", str(ROOT), str(clone))
        for key, value in (("user.name", "dry run"), ("user.email", "dry@run")):
            run(clone, "git", "config", key, value)
        release(clone, asked.version)


def release(checkout: Path, version: str) -> None:
    """Release `checkout` as `version`; nothing is changed where a check fails."""
    if run(checkout, "git", "status", "--porcelain"):
        sys.exit("the checkout has changes: commit them, or put them away")
    code, log = checkout / "mixopt" / "__init__.py", checkout / "CHANGELOG.md"
    changelog = log.read_text()
    heading = UNRELEASED.search(changelog)
    if heading is None:
        sys.exit(f"{log}: there is no heading such as: ## {version} (unreleased)")
    if not follows(version, heading[1], run(checkout, "git", "tag").split()):
        sys.exit(f"{version} is released already, or comes before {heading[1]}, which is not")

    code.write_text(VERSION.sub(f'__version__ = "{version}"', code.read_text()))
    today = datetime.datetime.now(datetime.UTC).date()
    log.write_text(UNRELEASED.sub(f"## {version} ({today})", changelog, count=1))
    for made in build(checkout, checkout / "dist"):
        print(f"built {made.name}")
    run(checkout, "git", "commit", "-qam", f"Release {version}")
    changes = changelog[heading.end() :].partition("\n## ")[0].strip()
    run(checkout, "git", "tag", "-a", f"v{version}", "--cleanup=verbatim", "-m", changes)
    print(f"tagged v{version}")


def follows(version: str, unreleased: str, tags: Sequence[str]) -> bool:
    """Whether `version` is one, has no tag, and is not before the `unreleased` one."""
    try:
        return f"v{version}" not in tags and Version(version) >= Version(unreleased)
    except InvalidVersion:
        return False


def build(checkout: Path, out: Path) -> list[Path]:
    """The sdist of `checkout`, and the wheel that is built from it."""
    run(checkout, sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(out))
    (sdist,) = out.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).iterdir()
        run(unpacked, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out))
    return [sdist, *out.glob("*.whl")]


def run(folder: Path, *command: str) -> str:
    """What `command`, run in `folder`, prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
