"""The smallest trainer: `python smallest.py job.json`."""

import json
import os
import sys
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())


def quality(mixture, tokens, seed):
    """Stands for a training on `mixture`, and an evaluation of what it gave."""
    return 0.5 + 0.2 * mixture["code"] - 0.1 * mixture["code"] ** 2 + seed % 7 / 1000


result = {
    "metrics": {"accuracy/arc": quality(job["mixture"], job["tokens"], job["seed"])},
    "mixture": job["mixture"],
    "tokens": job["tokens"],
    "seed": job["seed"],
}
path = Path(job["folder"]) / "result.json"
path.with_suffix(".part").write_text(json.dumps(result))
os.replace(path.with_suffix(".part"), path)
