"""`mixopt demo`: the main job, from text that every machine with mixopt has to a model to load.

Package descriptions are the target; Python, docstrings, C headers, licences, web files and
generated arithmetic are what a mixture can be made of. Which mixture is best for the target is not
known beforehand: the proxies measure it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mixopt.core.errors import CorpusError
from mixopt.corpus.shards import Corpus
from mixopt.io import files
from mixopt.pipelines.corpus import build_from_environment
from mixopt.pipelines.study.export_model import export_model
from mixopt.pipelines.study.run import run_study
from mixopt.pipelines.views.console import make_console, styled

MEGABYTES = 3.0  # per domain
VOCABULARY = 2048


def run_demo(folder: Path) -> None:
    """Gather the corpus, write the study file, run the study, export; what is done stays done.

    Raises:
        MixoptError: whatever stops the study.
    """
    console = make_console()
    console.print(
        styled(
            ("mixopt demo", "bold"),
            ": which mixture of the text on this machine best prepares a small "
            "mixture-of-experts model for package descriptions?",
        )
    )
    corpus = folder / "corpus"
    try:
        Corpus.open(corpus)  # an older gathering is kept: other packages would be other text
    except CorpusError:
        build_from_environment(corpus, MEGABYTES, VOCABULARY)
    study = folder / "study.yaml"
    if not study.exists():
        template = (
            resources.files("mixopt.pipelines.study").joinpath("demo_study.yaml").read_bytes()
        )
        files.write_bytes(study, template)
    run_study(study)
    model = folder / "model"
    if model.exists():
        console.print(f"{model} is there already: an export of before", soft_wrap=True)
    else:
        export_model(study, model)
    console.print("Your own text: docs/own-text.md, or mixopt init in a folder with a corpus")
