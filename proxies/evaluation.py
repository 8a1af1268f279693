"""Bits per byte of validation domains and of tasks' answers, and where domains' tokens are routed.

Shapes: K proxies, W windows, R rows of a task, B windows or rows of a batch, T positions,
N = B·T tokens of a batch, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mixopt.core.errors import CorpusError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.models.routers.base import Routing, gate_entropies, reaches_none
from mixopt.proxies.foreign import LanguageModel

WINDOWS_PER_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What one proxy scores.

    Attributes:
        metrics: `bpb/<domain>` (bits per byte) and `loss/<domain>` (nats per token); of tasks
            `task/<name>` (bits per byte of the right answers) and, where there are choices,
            `accuracy/<name>` (share of questions whose right answer has the fewest bits per byte).
        loads: domain → share of assignments per expert, mean over layers; empty for a dense model.
        entropies: domain → nats of entropy of a token's gates, mean over tokens and layers.
        dropped: domain → share of tokens that reach no expert, mean over layers.
        token_losses: `loss/<domain>` → (N,) nats of every token, of the domains asked for.
    """

    metrics: dict[str, float]
    loads: dict[str, tuple[float, ...]]
    entropies: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, float] = field(default_factory=dict)
    token_losses: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    corpus: Corpus,
    domains: Sequence[str],
    tokens: int | Mapping[str, int],
    sequence_length: int,
    each_token_of: Collection[str] = (),
    tasks: Mapping[str, Questions] | None = None,
) -> list[Evaluation]:
    """One `Evaluation` per proxy of the model.

    Every trial reads the same windows: at most `tokens` tokens a domain (or those of each name), in
    windows of `sequence_length` that do not overlap and are spread evenly over the validation
    stream.
    Of the domains `each_token_of` it keeps every token's loss, in the order of the stream.
    Of `tasks` (name → questions) as many questions are asked as have about `tokens` tokens.

    Raises:
        CorpusError: a domain's validation stream is shorter than one window.
    """
    names = (*domains, *(tasks or {}))
    limits = dict.fromkeys(names, tokens) if isinstance(tokens, int) else tokens
    was_training = model.training
    model.eval()
    try:
        per_domain = _evaluate_domains(
            model,
            corpus,
            {domain: limits[domain] for domain in domains},
            sequence_length,
            each_token_of,
        )
        per_task = [
            metric
            for name, questions in (tasks or {}).items()
            for metric in _evaluate_task(model, name, questions, limits[name], sequence_length)
        ]
    finally:
        model.train(was_training)
    evaluations = []
    for k in range(model.cohort):
        found = Evaluation({}, {})
        for domain, scores in per_domain.items():
            found.metrics[f"bpb/{domain}"] = float(scores.bpb_K[k])
            found.metrics[f"loss/{domain}"] = float(scores.loss_K[k])
            if scores.load_KE is not None:
                assert scores.entropy_K is not None
                assert scores.dropped_K is not None
                found.loads[domain] = tuple(scores.load_KE[k].tolist())
                found.entropies[domain] = float(scores.entropy_K[k])
                found.dropped[domain] = float(scores.dropped_K[k])
            if scores.nats_KN is not None:
                found.token_losses[f"loss/{domain}"] = scores.nats_KN[k].numpy()
        found.metrics.update({name: float(value_K[k]) for name, value_K in per_task})
        evaluations.append(found)
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
            hint="Give the domain more validation text, or shorten the sequences",
        )
    taken = min(there, max(1, tokens // length))
    starts = np.arange(taken) * there // taken * length
    return np.asarray(stream[starts[:, None] + np.arange(length + 1)], dtype=np.int64)


def _windows_of(corpus: Corpus, domain: str, tokens: int, length: int) -> np.ndarray:
    """The evaluated windows of a domain, (windows, T + 1) int64, their ids checked."""
    windows = validation_windows(corpus.validation(domain), tokens, length, domain)
    corpus.check_ids(corpus.manifest.domains[domain].validation, windows)
    return windows


@dataclass(frozen=True)
class _Scores:
    """Of one domain; None is what a dense model has not, or what was not asked for."""

    loss_K: Tensor
    bpb_K: Tensor
    load_KE: Tensor | None = None
    entropy_K: Tensor | None = None
    dropped_K: Tensor | None = None
    nats_KN: Tensor | None = None


@dataclass(frozen=True)
class _Windows:
    """What some windows gave; of tokens that are asked for alone, of layers none if dense.

    Attributes:
        nats_KW: nats of all tokens of each, fp64.
        tokens: nats of every token of the windows asked for, (K, T) each.
        loads_KWE: assignments per expert, all layers together.
        entropy_KW: mean entropy of a token's gates, mean over layers.
        dropped_KW: share of tokens that reach no expert, mean over layers.
    """

    nats_KW: Tensor
    tokens: list[Tensor]
    loads_KWE: Tensor | None
    entropy_KW: Tensor | None
    dropped_KW: Tensor | None


def _evaluate_domains(
    model: LanguageModel,
    corpus: Corpus,
    tokens: Mapping[str, int],
    length: int,
    each_token_of: Collection[str],
) -> dict[str, _Scores]:
    """Domain → its scores. Windows of several domains share a batch: some have one or two."""
    if not tokens:
        return {}
    windows = {
        domain: _windows_of(corpus, domain, limit, length) for domain, limit in tokens.items()
    }
    sizes = {d: float(corpus.token_bytes[ids[:, 1:]].sum()) for d, ids in windows.items()}
    for domain, size in sizes.items():
        if size <= 0:
            raise CorpusError("the evaluated tokens stand for no bytes", where=domain)
    kept_W = np.repeat([d in each_token_of for d in windows], [len(w) for w in windows.values()])
    found = _run_windows(model, np.concatenate(list(windows.values())), kept_W)
    each_token = iter(found.tokens)
    scores, start = {}, 0
    for domain, ids in windows.items():
        own = slice(start, start + len(ids))
        start += len(ids)
        nats_K = found.nats_KW[:, own].sum(1)
        kept = [next(each_token) for _ in ids] if domain in each_token_of else []
        load_KE = None if found.loads_KWE is None else found.loads_KWE[:, own].sum(1)
        scores[domain] = _Scores(
            loss_K=nats_K / ids[:, 1:].size,
            bpb_K=nats_K / (math.log(2) * sizes[domain]),
            load_KE=None if load_KE is None else load_KE / load_KE.sum(1, True).clamp_min(1),
            entropy_K=None if found.entropy_KW is None else found.entropy_KW[:, own].mean(1),
            dropped_K=None if found.dropped_KW is None else found.dropped_KW[:, own].mean(1),
            nats_KN=torch.cat(kept, 1) if kept else None,
        )
    return scores


def _run_windows(model: LanguageModel, ids_WT: np.ndarray, kept_W: np.ndarray) -> _Windows:
    """What the windows give, and of those in `kept_W` every token."""
    device = model.device
    nats: list[Tensor] = []
    tokens: list[Tensor] = []
    routed: list[tuple[Tensor, Tensor, Tensor]] = []
    for ids_KBT in _batches(ids_WT, model.cohort):
        size = ids_KBT.shape[1]
        ids_KBT = ids_KBT.to(device)
        nats_KN, routings = model.nats(ids_KBT[..., :-1], ids_KBT[..., 1:])
        nats_KBT = nats_KN.float().cpu().view(model.cohort, size, -1)
        kept_B = kept_W[sum(n.shape[1] for n in nats) :][:size]
        tokens += [nats_KBT[:, b] for b in np.flatnonzero(kept_B)]
        nats.append(nats_KBT.double().sum(2))
        if routings:
            layers = zip(*(_by_window(routing, size) for routing in routings), strict=True)
            loads_KBE, entropy_KB, dropped_KB = map(torch.stack, map(list, layers))
            routed.append((loads_KBE.sum(0), entropy_KB.mean(0), dropped_KB.mean(0)))
    if not routed:
        return _Windows(torch.cat(nats, 1), tokens, None, None, None)
    loads_KWE, entropy_KW, dropped_KW = (
        torch.cat(list(parts), 1).cpu().double() for parts in zip(*routed, strict=True)
    )
    return _Windows(torch.cat(nats, 1), tokens, loads_KWE, entropy_KW, dropped_KW)


def _by_window(routing: Routing, windows: int) -> tuple[Tensor, Tensor, Tensor]:
    """One layer's loads (K, B, E), entropies (K, B) and dropped shares (K, B) of B windows."""
    cohort, experts = routing.counts_KE.shape
    indices_KBA = routing.indices_KNS.reshape(cohort, windows, -1)
    chosen_KBA = torch.where(indices_KBA < 0, experts, indices_KBA)
    loads_KBE = torch.zeros(cohort, windows, experts + 1, device=chosen_KBA.device)
    loads_KBE.scatter_add_(2, chosen_KBA, torch.ones_like(chosen_KBA, dtype=loads_KBE.dtype))
    entropy_KB = gate_entropies(routing).view(cohort, windows, -1).mean(2)
    dropped_KB = reaches_none(routing).view(cohort, windows, -1).mean(2)
    return loads_KBE[..., :-1], entropy_KB, dropped_KB


def _evaluate_task(
    model: LanguageModel, name: str, questions: Questions, tokens: int, length: int
) -> Iterator[tuple[str, Tensor]]:
    """Metric → its values (K,).

    Bits per byte are all bits of the right answers over all their bytes, as those of domains are;
    a mean over questions would be led by answers of one or two bytes. Choices are compared per
    byte because long answers have more bits: the shortest would nearly always win. Bytes, unlike
    tokens, are the same under every tokenizer.
    """
    asked = questions.spread(tokens, length)
    rows = np.concatenate(
        [np.arange(questions.first[q], questions.first[q + 1]) for q in asked.tolist()]
    )
    bits_KR = answer_nats(model, questions, rows, length) / math.log(2)
    sizes_R = torch.from_numpy(questions.sizes[rows])
    at_q = torch.from_numpy(np.searchsorted(rows, questions.right[asked]))
    yield f"task/{name}", bits_KR[:, at_q].sum(1) / sizes_R[at_q].sum()
    chosen = [q for q in range(len(asked)) if questions.choices[asked[q]] > 1]
    if not chosen:
        return
    per_byte_KR = bits_KR / sizes_R
    hits_K = torch.zeros(model.cohort, dtype=torch.float64)
    begin = np.searchsorted(rows, questions.first[asked])
    for q in chosen:
        first, count = int(begin[q]), int(questions.choices[asked[q]])
        best_K = per_byte_KR[:, first : first + count].argmin(1)
        hits_K += best_K == at_q[q] - first
    yield f"accuracy/{name}", hits_K / len(chosen)


@torch.no_grad()
def answer_nats(
    model: LanguageModel, questions: Questions, rows: np.ndarray, length: int
) -> Tensor:
    """Nats of the answers of these rows, (K, R) float64.

    Contexts that do not fit into `length` tokens are cut on the left. Rows of like length are
    batched, padded on the right, where no position before sees it and no router counts it.
    """
    device = model.device
    nats_KR = torch.zeros(model.cohort, len(rows), dtype=torch.float64)
    answers_R = (questions.lengths - questions.contexts)[rows]
    texts = [questions.row(row, length) for row in rows.tolist()]
    lengths_R = np.array([len(text) for text in texts])
    longest_first = np.argsort(-lengths_R, kind="stable")
    start = 0
    while start < len(rows):
        width = int(lengths_R[longest_first[start]])
        batch = longest_first[start : start + max(1, WINDOWS_PER_BATCH * length // width)]
        start += len(batch)
        ids_BT = np.zeros((len(batch), width), dtype=np.int64)
        for b, row in enumerate(batch.tolist()):
            ids_BT[b, : lengths_R[row]] = texts[row]
        ends_B1 = lengths_R[batch, None] - 1
        real_BT = np.arange(width - 1) < ends_B1
        answer_BT = real_BT & (np.arange(width - 1) >= ends_B1 - answers_R[batch, None])
        ids_KBT = torch.from_numpy(ids_BT).expand(model.cohort, -1, -1).to(device)
        mask_KBT = torch.from_numpy(real_BT).expand(model.cohort, -1, -1).to(device)
        nats_KN, _ = model.nats(ids_KBT[..., :-1], ids_KBT[..., 1:], mask_KBT)
        nats_KBT = nats_KN.double().cpu().view(model.cohort, *answer_BT.shape)
        nats_KR[:, batch] = torch.where(torch.from_numpy(answer_BT), nats_KBT, 0.0).sum(2)
    return nats_KR


def _batches(windows: np.ndarray, cohort: int) -> Iterator[Tensor]:
    for start in range(0, len(windows), WINDOWS_PER_BATCH):
        yield torch.from_numpy(windows[start : start + WINDOWS_PER_BATCH]).expand(cohort, -1, -1)
