"""A language model in plain PyTorch, trained on a mixture: `python plain.py job.json`."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

LENGTH, WIDTH, EVALUATIONS = 64, 32, 4

job = json.loads(Path(sys.argv[1]).read_text())
folder = Path(job["folder"])
settings = {"batch": 8, "rate": 3e-3, **job["settings"]}
torch.set_num_threads(job["threads"])
torch.manual_seed(job["seed"])


class Model(nn.Module):
    """The next byte from the bytes before it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.rnn = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 256)

    def loss(self, x_BT):
        hidden, _ = self.rnn(self.embedding(x_BT[:, :-1]))
        return cross_entropy(self.head(hidden).flatten(0, 1), x_BT[:, 1:].flatten())


def read(name):
    """The bytes of a domain; the last tenth is for validation."""
    data = torch.frombuffer(
        bytearray(Path(job["domains"][name]["path"]).read_bytes()), dtype=torch.uint8
    )
    return data[: -len(data) // 10].long(), data[-len(data) // 10 :].long()


domains = {name: read(name) for name in job["mixture"]}
names, weights = list(job["mixture"]), torch.tensor(list(job["mixture"].values()))


def batch(step):
    """A batch that depends on seed and step alone, so that a resumed training goes on exactly."""
    random = torch.Generator().manual_seed(job["seed"] * 1_000_003 + step)
    rows = []
    for d in torch.multinomial(weights, settings["batch"], replacement=True, generator=random):
        train = domains[names[d]][0]
        start = int(torch.randint(len(train) - LENGTH, (), generator=random))
        rows.append(train[start : start + LENGTH + 1])
    return torch.stack(rows)


@torch.no_grad()
def evaluate():
    """Nats per byte on each domain's validation text."""
    model.eval()
    metrics = {}
    for name, (_, held_out) in domains.items():
        rows = held_out[: len(held_out) // LENGTH * LENGTH].view(-1, LENGTH)
        metrics[f"loss/{name}"] = float(model.loss(rows))
    model.train()
    return metrics


def report(tokens, metrics, loss):
    """A line of progress.jsonl: a point of the curve, by which trials are pruned."""
    line = {"tokens": tokens, "metrics": metrics}
    line["training"] = {"loss": loss, "learning_rate": settings["rate"]}
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def whole(path, write):
    """Write a file that is whole or absent, whenever this process is killed."""
    write(path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=settings["rate"])
batch_tokens = settings["batch"] * LENGTH
steps = -(-job["tokens"] // batch_tokens)
step, checkpoint = 0, folder / "checkpoint.pt"
if job["resume"] and checkpoint.exists():
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]

while step < steps:
    loss = model.loss(batch(step))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step < steps and step % max(1, steps // EVALUATIONS) == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        report(step * batch_tokens, evaluate(), float(loss))
        whole(checkpoint, lambda path, state=state: torch.save(state, path))

result = {
    "metrics": evaluate(),
    "mixture": job["mixture"],
    "tokens": steps * batch_tokens,
    "batch_tokens": batch_tokens,
    "seed": job["seed"],
    "environment": {"torch": torch.__version__},
}
if job["role"] == "promote":
    whole(folder / "model.pt", lambda path: torch.save(model.state_dict(), path))
    result["checkpoint"] = "model.pt"
whole(folder / "result.json", lambda path: path.write_text(json.dumps(result)))
