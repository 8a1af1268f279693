import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixopt.core.errors import CorpusError
from mixopt.corpus.questions import Questions
from mixopt.corpus.shards import Corpus
from mixopt.models.config import ModelConfig
from mixopt.models.routers.base import Routing, RoutingContext
from mixopt.models.routers.softmax import SoftmaxRouter
from mixopt.models.transformer import Transformer
from mixopt.proxies.evaluation import evaluate, validation_windows


def test_bits_per_byte_are_all_nats_over_all_bytes(corpus: Corpus) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size), (0, 1))
    found = evaluate(model, corpus, ("d0", "d1"), 700, 16)
    for k, evaluation in enumerate(found):
        for domain in ("d0", "d1"):
            nats, size, count = 0.0, 0.0, 0
            for window in validation_windows(corpus.validation(domain), 700, 16):
                ids_KBT = torch.from_numpy(window).expand(2, 1, -1)
                with torch.no_grad():
                    logits_TV = model.logits(ids_KBT[..., :-1])[k, 0]
                nats += float(F.cross_entropy(logits_TV, ids_KBT[k, 0, 1:], reduction="sum"))
                size += corpus.token_bytes[window[1:]].sum()
                count += len(window) - 1
            assert evaluation.metrics[f"loss/{domain}"] == pytest.approx(nats / count, rel=1e-5)
            expected = nats / math.log(2) / size
            assert evaluation.metrics[f"bpb/{domain}"] == pytest.approx(expected, rel=1e-5)
            assert sum(evaluation.loads[domain]) == pytest.approx(1)


def test_windows_do_not_overlap_and_reach_across_the_stream() -> None:
    stream = np.arange(1000, dtype=np.uint16)
    windows = validation_windows(stream, 320, 32)
    assert windows.shape == (10, 33)
    starts = windows[:, 0]
    assert (np.diff(starts) >= 32).all()
    assert starts[-1] > 850
    everything = validation_windows(stream, 10**9, 32)
    assert (everything[:, 0] == np.arange(31) * 32).all()


def test_a_domain_with_too_little_validation_text_is_named() -> None:
    with pytest.raises(CorpusError, match="d7"):
        validation_windows(np.arange(16), 100, 16, "d7")


def test_evaluation_leaves_the_model_as_it_was(corpus: Corpus) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, corpus, ("d0",), 100, 16)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(not router.step_counts_KE.any() for router in model.routers())


def test_the_losses_of_tokens_are_those_that_the_metric_is_the_mean_of(corpus: Corpus) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size), (0, 1))
    found = evaluate(model, corpus, ("d0", "d1"), 1500, 16, each_token_of=("d1",))
    windows = validation_windows(corpus.validation("d1"), 1500, 16)
    ids_WT = torch.from_numpy(windows)
    with torch.no_grad():
        logits_KWTV = model.logits(ids_WT[:, :-1].expand(2, -1, -1))
    for k, evaluation in enumerate(found):
        assert set(evaluation.token_losses) == {"loss/d1"}
        nats_N = evaluation.token_losses["loss/d1"]
        expected = F.cross_entropy(
            logits_KWTV[k].flatten(0, 1), ids_WT[:, 1:].flatten(), reduction="none"
        )
        np.testing.assert_allclose(nats_N, expected.numpy(), rtol=1e-4, atol=1e-5)
        assert evaluation.metrics["loss/d1"] == pytest.approx(nats_N.mean(), rel=1e-6)


def _questions(rows: list[list[tuple[list[int], list[int], int]]], right: list[int]) -> Questions:
    """Questions from (context, answer, bytes of the answer) per choice."""
    flat = [row for question in rows for row in question]
    texts = [[0, *context, *answer] for context, answer, _ in flat]
    first = np.cumsum([0, *map(len, rows)])
    return Questions(
        tokens=np.concatenate([np.array(text, dtype=np.int32) for text in texts]),
        starts=np.cumsum([0, *map(len, texts)]),
        contexts=np.array([1 + len(context) for context, _, _ in flat]),
        sizes=np.array([size for _, _, size in flat]),
        first=first,
        right=first[:-1] + np.array(right),
        lines=np.arange(1, len(rows) + 1),
    )


def _drawn(rng: np.random.Generator, count: int, choices: int) -> Questions:
    def ids(most: int) -> list[int]:
        return rng.integers(1, 60, rng.integers(1, most)).tolist()

    rows = [
        [(ids(30), ids(6), int(rng.integers(1, 20))) for _ in range(choices)] for _ in range(count)
    ]
    return _questions(rows, rng.integers(0, choices, count).tolist())


