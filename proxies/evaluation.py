"""Bits per byte and nats per token of validation domains, and where their tokens are routed.

Shapes: K proxies, W windows, T positions, N = W·T tokens of a batch, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mixopt.corpus.shards import Corpus
from mixopt.errors import CorpusError
from mixopt.models.transformer import Transformer

WINDOWS_PER_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What one proxy scores.

    Attributes:
        metrics: `bpb/<domain>` (bits per byte) and `loss/<domain>` (nats per token).
        loads: domain → share of assignments per expert, mean over layers; empty for a dense model.
        token_losses: `loss/<domain>` → (N,) nats of every token, of the domains asked for.
    """

    metrics: dict[str, float]
    loads: dict[str, tuple[float, ...]]
    token_losses: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def evaluate(
    model: Transformer,
    corpus: Corpus,
    domains: Sequence[str],
    tokens: int,
    sequence_length: int,
    each_token_of: Collection[str] = (),
) -> list[Evaluation]:
    """One `Evaluation` per proxy of the model.

    Every trial reads the same windows: at most `tokens` tokens a domain, in windows of
    `sequence_length` that do not overlap and are spread evenly over the validation stream.
    Of the domains `each_token_of` it keeps every token's loss, in the order of the stream.

    Raises:
        CorpusError: a domain's validation stream is shorter than one window.
    """
    was_training = model.training
    model.eval()
    try:
        per_domain = [
            _evaluate_domain(
                model, corpus, domain, tokens, sequence_length, domain in each_token_of
            )
            for domain in domains
        ]
    finally:
        model.train(was_training)
    evaluations = []
    for k in range(model.cohort):
        metrics: dict[str, float] = {}
        loads: dict[str, tuple[float, ...]] = {}
        token_losses: dict[str, np.ndarray] = {}
        for domain, (loss_K, bpb_K, load_KE, nats_KN) in zip(domains, per_domain, strict=True):
            metrics[f"bpb/{domain}"] = float(bpb_K[k])
            metrics[f"loss/{domain}"] = float(loss_K[k])
            if load_KE is not None:
                loads[domain] = tuple(load_KE[k].tolist())
            if nats_KN is not None:
                token_losses[f"loss/{domain}"] = nats_KN[k].numpy()
        evaluations.append(Evaluation(metrics, loads, token_losses))
    return evaluations


def validation_windows(
    stream: np.ndarray, tokens: int, length: int, domain: str = ""
) -> np.ndarray:
    """The evaluated windows of a validation stream, (windows, T + 1) int64.

    Raises:
        CorpusError: the stream is shorter than one window.
    """
    there = (len(stream) - 1) // length
    if there < 1:
        raise CorpusError(
            f"has {len(stream)} validation tokens, fewer than one window of {length + 1}",
            where=domain,
            mend="Give the domain more validation text, or shorten the sequences",
        )
    taken = min(there, max(1, tokens // length))
    starts = np.arange(taken) * there // taken * length
    return np.asarray(stream[starts[:, None] + np.arange(length + 1)], dtype=np.int64)


def _evaluate_domain(
    model: Transformer, corpus: Corpus, domain: str, tokens: int, length: int, each: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Of a domain: nats per token (K,), bits per byte (K,), loads (K, E), tokens' nats (K, N)."""
    windows = validation_windows(corpus.validation(domain), tokens, length, domain)
    targets = windows[:, 1:]
    size = float(corpus.token_bytes[targets].sum())
    if size <= 0:
        raise CorpusError("the evaluated tokens stand for no bytes", where=domain)
    nats_K = torch.zeros(model.cohort, dtype=torch.float64)
    counts_KE: Tensor | None = None
    kept: list[Tensor] = []
    device = model.embedding.device
    for ids_KBT in _batches(windows, model.cohort):
        ids_KBT = ids_KBT.to(device)
        nats_KN, routings = model.nats(ids_KBT[..., :-1], ids_KBT[..., 1:])
        nats_K += nats_KN.double().sum(1).cpu()
        if each:
            kept.append(nats_KN.float().cpu())
        for routing in routings:
            layer_KE = routing.counts_KE.double().cpu()
            counts_KE = layer_KE if counts_KE is None else counts_KE + layer_KE
    if counts_KE is not None:
        counts_KE = counts_KE / counts_KE.sum(1, keepdim=True).clamp_min(1)
    each_KN = torch.cat(kept, 1) if each else None
    return nats_K / targets.size, nats_K / (math.log(2) * size), counts_KE, each_KN


def _batches(windows: np.ndarray, cohort: int) -> Iterator[Tensor]:
    for start in range(0, len(windows), WINDOWS_PER_BATCH):
        yield torch.from_numpy(windows[start : start + WINDOWS_PER_BATCH]).expand(cohort, -1, -1)
