"""What a promotion depends on, kept in its folder; and a line where another one begins for it.

The name of the folder is a hash of it: with another `promote.recipe` a promotion begins anew, and
the one that ended or was interrupted stays beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixopt.core.formatting import count
from mixopt.io import files, markers
from mixopt.io.full_checkpoints import resumed_tokens
from mixopt.io.trial_files import read_object
from mixopt.pipelines.study.open_full_run import stage_folders, worked_on
from mixopt.pipelines.study.own_promotion import FULL_RUN_FOLDER
from mixopt.study.records import read_result
from mixopt.trainers.job import JOB

ASKED = "asked.json"  # in a promotion's folder
LONGEST = 60  # characters of a value that is shown
# what a promotion depends on beside its settings
OTHERS = {
    "mixture": "the mixture of the verdict",
    "corpus": "the corpus",
    "seed": "the study's seed",
    "trainer": "promote.trainer (its files, command, version or settings)",
    "models": "promote.seed_model or promote.expert_models, or what they hold,",
}
FOUND = ("mixture", "corpus")  # of them: no key of `promote` sets them back


def keep_asked(folder: Path, asked: Mapping[str, Any]) -> None:
    """Keep what the promotion in `folder` depends on."""
    files.keep_json(folder / ASKED, dict(asked))


def new_promotion_note(folder: Path, asked: Mapping[str, Any] | None) -> str:
    """A line where the promotion in `folder` is not begun, and another one of the study is.

    It names what differs, where that one stays and how far it is, and what goes on from there.
    Empty where there is nothing to say.

    Args:
        folder: of the promotion that is asked for.
        asked: what it depends on; None of one by a trainer of the user's alone.
    """
    last = _last_begun(folder.parent)
    if last is None or _begun(folder):
        return ""
    if asked is None or not (last / ASKED).exists():
        changed, settable = ["promote.trainer differs"], True
    else:
        before = read_object(last / ASKED)
        changed = list(_changes(before, asked))
        settable = all(before.get(name) == asked.get(name) for name in FOUND)
    ended = read_result(last)
    tokens = sum(map(_trained, stage_folders(last))) if ended is None else ended.tokens
    now = "interrupted" if ended is None else "ended"
    then = "goes on from there" if ended is None else "counts, and nothing is trained"
    return (
        f"A new promotion begins: {'; '.join(changed)}. The one before stays in {last} ({now}, "
        f"{count(tokens)} tokens trained){f': with the earlier values it {then}' * settable}."
    )


def _last_begun(promotions: Path) -> Path | None:
    """The promotion that was worked on last, if what it depends on is known."""
    known = [path for path in promotions.glob("*") if _begun(path) and _is_known(path)]
    return max(known, key=worked_on, default=None)


def _is_known(promotion: Path) -> bool:
    return (promotion / ASKED).exists() or (promotion / FULL_RUN_FOLDER / JOB).exists()


def _begun(promotion: Path) -> bool:
    handed_out = (promotion / FULL_RUN_FOLDER / JOB).exists()
    return handed_out or bool(stage_folders(promotion)) or read_result(promotion) is not None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = (dict(_flat("promote", asked.get("promote", {}))) for asked in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} was {_shown(old, key)}, is {_shown(new, key)}"
    for name, what in OTHERS.items():
        if before.get(name) != now.get(name):
            yield f"{what} differs"


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _flat(f"{key}.{name}", each)
    else:
        yield key, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "not set"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _trained(stage: Path) -> int:
    """Tokens that a resume need not train again."""
    outcomes = (markers.read_alone(stage) or {}).get("outcomes")
    if not outcomes:
        return resumed_tokens(stage)
    result = outcomes[0].get("result") or {}
    return int(result.get("cost", {}).get("tokens", 0))
