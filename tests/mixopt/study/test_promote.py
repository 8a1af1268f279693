"""What `promote` of a study file may ask of the machines, and what it is refused for."""

from pathlib import Path

import pytest

from mixopt.core.errors import StudyError
from mixopt.study.promote import Promote
from mixopt.study.settings import load_study

HEAD = "name: demo\ncorpus: corpus\nobjective:\n  law: 1\npromote:\n"


def promote(folder: Path, text: str) -> Promote:
    path = folder / "study.yaml"
    path.write_text(HEAD + text)
    found = load_study(path).promote
    assert found is not None
    return found


def test_one_process_is_the_default(tmp_path: Path) -> None:
    asked = promote(tmp_path, "  tokens: 600k\n").resources
    assert (asked.processes, asked.cpus, asked.gpus, asked.recompute) == (1, None, None, False)


def test_machines_approval_and_what_it_is_compared_with_are_no_part_of_what_a_promotion_is(
    tmp_path: Path,
) -> None:
    plain = promote(tmp_path, "  tokens: 600k\n").canonical()
    other = "  resources: {processes: 4, gpus: 1, recompute: true}\n  approve: manual\n"
    other += "  baseline_curve: baseline.csv\n"
    assert promote(tmp_path, "  tokens: 600k\n" + other).canonical() == plain
    assert promote(tmp_path, "  tokens: 600k\n  train: true\n").canonical() == plain
    assert promote(tmp_path, "  tokens: 600k\n  train: false\n").canonical() != plain
    assert promote(tmp_path, "  tokens: 600k\n  upcycle: false\n").canonical() == plain


def test_a_trainer_may_begin_from_a_model_that_is_upcycled_here(tmp_path: Path) -> None:
    plain = promote(tmp_path, "  tokens: 1M\n")
    alone = promote(tmp_path, "  tokens: 1M\n  trainer: a.b:c\n")
    ours = "  seed_model: dense\n  merge: ties\n  resources: {processes: 2, recompute: true}\n"
    both = promote(tmp_path, "  tokens: 1M\n  trainer: a.b:c\n  upcycle: true\n" + ours)
    assert (plain.upcycles, alone.upcycles, both.upcycles) == (True, False, True)
    assert [it.trains_upcycled for it in (plain, alone, both)] == [True, False, False]
    assert (alone.tokens_each, both.tokens_each) == (1_000_000, plain.tokens_each)
    upcycled = promote(tmp_path, "  tokens: 1M\n  trainer: elsewhere\n  upcycle: true\n")
    assert upcycled.canonical() == plain.canonical() | {"upcycle": True}
    assert load_study(tmp_path / "study.yaml").upcycling == upcycled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  resources: {processes: 0}\n", "resources.processes"),
        (
            "  resources: {processes: 5}\n  recipe: {batch_sequences: 8, micro_batches: 2}\n",
            "5 processes cannot share 4 sequences",
        ),
        ("  resources: {processes: 2, gpus: 0.5}\n", "each takes one whole GPU"),
        ("  resources: {processes: 2, gpus: 2}\n", "each takes one whole GPU"),
        ("  params: 1B\n", "is for promote.trainer, and none is named"),
        ("  trainer: a.b:c\n  tokens: 1B\n  resources: {processes: 2}\n", "resources.processes"),
        ("  trainer: a.b:c\n  tokens: 1B\n  resources: {recompute: true}\n", "resources.recompute"),
        ("  trainer: a.b:c\n  tokens: 1B\n  train: false\n", "train: your trainer has its own"),
        (
            "  trainer: a.b:c\n  tokens: 1B\n  merge: ties\n",
            "merge: your trainer has its own; give it trainer.settings, or set promote.upcycle",
        ),
        ("  upcycle: true\n", "upcycle: is for promote.trainer, and none is named"),
        ("  trainer: a.b:c\n  upcycle: true\n", "tokens: say how many tokens"),
        (
            "  trainer: a.b:c\n  tokens: 1B\n  upcycle: true\n  train: false\n",
            "train: your trainer trains the upcycled model .promote.upcycle.; leave it out",
        ),
        (
            "  trainer: a.b:c\n  tokens: 1B\n  upcycle: true\n  trains: [{what: all, share: 1}]\n",
            "trains: your trainer trains the upcycled model",
        ),
        (
            "  trainer: a.b:c\n  tokens: 1B\n  upcycle: true\n  params: 1B\n",
            "params: the size of the upcycled model is known",
        ),
        (
            "  trainer: elsewhere\n  tokens: 1B\n  baseline_curve: b.csv\n",
            "nothing watches a full run that is trained elsewhere",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message) as refused:
        promote(tmp_path, text)
    assert "study.yaml:" in str(refused.value)


def test_a_batch_of_eight_is_shared_by_up_to_eight_processes(tmp_path: Path) -> None:
    text = "  resources: {processes: 8, gpus: 1}\n  recipe: {batch_sequences: 8}\n"
    assert promote(tmp_path, text).resources.processes == 8


def test_phases_are_part_of_what_a_promotion_is_and_must_be_whole(tmp_path: Path) -> None:
    text = "  trains: [{what: router, share: 0.1}, {what: all, share: 0.9}]\n"
    found = promote(tmp_path, text)
    assert [(phase.what, phase.share) for phase in found.phases] == [("router", 0.1), ("all", 0.9)]
    assert found.canonical() != promote(tmp_path, "  tokens: 600k\n").canonical()
    assert "trains" not in promote(tmp_path, "  tokens: 600k\n").canonical()
    with pytest.raises(StudyError, match=r"the shares must sum to 1, they sum to 0\.5"):
        promote(tmp_path, "  trains: [{what: router, share: 0.5}]\n")
    with pytest.raises(StudyError, match="trains"):
        promote(tmp_path, "  trains: [{what: attention, share: 1.0}]\n")
