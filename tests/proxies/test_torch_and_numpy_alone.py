"""Machines with only torch and numpy can import and train: nothing else may be needed."""

import subprocess
import sys
from pathlib import Path

from mixopt.corpus.shards import Corpus

ROOT = Path(__file__).parents[2]
# torch's own dependencies are part of having torch
PROGRAM = """
import importlib.abc, importlib.machinery, sys
from pathlib import Path

ALLOWED = {"torch", "numpy", "mixopt", "torchgen", "functorch"}
ALLOWED |= {"typing_extensions", "sympy", "mpmath", "filelock", "networkx", "jinja2", "fsspec"}
refused = set()

class Wall(importlib.abc.MetaPathFinder):  # as if nothing else were installed
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if top not in ALLOWED and not known:
            refused.add(top)
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

place = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[place] = Wall()
from mixopt.corpus.batches import Batches
from mixopt.corpus.shards import Corpus
from mixopt.core.errors import CheckpointError
from mixopt.models.config import ModelConfig
from mixopt.models.upcycling.base import upcycler_class
from mixopt.core.mixture import Mixture
from mixopt.core.recipe import Recipe
from mixopt.proxies.job import Job
from mixopt.proxies.full_run.training import train_full
from mixopt.proxies.full_run.world import World
from mixopt.proxies.training import train

upcycler_class("sparse")
settings = dict(sequence_length=16, batch_sequences=4, evaluation_tokens=64, curve_tokens=64)
model = ModelConfig(width=16, heads=2)
mixture = Mixture.uniform(("d0", "d1"))

def job(seconds):
    recipe = Recipe(**settings, precision="fp32", checkpoint_seconds=seconds)
    return Job(model, recipe, sys.argv[1], (mixture,), (0,), 5 * 64)

(outcome,) = train(job(float("inf")), Path(sys.argv[2]) / "unsaved", threads=1, device="cpu")
assert outcome.result.metrics["bpb/d0"] > 0
full = train_full(job(60.0), Path(sys.argv[2]) / "full", World())
assert full.result.metrics["bpb/d0"] > 0
try:
    train(job(60.0), Path(sys.argv[2]) / "saved", threads=1, device="cpu")
except CheckpointError as error:
    assert "safetensors" in str(error), error
else:
    raise AssertionError("a checkpoint without safetensors")
print("refused", sorted(refused))
"""


def test_a_training_needs_torch_and_numpy_alone(corpus: Corpus, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(corpus.path), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "safetensors" in done.stdout
