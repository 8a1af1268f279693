"""Batches of a mixture: exact counts, pure order. Needs numpy alone.

    counts of a stretch of steps ──► positions ──► sequences ──► one copy a domain and step

Which sequences come is computed for 64 steps at once, over all domains; a step then copies them,
one copy per domain for a whole cohort. Of 100 domains that is 3 times as fast for one proxy and 5
times for 32 as domain by domain and proxy by proxy (586 steps; benchmarks/data_path.py has the
rates).

Shape suffixes: K proxies, S steps of a stretch, B sequences in a batch, T tokens predicted per
sequence, m domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mixopt.core.errors import CorpusError
from mixopt.core.mixture import Mixture
from mixopt.corpus.order import (
    STRETCH,
    CountSchedule,
    permute_each,
    round_keys,
    run_together,
    shuffles,
)
from mixopt.corpus.shards import Corpus


class Batches:
    """The training batches of one mixture and seed; `at(step)` depends on nothing else.

    A domain's tokens are cut into sequences of T + 1 tokens that share their end tokens, so that
    every token but the first is predicted once. The sequence at position p of a domain's stream
    is a function of (seed, domain, p) alone: two mixtures with one seed read the same sequences
    of a domain in the same order, one of them only further (common random numbers). No sequence
    comes twice within an epoch; each epoch has its own order.

    Args:
        corpus: where the tokens are.
        mixture: weights over training domains of `corpus`; domains it leaves out weigh 0.
        seed: names the order.
        batch_sequences: B.
        sequence_length: T.
        token_limits: domain → training tokens it is cut to, the first ones in the seed's order:
            how a proxy sees a domain as often as the promoted run would.
        steps: how many batches there are; without it, any number.

    Raises:
        CorpusError: the mixture weighs a domain that the corpus lacks, or that is shorter than
            one sequence.
    """

    def __init__(
        self,
        corpus: Corpus,
        mixture: Mixture,
        seed: int,
        batch_sequences: int,
        sequence_length: int,
        token_limits: Mapping[str, int] | None = None,
        steps: int | None = None,
    ) -> None:
        if batch_sequences < 1 or sequence_length < 1:
            raise CorpusError(
                f"a batch of {batch_sequences} sequences of {sequence_length} tokens is empty"
            )
        self.corpus, self.seed, self.steps = corpus, int(seed), steps
        self.batch_sequences, self.sequence_length = batch_sequences, sequence_length
        self.domains = tuple(n for n, weight in mixture.as_dict().items() if weight > 0)
        self._views = {name: _view(corpus, name, sequence_length) for name in self.domains}
        self._whole_m = np.array([len(view) for view in self._views.values()])
        limits = [(token_limits or {}).get(name) for name in self.domains]
        self._size_m = np.array(
            [
                whole if limit is None else min(whole, max(1, limit // sequence_length))
                for whole, limit in zip(self._whole_m.tolist(), limits, strict=True)
            ]
        )
        self._keys_mR = np.stack([round_keys(self.seed, name, 0) for name in self.domains])
        weights = np.array([mixture[name] for name in self.domains])
        self.schedule = CountSchedule(weights, batch_sequences)
        self._planned: tuple[int, np.ndarray, np.ndarray] = (-1, weights, weights)

    def at(self, step: int, rows: np.ndarray | None = None) -> np.ndarray:
        """The batch of `step`, (B, T + 1) int64: inputs are `[:, :-1]`, labels `[:, 1:]`.

        Args:
            step: which one.
            rows: the sequences of the batch to read; None reads all.

        Raises:
            CorpusError: `step` is below 0 or not below `steps`, or a token id is beyond the
                vocabulary.
        """
        domain_B, number_B = self.sequences_at(step)
        if rows is not None:
            domain_B, number_B = domain_B[rows], number_B[rows]
        return _copied(self.corpus, self._views, domain_B, number_B)

    def sequences_at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What `at` reads: of each sequence its domain's place in `domains` and its own number.

        Returns:
            Two (B,) int64.

        Raises:
            CorpusError: `step` is below 0 or not below `steps`.
        """
        self._check(step)
        number, row = divmod(step, STRETCH)
        if self._planned[0] != number:
            self._planned = (number, *self._plan(number))
        return self._planned[1][row], self._planned[2][row]

    def view(self, domain: str) -> np.ndarray:
        """All sequences of `domain`, (sequences, T + 1), of the memory-mapped tokens."""
        return self._views[domain]

    def domain_counts(self, step: int) -> dict[str, int]:
        """Domain → sequences of it in the batch of `step`; they sum to B."""
        self._check(step)
        return dict(zip(self.domains, self.schedule.at(step).tolist(), strict=True))

    def epochs(self, steps: int) -> dict[str, float]:
        """Domain → times that the first `steps` batches read all (or the limit) of it."""
        read_m = self.schedule.before(steps) / self._size_m
        return dict(zip(self.domains, read_m.tolist(), strict=True))

    def _check(self, step: int) -> None:
        if step < 0 or (self.steps is not None and step >= self.steps):
            raise CorpusError(f"there is no step {step}", hint=f"Steps run from 0 to {self.steps}")

    def _plan(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Domains and numbers of the sequences of a stretch of steps, each (S, B) int64."""
        taken_Sm = self.schedule.stretch(number)
        counts = np.diff(taken_Sm, axis=0).ravel()  # (S·m,), step by step
        domain = np.repeat(np.tile(np.arange(len(self.domains)), STRETCH), counts)
        before = np.cumsum(counts) - counts
        position = np.arange(len(domain)) + np.repeat(taken_Sm[:-1].ravel() - before, counts)
        shape = (STRETCH, self.batch_sequences)
        # Domains are spread over the batch, lest a micro-batch, and with it the routers' load
        # balancing, sees one domain alone.
        steps = range(number * STRETCH, (number + 1) * STRETCH)
        mixed_SB = shuffles(self.batch_sequences, [(self.seed, "step", step) for step in steps])
        domain_SB = np.take_along_axis(domain.reshape(shape), mixed_SB, 1)
        chosen_SB = self._chosen(domain, position).reshape(shape)
        return domain_SB, np.take_along_axis(chosen_SB, mixed_SB, 1)

    def _chosen(self, domain: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Which sequences come at these positions of these domains' streams, (n,) int64."""
        epoch, rank = np.divmod(position, self._size_m[domain])
        again = np.flatnonzero(epoch)
        if len(again):
            orders, which = np.unique(epoch[again] * len(self.domains) + domain[again], False, True)
            pairs = zip(*np.divmod(orders, len(self.domains)), strict=True)
            keys = np.stack([round_keys(self.seed, self.domains[j], int(e)) for e, j in pairs])
            rank[again] = permute_each(rank[again], self._size_m[domain[again]], keys[which])
        # The first epoch's order, over the whole domain, also says what a limit keeps.
        return permute_each(rank, self._whole_m[domain], self._keys_mR[domain])


class CohortBatches:
    """The batches of K mixtures on one corpus, with equal B and T, together.

    Args:
        cohort: one per proxy.
    """

    def __init__(self, cohort: Sequence[Batches]) -> None:
        self._cohort = tuple(cohort)
        views = {name: b.view(name) for b in self._cohort for name in b.domains}
        places = {name: place for place, name in enumerate(views)}
        self._views = views
        self._places = [np.array([places[name] for name in b.domains]) for b in self._cohort]

    def at(self, step: int) -> np.ndarray:
        """The batches of `step`, (K, B, T + 1) int64.

        Raises:
            CorpusError: `step` is below 0 or not below the `steps` of one of them, or a token id
                is beyond the vocabulary.
        """
        if step >= 0:
            run_together([batches.schedule for batches in self._cohort], step // STRETCH)
        parts = [batches.sequences_at(step) for batches in self._cohort]
        domain = np.concatenate(
            [place[d] for place, (d, _) in zip(self._places, parts, strict=True)]
        )
        sequence = np.concatenate([s for _, s in parts])
        copied = _copied(self._cohort[0].corpus, self._views, domain, sequence)
        return copied.reshape(len(parts), len(parts[0][0]), -1)


def _copied(
    corpus: Corpus, by_domain: Mapping[str, np.ndarray], domain: np.ndarray, sequence: np.ndarray
) -> np.ndarray:
    """Sequences (n,) of domains (n,), as (n, T + 1) int64: one copy a domain."""
    names, views = tuple(by_domain), tuple(by_domain.values())
    copied = np.empty((len(domain), views[0].shape[1]), dtype=np.int64)
    order = np.argsort(domain, kind="stable")
    bounds = np.flatnonzero(np.diff(domain[order], prepend=-1, append=-1)).tolist()
    for first, last in pairwise(bounds):
        rows = order[first:last]
        copied[rows] = views[domain[rows[0]]][sequence[rows]]
    if copied.max() >= corpus.vocab_size:  # a broken disk or memory, since the shard was verified
        row, _ = divmod(int(copied.argmax()), copied.shape[1])
        corpus.check_ids(corpus.manifest.domains[names[domain[row]]].train, copied[row])
    return copied


def _view(corpus: Corpus, domain: str, length: int) -> np.ndarray:
    """All sequences of a domain, (sequences, length + 1), without a copy."""
    tokens = np.asarray(corpus.train(domain))
    if len(tokens) <= length:
        raise CorpusError(
            f"has {len(tokens)} training tokens, fewer than one sequence of {length + 1}",
            where=domain,
            hint="Give the domain more text, its weight to another, or sequences fewer tokens",
        )
    return np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::length]
