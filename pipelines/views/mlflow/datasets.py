"""The training data of a study as MLflow's dataset: its hash, and the tokens of each domain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mixopt.core.formatting import count
from mixopt.corpus.shards import Corpus
from mixopt.study.data import TrainingData

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DIGEST = 36  # characters that MLflow keeps of a digest
TRAINING = "mlflow.data.context"


def dataset_input(data: TrainingData, name: str) -> DatasetInput:
    """`data` as an input of a training; MLflow's page lists domains in place of columns.

    Args:
        data: corpus, or domains that only a trainer of the user's reads.
        name: of the study, for data without a folder of its own.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    corpus = isinstance(data, Corpus)
    source = {"uri": str(data.path)} if isinstance(data, Corpus) else dict(data.paths)
    columns = [
        {"name": domain, "type": f"{count(tokens)} tokens"}
        for domain, tokens in data.tokens.items()
    ]
    profile = {
        "tokens": sum(data.tokens.values()),
        "tokens_per_domain": dict(data.tokens),
        "hash": data.hash,
    }
    dataset = Dataset(
        name=data.path.name if isinstance(data, Corpus) else f"domains of {name}",
        digest=data.hash[:DIGEST],
        source_type="mixopt corpus" if corpus else "own trainer",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, tags=[InputTag(TRAINING, "training")])
