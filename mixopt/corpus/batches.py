"""Batches of a mixture: exact counts, pure order. Needs numpy alone.

Shape suffixes: B sequences in a batch, T tokens predicted per sequence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixopt.corpus.order import CountSchedule, permute, shuffled
from mixopt.corpus.shards import Corpus
from mixopt.errors import CorpusError
from mixopt.mixture import Mixture

BLOCK = 1024  # positions of a stream ordered at once: numpy's calls, not its work, cost the time


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
        self.seed, self.steps = int(seed), steps
        self.batch_sequences, self.sequence_length = batch_sequences, sequence_length
        self.domains = tuple(n for n, weight in mixture.as_dict().items() if weight > 0)
        self._streams = [
            _Stream(corpus, name, self.seed, sequence_length, (token_limits or {}).get(name))
            for name in self.domains
        ]
        weights = np.array([mixture[name] for name in self.domains])
        self._schedule = CountSchedule(weights, batch_sequences)

    def at(self, step: int) -> np.ndarray:
        """The batch of `step`, (B, T + 1) int64: inputs are `[:, :-1]`, labels `[:, 1:]`.

        Raises:
            CorpusError: `step` is below 0 or not below `steps`.
        """
        self._check(step)
        first, counts = self._schedule.before(step), self._schedule.at(step)
        batch_BT = np.concatenate(
            [
                stream.sequences(int(start), int(count))
                for stream, start, count in zip(self._streams, first, counts, strict=True)
                if count
            ]
        )
        # Domains are spread over the batch, lest a micro-batch, and with it the routers' load
        # balancing, sees one domain alone.
        mixed_BT: np.ndarray = batch_BT[shuffled(self.batch_sequences, self.seed, "step", step)]
        return mixed_BT

    def domain_counts(self, step: int) -> dict[str, int]:
        """Domain → sequences of it in the batch of `step`; they sum to B."""
        self._check(step)
        return dict(zip(self.domains, self._schedule.at(step).tolist(), strict=True))

    def epochs(self, steps: int) -> dict[str, float]:
        """Domain → times that the first `steps` batches read all (or the limit) of it."""
        taken = self._schedule.before(steps).tolist()
        return {s.domain: n / s.size for s, n in zip(self._streams, taken, strict=True)}

    def _check(self, step: int) -> None:
        if step < 0 or (self.steps is not None and step >= self.steps):
            raise CorpusError(f"there is no step {step}", mend=f"Steps run from 0 to {self.steps}")


class _Stream:
    """One domain's sequences in the seed's order, epoch after epoch."""

    def __init__(
        self, corpus: Corpus, domain: str, seed: int, length: int, limit: int | None
    ) -> None:
        self.domain, self._seed, self._length = domain, seed, length
        self._tokens = corpus.train(domain)
        self._all = (len(self._tokens) - 1) // length
        if self._all < 1:
            raise CorpusError(
                f"has {len(self._tokens)} training tokens, fewer than one sequence of {length + 1}",
                where=domain,
                mend="Give the domain more text, its weight to another, or sequences fewer tokens",
            )
        self._kept: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self.size = self._all if limit is None else min(self._all, max(1, limit // length))

    def sequences(self, start: int, count: int) -> np.ndarray:
        """Sequences at positions start … start + count - 1, (count, T + 1) int64."""
        parts = []
        while count > 0:
            block, first = divmod(start, BLOCK)
            part = self._block(block)[first : first + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        window = np.concatenate(parts)[:, None] * self._length + np.arange(self._length + 1)
        return np.asarray(self._tokens[window], dtype=np.int64)

    def _block(self, block: int) -> np.ndarray:
        """Which sequences come at positions block · BLOCK …, (BLOCK,) int64; the last is kept."""
        if self._kept[0] != block:
            self._kept = (block, self._chosen(np.arange(block * BLOCK, (block + 1) * BLOCK)))
        return self._kept[1]

    def _chosen(self, position: np.ndarray) -> np.ndarray:
        """Which sequences come at these positions of the stream, (n,) int64."""
        epoch, rank = np.divmod(position, self.size)
        for later in np.unique(epoch[epoch > 0]).tolist():
            of_epoch = epoch == later
            key = (self._seed, self.domain, later)
            rank[of_epoch] = permute(rank[of_epoch], self.size, *key)
        # The first epoch's order, over the whole domain, also says what a limit keeps.
        return permute(rank, self._all, self._seed, self.domain, 0)
