"""A trainer in the manner of torchtitan: a config file, torchrun, one rank per device.

    torchrun --standalone --nproc-per-node 8 titan.py --config titan.toml --job {job}

`from_job` puts the job into the trainer's own config, and `main` writes progress and result: what
is between them knows nothing of jobs.
"""

import argparse
import json
import os
import tomllib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def from_job(config, job):
    """The config with what the job says: data, steps, seed, folder."""
    config["training"]["data"] = {
        n: (w, job["domains"][n]["path"]) for n, w in job["mixture"].items()
    }
    per_step = config["training"]["seq_len"] * config["training"]["local_batch_size"]
    config["training"]["tokens_per_step"] = per_step * dist.get_world_size()
    config["training"]["steps"] = -(-job["tokens"] // config["training"]["tokens_per_step"])
    config["training"]["seed"] = job["seed"]
    config["checkpoint"] |= {"folder": job["folder"], "load": job["resume"]}
    for key, value in job["settings"].items():  # {"optimizer.lr": 0.01}
        section, _, name = key.partition(".")
        config[section][name] = value
    return config


class Decoder(nn.Module):
    """A causal transformer over bytes."""

    def __init__(self, width, layers, heads):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        block = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 256)

    def forward(self, x_BT):
        mask = nn.Transformer.generate_square_subsequent_mask(x_BT.shape[1])
        return self.head(self.blocks(self.embedding(x_BT), mask=mask, is_causal=True))


class Trainer:
    """Trains by a config, and calls `on_evaluation(step, metrics)` on the way."""

    def __init__(self, config):
        self.training, self.checkpoint = config["training"], config["checkpoint"]
        self.folder = Path(self.checkpoint["folder"])
        torch.manual_seed(self.training["seed"])
        self.model = DistributedDataParallel(Decoder(**config["model"]))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **config["optimizer"])
        self.texts = {
            name: torch.tensor(list(Path(path).read_bytes()))
            for name, (_, path) in self.training["data"].items()
        }
        self.step = 0
        if self.checkpoint["load"] and (self.folder / "last.pt").exists():
            state = torch.load(self.folder / "last.pt", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def loss(self, x_BT):
        logits = self.model(x_BT[:, :-1])
        return cross_entropy(logits.flatten(0, 1), x_BT[:, 1:].flatten())

    def batch(self):
        """This rank's part of the step's batch: a function of seed, step and rank alone."""
        length, data = self.training["seq_len"], self.training["data"]
        seed = (self.training["seed"] * 1_000_003 + self.step) * 1_009 + dist.get_rank()
        random = torch.Generator().manual_seed(seed)
        weights = torch.tensor([weight for weight, _ in data.values()])
        names, rows = list(data), []
        for d in torch.multinomial(
            weights, self.training["local_batch_size"], True, generator=random
        ):
            text = self.texts[names[d]]
            last = len(text) * 9 // 10 - length - 1  # the last tenth is for validation
            start = int(torch.randint(last, (), generator=random))
            rows.append(text[start : start + length + 1])
        return torch.stack(rows)

    @torch.no_grad()
    def evaluate(self):
        """Nats per byte of each domain: the same on all ranks."""
        metrics, length = {}, self.training["seq_len"]
        for name, text in self.texts.items():
            held_out = text[len(text) * 9 // 10 :]
            rows = held_out[: len(held_out) // length * length].view(-1, length)
            metrics[f"loss/{name}"] = float(self.loss(rows))
        return metrics

    def train(self, on_evaluation):
        while self.step < self.training["steps"]:
            self.optimizer.zero_grad()
            self.loss(self.batch()).backward()
            self.optimizer.step()
            self.step += 1
            if self.step % self.checkpoint["interval"] == 0 and self.step < self.training["steps"]:
                on_evaluation(self.step, self.evaluate())
                self.save("last.pt")

    def save(self, name):
        if dist.get_rank() == 0:
            state = {"step": self.step, "model": self.model.state_dict()}
            torch.save({**state, "optimizer": self.optimizer.state_dict()}, self.folder / "part.pt")
            os.replace(self.folder / "part.pt", self.folder / name)
        dist.barrier()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--job", type=Path, required=True)
    given = parser.parse_args()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    job = json.loads(given.job.read_text())
    folder = Path(job["folder"])
    config = from_job(tomllib.loads(given.config.read_text()), job)
    trainer, per_step = Trainer(config), config["training"]["tokens_per_step"]

    def report(step, metrics):
        if dist.get_rank() == 0:  # one process alone writes
            with (folder / "progress.jsonl").open("a") as file:
                file.write(json.dumps({"tokens": step * per_step, "metrics": metrics}) + "\n")

    trainer.train(report)
    metrics = trainer.evaluate()
    trainer.save("model.pt")
    if dist.get_rank() == 0:
        data = config["training"]["data"]
        result = {
            "metrics": metrics,
            "mixture": {name: weight for name, (weight, _) in data.items()},
            "tokens": trainer.step * per_step,
            "batch_tokens": per_step,
            "seed": config["training"]["seed"],
            "checkpoint": "model.pt",
        }
        (folder / "result.part").write_text(json.dumps(result))
        os.replace(folder / "result.part", folder / "result.json")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
