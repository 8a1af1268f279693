import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixopt.corpus.shards import Corpus
from mixopt.errors import CorpusError
from mixopt.models.config import ModelConfig
from mixopt.models.transformer import Transformer
from proxies.evaluation import evaluate, validation_windows


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
