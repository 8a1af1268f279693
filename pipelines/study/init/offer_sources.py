"""Where there is text and no corpus yet: a sources file is offered before a study file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixopt.corpus.manifest import MANIFEST
from mixopt.io import files
from mixopt.pipelines.study.init.answers import Answers
from mixopt.pipelines.study.init.asker import Asker, parts_of, yes_or_no
from mixopt.pipelines.study.init.found_text import SOURCES, found_text, sources_text, text_table
from mixopt.pipelines.views.console import make_console

NONE = "none"
MOST_FOLDERS = 1000  # looked at for a corpus


def offer_sources(answers: Answers) -> bool:
    """Whether there is text here in the place of a corpus, and a sources file was written for it.

    Asked only where nothing names a corpus or a trainer, and there is neither a corpus nor a
    sources file.

    Raises:
        StudyError: the input ends before the last question.
    """
    named = answers.corpus or answers.trainer or answers.domains
    if named or SOURCES.exists() or found_corpora(Path()):
        return False
    found = found_text(Path())
    if len(found) < 2:
        return False
    asker = Asker(make_console())
    asker.say("There is no corpus here yet, but text that one can be made of:")
    asker.console.print(text_table(found))
    if not asker.ask(f"Write {SOURCES} for these domains, yes or no", "yes", yes_or_no):
        return False
    asker.say(
        "What shall the mixture be good for? A domain of that alone is never trained on. Without "
        "one, it is all of them."
    )
    names = [domain.name for domain in found]
    targets = asker.ask("Validation only", NONE, lambda text: _some_of(text, names))
    files.write_bytes(SOURCES, sources_text(found, targets).encode())
    following = "mixopt corpus build sources.yaml corpus\n  mixopt init"
    asker.say(f"Wrote {SOURCES}. Next:\n  {following}")
    return True


def _some_of(text: str, names: Sequence[str]) -> list[str]:
    chosen = [] if text == NONE else parts_of(text)
    for name in chosen:
        if name not in names:
            raise ValueError(f"there is no domain {name!r}; choose from {', '.join(names)}")
    if len(names) - len(set(chosen)) < 2:
        raise ValueError("a mixture needs two domains or more to train on")
    return chosen


def found_corpora(folder: Path) -> list[Path]:
    """Corpora in `folder`: itself and folders in it, by name."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())[:MOST_FOLDERS]
    return [path for path in (folder, *inside) if (path / MANIFEST).is_file()]
