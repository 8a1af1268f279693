import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mixopt.models.upcycling.balanced_k_means import assign, balanced_k_means


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 1000))
def test_an_assignment_is_balanced_and_no_exchange_of_two_points_betters_it(
    clusters: int, size: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    costs_NC = torch.rand(clusters * size, clusters, generator=random)
    labels_N = assign(costs_NC, size)
    assert torch.bincount(labels_N, minlength=clusters).tolist() == [size] * clusters
    now_NN = costs_NC.gather(1, labels_N.unsqueeze(1)).expand(-1, len(labels_N))
    then_NN = costs_NC[:, labels_N]  # what a point would cost in the place of another
    assert (then_NN + then_NN.T - now_NN - now_NN.T).min() > -1e-5


@pytest.mark.parametrize("seed", range(10))
def test_an_assignment_costs_little_more_than_the_exact_one(seed: int) -> None:
    size, clusters = 25, 4
    costs_NC = torch.rand(size * clusters, clusters, generator=torch.Generator().manual_seed(seed))
    places = costs_NC.repeat_interleave(size, 1).numpy()
    exact = places[linear_sum_assignment(places)].sum()
    found = float(costs_NC.gather(1, assign(costs_NC, size).unsqueeze(1)).sum())
    assert exact - 1e-4 <= found < 1.05 * exact


@pytest.mark.parametrize("seed", range(5))
def test_separate_clusters_of_equal_size_are_found(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    kinds = torch.arange(24) % 2
    points = torch.randn(24, 3, generator=random) + 20 * kinds.unsqueeze(1)
    labels = balanced_k_means(points, 2, random)
    assert len(set(zip(labels.tolist(), kinds.tolist(), strict=True))) == 2


def test_unequal_clusters_are_cut_where_it_costs_least() -> None:
    points = torch.tensor([[0.0], [0.1], [0.2], [0.9], [5.0], [5.1]])
    labels = balanced_k_means(points, 2, torch.Generator().manual_seed(0))
    assert labels[:3].unique().numel() == 1
    assert labels[3:].unique().numel() == 1


def test_equal_points_are_shared_out() -> None:
    labels = balanced_k_means(torch.zeros(12, 4), 3, torch.Generator())
    assert torch.bincount(labels).tolist() == [4, 4, 4]
