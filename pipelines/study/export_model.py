"""`mixopt export STUDY --model OUT`: the promoted model as a Hugging Face folder.

config.json, model*.safetensors   transformers, vLLM, SGLang and llama.cpp's converter read them
generation_config.json
tokenizer.json, tokenizer_config.json, special_tokens_map.json
README.md                         the model card
upcycling.json                    receipt of the upcycling
mixopt.json                       study, corpus, mixture, method, code version
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mixopt import __version__
from mixopt.core.errors import CheckpointError, CorpusError, StudyError
from mixopt.corpus import hugging_face
from mixopt.corpus.manifest import Manifest
from mixopt.io import files, markers
from mixopt.io.markers import SHAPE, TOKENIZER, WEIGHTS
from mixopt.io.new_folder import new_folder, refuse_existing
from mixopt.models.config import ModelConfig
from mixopt.pipelines.views.console import make_console
from mixopt.pipelines.views.model_card import Lineage, model_card
from mixopt.pipelines.views.wording import command, headline
from mixopt.study import identity
from mixopt.study.records import read_promotion, read_verdict
from mixopt.study.results import Promotion
from mixopt.study.settings import Study, load_study

RECEIPT, LINEAGE, CARD = "upcycling.json", "mixopt.json", "README.md"
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
    write_model(study, promotion, out)
    make_console().print(
        f"Wrote the {promotion.mixture_name} model of {study.name} to {out}: a mixtral of "
        "transformers, with its card in README.md",
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


def write_model(study: Study, promotion: Promotion, out: Path) -> None:
    """Write a promoted model as a Hugging Face folder, which appears whole or not at all.

    Args:
        study: whose promotion it is.
        promotion: see `promoted`.
        out: the folder; it must not exist.

    Raises:
        StudyError: the corpus is not the one of the promotion, or mixtral cannot hold the model.
        CheckpointError: the promoted model is not as it was written.
        CorpusError: the corpus is absent.
        FileError: `out` exists or cannot be written.
    """
    from mixopt.models.families import export

    source = study.home / "promotion" / promotion.model
    if WEIGHTS not in promotion.files or not markers.whole(source, promotion.files):
        raise CheckpointError(
            "the promoted model is not as it was written",
            where=str(source),
            hint=f"Run `{command('promote', study.path)}`, which writes it again",
        )
    config = files.read_json(source / SHAPE, lambda values: ModelConfig(**values), hint=REMAKE)
    export.check_exportable(config)
    manifest = _corpus_of(promotion, study.corpus_path)
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
            config,
            {name: record.train.tokens for name, record in manifest.domains.items()},
        )
        files.write_bytes(folder / CARD, card.encode())
        files.write_json(folder / RECEIPT, promotion.receipt.to_json())
        files.write_json(folder / LINEAGE, _facts(promotion, lineage))
        tokenizer, positions = manifest.tokenizer, promotion.sequence_length
        hugging_face.write_tokenizer(
            folder, source / TOKENIZER, tokenizer.end_of_text, tokenizer.end_of_text_id, positions
        )
        _write_weights(folder, source / WEIGHTS, config, positions, tokenizer.end_of_text_id)


def registry_folder(study: Study, promotion: Promotion, out: Path) -> Path:
    """What the registry keeps of a promoted model: its Hugging Face folder, written to `out`.

    Where the format has no home for the model, or the corpus that it was trained on is gone, it is
    the model's folder in our own format.

    Raises:
        CheckpointError: the promoted model is not as it was written.
        FileError: `out` cannot be written.
    """
    try:
        write_model(study, promotion, out)
    except (StudyError, CorpusError):
        return study.home / "promotion" / promotion.model
    return out


def chosen(study: Study, promotion: Promotion) -> str:
    """How the study chose the promoted mixture, in a sentence."""
    verdict = read_verdict(study.home)
    if verdict is None or not verdict.mixture.same_as(promotion.mixture):
        return "The study has judged again since, and keeps no verdict on this mixture."
    return headline((), study.mixture_objective(), verdict)


def _corpus_of(promotion: Promotion, folder: Path) -> Manifest:
    """The manifest of the corpus in `folder`, which is the promotion's.

    Raises:
        StudyError: it is another.
        CorpusError: there is none.
    """
    manifest = Manifest.read(folder)
    if manifest.hash != promotion.corpus_hash:
        raise StudyError(
            "the corpus is not the one that the model was trained on",
            where=str(folder),
            hint=f"Put back the corpus with hash {promotion.corpus_hash[:12]}, or promote again",
        )
    return manifest


def _write_weights(
    folder: Path, weights: Path, config: ModelConfig, positions: int, end_of_text: int
) -> None:
    import torch

    from mixopt.models.families import export
    from mixopt.models.families.checkpoint import write_checkpoint
    from mixopt.models.families.mixtral import MIXTRAL
    from mixopt.proxies.checkpoint import load_state

    state, _ = load_state(weights)
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
        "metrics": dict(promotion.after),
        "weights_sha256": promotion.files[WEIGHTS]["sha256"],
    }
