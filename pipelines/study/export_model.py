"""`mixopt export STUDY --model OUT`: the promoted model as others load it.

Of our upcycling a Hugging Face folder:

config.json, model*.safetensors   transformers, vLLM, SGLang and llama.cpp's converter read them
generation_config.json
tokenizer.json, tokenizer_config.json, special_tokens_map.json
README.md                         the model card
upcycling.json                    receipt of the upcycling
mixopt.json                       study, corpus, mixture, method, code version

Of a trainer of the user's (`promote.trainer`) its checkpoint as it is, with a card and mixopt.json,
and upcycling.json where it began from a model of our upcycling.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mixopt import __version__
from mixopt.core.errors import CheckpointError, CorpusError, StudyError
from mixopt.corpus import hugging_face
from mixopt.corpus.shards import Corpus
from mixopt.io import files, markers
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.io.new_folder import new_folder, refuse_existing
from mixopt.models.config import ModelConfig
from mixopt.pipelines.views.commands import command
from mixopt.pipelines.views.console import make_console
from mixopt.pipelines.views.model_card import Layout, Lineage, model_card
from mixopt.pipelines.views.wording import headline
from mixopt.study import identity
from mixopt.study.data import TrainingData
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion
from mixopt.study.settings import Study, load_study

RECEIPT, LINEAGE, CARD = "upcycling.json", "mixopt.json", "README.md"
CONFIG = "config.json"
Place = Callable[[Path, Path], Any]  # puts a file where it is not
SHARD = 5 * 10**9  # bytes of a file
REMAKE = "Run `mixopt promote`, which writes it again"


def export_model(path: Path, out: Path) -> None:
    """Write the promoted model of the study at `path` into the new folder `out`, and say so.

    Raises:
        StudyError: nothing is promoted, the corpus is another, or the format cannot hold the model.
        MixoptError: the model or the corpus cannot be read, or `out` exists or cannot be written.
    """
    study = load_study(path)
    refuse_existing(out)
    promotion = promoted(study)
    layout = write_model(study, promotion, out)
    state = "" if promotion.trained else ", upcycled, not trained,"
    what = "the checkpoint of your trainer"
    if layout is not None:
        what = f"a {layout.family} of transformers"
    make_console().print(
        f"Wrote the {promotion.mixture_name} model of {study.name}{state} to {out}: {what}, with "
        f"its card in {card_name(promotion)}",
        soft_wrap=True,
    )


def promoted(study: Study) -> Promotion:
    """What the study promoted.

    Raises:
        StudyError: nothing yet.
    """
    promotion = read_promotion(study.home)
    if promotion is None:
        raise StudyError(
            "no model is promoted yet",
            where=str(study.path),
            hint=f"Run `{command('run', study.path)}` first",
        )
    return promotion


def card_name(promotion: Promotion) -> str:
    """The file of the model card: another one where the checkpoint has a README of its own."""
    return "MIXOPT.md" if CARD in promotion.files and not promotion.upcycled else CARD


def write_model(
    study: Study, promotion: Promotion, out: Path, place: Place = shutil.copyfile
) -> Layout | None:
    """Write a promoted model as others load it, in a folder that appears whole or not at all.

    Args:
        study: whose promotion it is.
        promotion: see `promoted`.
        out: the folder; it must not exist.
        place: copies a file of a checkpoint that stays as it is.

    Returns:
        What it is to other tools; None of a checkpoint of the user's own trainer.

    Raises:
        StudyError: the corpus is not the one of the promotion, or mixtral cannot hold the model.
        CheckpointError: the promoted model is not as it was written.
        CorpusError: the corpus is absent.
        FileError: `out` exists or cannot be written.
    """
    source = study.home / "promotion" / promotion.model
    if not promotion.has_weights or not markers.whole(source, promotion.files):
        raise CheckpointError(
            "the promoted model is not as it was written",
            where=str(source),
            hint=f"Run `{command('promote', study.path)}`, which writes it again",
        )
    layout = _layout(source, promotion)
    data = _data_of(promotion, study)
    owner = identity.read(study.home)
    lineage = Lineage(
        study=study.name,
        study_id="" if owner is None else owner.id,
        corpus_hash=promotion.corpus_hash,
        mixopt=promotion.mixopt,
        exported_by=__version__,
    )
    with new_folder(out) as folder:
        card = model_card(
            promotion,
            chosen(study, promotion),
            lineage,
            layout,
            data.tokens,
        )
        files.write_bytes(folder / card_name(promotion), card.encode())
        if promotion.receipt is not None:
            files.write_json(folder / RECEIPT, promotion.receipt.to_json())
        files.write_json(folder / LINEAGE, _facts(promotion, lineage))
        if layout is None or CONFIG in promotion.files:  # in the layout that it leaves in
            names = [name for name in promotion.files if name not in (RECEIPT, LINEAGE)]
            _copy(source, names, folder, place)
        else:
            assert isinstance(data, Corpus)  # our models are trained on one
            write_hugging_face(folder, source, data, layout.positions)
    return layout


def _layout(source: Path, promotion: Promotion) -> Layout | None:
    if not promotion.upcycled:
        return None
    return (
        _checkpoint_layout(source) if CONFIG in promotion.files else _own_layout(source, promotion)
    )


def _checkpoint_layout(source: Path) -> Layout:
    from mixopt.models.families.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(source)
    return Layout(
        family=checkpoint.family.model_type,
        experts=checkpoint.shape.experts,
        experts_per_token=checkpoint.shape.experts_per_token,
        positions=int(checkpoint.config.get("max_position_embeddings") or 0),
    )


def _own_layout(source: Path, promotion: Promotion) -> Layout:
    """The layout that a model of our own leaves in.

    Raises:
        StudyError: mixtral cannot hold it.
    """
    from mixopt.models.families.export import check_exportable

    config = _shape(source)
    check_exportable(config)
    positions = promotion.sequence_length
    assert positions is not None  # of our own trainings
    return Layout("mixtral", config.experts, config.experts_per_token, positions)


def _shape(source: Path) -> ModelConfig:
    return files.read_json(source / SHAPE, lambda values: ModelConfig(**values), hint=REMAKE)


def _copy(source: Path, names: Iterable[str], folder: Path, place: Place) -> None:
    with files.writing(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            place(source / name, folder / name)


def link(source: Path, target: Path) -> None:
    """Put `source` at `target` too, without a second copy on the disk where that is possible."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