def _naive_bits(model: Transformer, questions: Questions, row: int, length: int, k: int) -> float:
    """Bits of one answer, alone and without padding."""
    ids = torch.from_numpy(questions.row(row, length).astype(np.int64))
    with torch.no_grad():
        logits_TV = model.logits(ids[:-1].expand(model.cohort, 1, -1))[k, 0]
    nats = F.cross_entropy(logits_TV, ids[1:], reduction="none")
    answer = int(questions.lengths[row] - questions.contexts[row])
    return float(nats[-answer:].sum()) / math.log(2)


@pytest.mark.parametrize("length", [64, 12])
def test_tasks_score_as_answers_alone_do(corpus: Corpus, length: int) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size), (0, 1))
    with torch.no_grad():
        model.embedding *= 20  # so that answers differ
    questions = _drawn(np.random.default_rng(0), 40, 3)
    found = evaluate(model, corpus, (), 10**6, length, tasks={"exam": questions})
    for k, evaluation in enumerate(found):
        bits = np.array([_naive_bits(model, questions, r, length, k) for r in range(120)])
        right = questions.right
        expected = bits[right].sum() / questions.sizes[right].sum()
        assert evaluation.metrics["task/exam"] == pytest.approx(expected, rel=1e-4)
        chosen = (bits / questions.sizes).reshape(40, 3).argmin(1)
        expected = float((chosen == right - 3 * np.arange(40)).mean())
        assert evaluation.metrics["accuracy/exam"] == pytest.approx(expected)
    assert found[0].metrics != found[1].metrics


def test_questions_without_choices_have_no_accuracy(corpus: Corpus) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size))
    questions = _drawn(np.random.default_rng(0), 5, 1)
    (found,) = evaluate(model, corpus, ("d0",), 100, 16, tasks={"exam": questions})
    assert set(found.metrics) == {"bpb/d0", "loss/d0", "task/exam"}


def test_as_many_questions_are_asked_as_tokens_allow(corpus: Corpus) -> None:
    model = Transformer(ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size))
    questions = _drawn(np.random.default_rng(0), 30, 2)
    (few,) = evaluate(model, corpus, (), 300, 64, tasks={"exam": questions})
    asked = questions.spread(300, 64)
    assert 1 < len(asked) < 30
    bits = [_naive_bits(model, questions, int(questions.right[q]), 64, 0) for q in asked]
    expected = sum(bits) / questions.sizes[questions.right[asked]].sum()
    assert few.metrics["task/exam"] == pytest.approx(expected, rel=1e-4)


def test_entropy_and_dropped_tokens_are_told_per_domain(corpus: Corpus) -> None:
    config = ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size)
    (found,) = evaluate(Transformer(config), corpus, ("d0", "d1"), 1500, 16)
    for domain in ("d0", "d1"):
        assert 0 < found.entropies[domain] <= math.log(config.experts_per_token) + 1e-6
        assert found.dropped[domain] == 0
    (dense,) = evaluate(Transformer(config.as_dense()), corpus, ("d0",), 100, 16)
    assert dense.entropies == dense.dropped == dense.loads == {}


@pytest.mark.parametrize("router", ["softmax", "adamoe", "mh-moe"])
def test_domains_that_share_batches_score_as_alone(corpus: Corpus, router: str) -> None:
    config = ModelConfig(width=16, heads=2, vocab_size=corpus.vocab_size, router=router)
    model = Transformer(config, (0, 1))
    together = evaluate(model, corpus, ("d0", "d1"), {"d0": 50, "d1": 800}, 16)
    for domain, tokens in (("d0", 50), ("d1", 800)):
        for mine, alone in zip(
            together, evaluate(model, corpus, (domain,), tokens, 16), strict=True
        ):
            assert mine.metrics[f"bpb/{domain}"] == pytest.approx(alone.metrics[f"bpb/{domain}"])
            assert mine.loads[domain] == pytest.approx(alone.loads[domain])
            assert mine.entropies[domain] == pytest.approx(alone.entropies[domain])
            assert mine.dropped[domain] == pytest.approx(alone.dropped[domain])


def test_a_token_that_reaches_no_expert_is_dropped(corpus: Corpus) -> None:
    class Half(SoftmaxRouter):
        def route(self, x_KND: torch.Tensor, context: RoutingContext) -> Routing:
            routing = super().route(x_KND, context)
            indices_KNS = routing.indices_KNS.clone()
            indices_KNS[:, ::2] = -1
            return replace(routing, indices_KNS=indices_KNS)

    model = Transformer(ModelConfig(width=16, heads=2, layers=2, vocab_size=corpus.vocab_size))
    model.blocks[0].feed_forward.router.__class__ = Half
    (found,) = evaluate(model, corpus, ("d0",), 10**6, 16)
    assert found.dropped["d0"] == pytest.approx(0.25)  # half the tokens of one layer of two
