"""Our stages of a promotion whose upcycled model a trainer of the user's trains.

    promote: {trainer: {command: "python train.py {job}"}, upcycle: true, tokens: 20B}

    seed ──► experts ──► upcycled ──► initial (Hugging Face) ──► full-run, by the trainer

With another script, or other tokens, the promotion is another one; stages that have ended are
taken over from the one before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mixopt.io import files, markers
from mixopt.io.markers import TOKENIZER
from mixopt.io.new_folder import new_folder
from mixopt.io.trial_files import MARKER, read_object
from mixopt.pipelines.study.export_model import link, write_hugging_face
from mixopt.pipelines.study.initial_model import CHECKPOINT, INITIAL, initial_folder
from mixopt.pipelines.study.own_promotion import FULL_RUN_FOLDER
from mixopt.pipelines.study.promotion_record import upcycled
from mixopt.pipelines.study.promotion_run import PromotionRun
from mixopt.pipelines.study.promotion_stages import UPCYCLED, Stages, upcycle_stages
from mixopt.pipelines.study.stage_trainings import ClusterMachine
from mixopt.pipelines.study.upcycled_checkpoint import upcycle_checkpoint
from mixopt.study.results import Promotion

STAGES = "stages.json"  # in a promotion's folder: what its stages depend on, as a hash
LOCK = "lock"


def upcycled_model(job: PromotionRun) -> Promotion:
    """The promotion before its trainer begins: what is not trained or upcycled yet, is now.

    Args:
        job: the promotion; its settings have `upcycle` and a trainer.

    Raises:
        TrainingError: a stage failed for good; the ones before it are kept.
        MixoptError: the upcycling failed.
    """
    _take_over(job)
    if job.models is not None and job.models.checkpoints:
        return upcycle_checkpoint(job, job.models, {})
    plan = job.stages()
    done = upcycle_stages(plan, ClusterMachine(job.session))
    return upcycled(job, plan, done, _written(job, plan))


def _written(job: PromotionRun, plan: Stages) -> Path:
    """The folder that the trainer begins from, written unless it is there."""
    source, initial = plan.folder / UPCYCLED, initial_folder(job)
    files.keep_bytes(source / TOKENIZER, plan.corpus.tokenizer_path.read_bytes())
    if initial != source:
        _keep_written(
            initial,
            lambda to: write_hugging_face(to, source, plan.corpus, plan.recipe.sequence_length),
            job.session.display.warn,
        )
    return initial


def _keep_written(initial: Path, fill: Callable[[Path], None], warn: Callable[[str], None]) -> None:
    """Have the folder as `fill` writes it: anew where it was changed since, as by a trainer."""
    if markers.read(initial) is not None:
        return
    if (initial / MARKER).exists():
        warn(
            f"{initial} was changed and is written again: a trainer writes into `folder` of its job"
        )
    if initial.exists():
        with files.writing(initial):
            shutil.rmtree(initial)
    with new_folder(initial) as folder:
        fill(folder)
        found = markers.all_described(folder)
        markers.write(folder, {}, {name: found[name] for name in found if name[0] != "."})


def _take_over(job: PromotionRun) -> None:
    """Take stages that have ended from promotions that differ in trainer or tokens alone."""
    name = job.stages_name
    files.keep_json(job.folder / STAGES, {"name": name})
    for record in sorted(job.folder.parent.glob(f"*/{STAGES}")):
        if record.parent == job.folder or read_object(record).get("name") != name:
            continue
        new = [part for part in _ended(record.parent) if not (job.folder / part.name).exists()]
        for part in new:
            _linked(part, job.folder / part.name)
        if new:
            names = ", ".join(part.name for part in new)
            job.session.display.say(f"taken over from {record.parent}: {names}")


def _ended(promotion: Path) -> Iterator[Path]:
    """Folders of a promotion's stages that have ended, the upcycled model last: it vouches."""
    parts = [path for path in promotion.iterdir() if path.is_dir() and path.name[0] != "."]
    for part in sorted(parts, key=lambda path: (path.name == UPCYCLED, path.name)):
        whole = part.name in (CHECKPOINT, INITIAL) or (part / MARKER).exists()
        if whole and part.name != FULL_RUN_FOLDER:
            yield part


def _linked(source: Path, target: Path) -> None:
    """Put a folder at `target` too, whole or not at all, without a second copy on the disk."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with files.writing(target):
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.name != LOCK:
                copy = part / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                link(path, copy)
        if (source / LOCK).exists():
            (part / LOCK).touch()  # it says that the stage has begun
        part.rename(target)