def registry_folder(study: Study, promotion: Promotion, out: Path) -> Path:
    """What the registry keeps of a promoted model: its folder for others, written to `out`.

    Where the format has no home for the model, or the corpus that it was trained on is gone, it is
    the model's folder in our own format.

    Raises:
        CheckpointError: the promoted model is not as it was written.
        FileError: `out` cannot be written.
    """
    try:
        write_model(study, promotion, out, link)
    except (StudyError, CorpusError):
        return study.home / "promotion" / promotion.model
    return out


def chosen(study: Study, promotion: Promotion) -> str:
    """How the study chose the promoted mixture, in a sentence."""
    verdict = read_verdict(study.home)
    if verdict is None or not verdict.mixture.same_as(promotion.mixture):
        return "The study has judged again since, and keeps no verdict on this mixture."
    return headline((), study.mixture_objective(), verdict)


def _data_of(promotion: Promotion, study: Study) -> TrainingData:
    """The corpus or the domains of the study, which are the promotion's.

    Raises:
        StudyError: they are others.
        CorpusError: the corpus is absent.
    """
    data = study.training_data()
    if data.hash == promotion.corpus_hash:
        return data
    if not isinstance(data, Corpus):
        raise StudyError(
            "the domains or their tokens are not those that the model was trained on",
            where=f"{study.path}: domains",
            hint="Put back what the study file said, or promote again",
        )
    raise StudyError(
        "the corpus is not the one that the model was trained on",
        where=str(study.corpus_path),
        hint=f"Put back the corpus with hash {promotion.corpus_hash[:12]}, or promote again",
    )


def write_hugging_face(folder: Path, source: Path, corpus: Corpus, positions: int) -> None:
    """Write a model of our own format as a Hugging Face checkpoint, with its tokenizer.

    Args:
        folder: that it is written to.
        source: of the model, with `tokenizer.json`.
        corpus: that it is trained on.
        positions: length of a training sequence.

    Raises:
        CheckpointError: the weights are not as they were written.
        FileError: `folder` cannot be written.
    """
    tokenizer = corpus.manifest.tokenizer
    end, end_id = tokenizer.end_of_text, tokenizer.end_of_text_id
    hugging_face.write_tokenizer(folder, source / TOKENIZER, end, end_id, positions)
    _write_weights(folder, source, positions, end_id)


def _write_weights(folder: Path, source: Path, positions: int, end_of_text: int) -> None:
    import torch

    from mixopt.models.families import export
    from mixopt.models.families.checkpoint import write_checkpoint
    from mixopt.models.families.mixtral import MIXTRAL
    from mixopt.proxies.checkpoint import load_state

    config = _shape(source)
    state, _ = load_state(source / WEIGHTS)
    written = write_checkpoint(
        folder,
        MIXTRAL,
        export.exported_shape(config),
        export.exported_config(config, positions, end_of_text),
        export.exported_tensors(state, config),
        torch.float32,
        SHARD,
    )
    for _ in written:
        pass


def _facts(promotion: Promotion, lineage: Lineage) -> dict[str, Any]:
    """What a tool wants to know of the model: the content of `mixopt.json`."""
    return {
        **lineage.to_json(),
        "promotion": promotion.id,
        "finished": promotion.finished,
        "candidate": promotion.mixture_name,
        "mixture": promotion.mixture.as_dict(),
        "method": promotion.method,
        "tokens": promotion.tokens,
        "trained": promotion.trained,
        "imported": dict(promotion.imported),
        "metrics": dict(promotion.metrics),
        "weights_sha256": _weights_sha256(promotion),
    }


def _weights_sha256(promotion: Promotion) -> str | dict[str, str]:
    """Of the promoted weights; by file, where there are several."""
    named = promotion.files if not promotion.upcycled else filter(_holds_weights, promotion.files)
    sums = {name: str(promotion.files[name]["sha256"]) for name in named}
    return sums if len(sums) > 1 else next(iter(sums.values()))


def _holds_weights(name: str) -> bool:
    return name.endswith(".safetensors")
