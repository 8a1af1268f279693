"""k-means whose clusters are of equal size.

Shapes: N points, W their width, C clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10  # at most: of what 20 rounds gained on 1,536 channels 1 % was left after 10


def balanced_k_means(points_NW: Tensor, clusters: int, random: torch.Generator) -> Tensor:
    """The cluster of each point, (N,); N / C points in each.

    Lloyd's rounds; a round gives places away in order of what a point would lose elsewhere, then
    swaps pairs of points while that shortens distances. Exact assignment (Malinen and Fränti, 2014)
    takes O(N³): hours for the 11,008 channels of one 7B layer.

    Args:
        points_NW: N must be a multiple of C.
        clusters: C.
        random: draws the first centers.
    """
    size = len(points_NW) // clusters
    centers_CW = points_NW[torch.randperm(len(points_NW), generator=random)[:clusters]]
    labels_N, best = torch.empty(0, dtype=torch.int64), float("inf")
    for _ in range(ROUNDS):
        distances_NC = torch.cdist(points_NW, centers_CW).square()
        tried_N = assign(distances_NC, size)
        total = float(distances_NC.gather(1, tried_N.unsqueeze(1)).sum())
        if total >= best * (1 - 1e-6):
            break
        labels_N, best = tried_N, total
        centers_CW = torch.stack([points_NW[labels_N == c].mean(0) for c in range(clusters)])
    return labels_N


def assign(costs_NC: Tensor, size: int) -> Tensor:
    """The cluster of each point at a low sum of costs, (N,); `size` points in each cluster.

    Points choose in order of regret, the second lowest of their costs less the lowest, among the
    clusters with room; then pairs of points swap while a swap lowers the sum.
    """
    clusters = costs_NC.shape[1]
    labels_N = torch.full((len(costs_NC),), -1, dtype=torch.int64)
    room_C = torch.full((clusters,), size)
    while (left := torch.nonzero(labels_N < 0).flatten()).numel():
        open_NC = torch.where(room_C > 0, costs_NC[left], float("inf"))
        lowest = open_NC.topk(min(2, clusters), largest=False)
        regrets_N = lowest.values[:, -1] - lowest.values[:, 0]
        # whoever is among the first `room` of those that want a cluster gets it
        order_N = regrets_N.argsort(descending=True, stable=True)
        wanted_N = lowest.indices[order_N, 0]
        for c in range(clusters):
            taken = left[order_N[wanted_N == c][: int(room_C[c])]]
            labels_N[taken] = c
            room_C[c] -= len(taken)
    _swap(costs_NC, labels_N)
    return labels_N


def _swap(costs_NC: Tensor, labels_N: Tensor) -> None:
    """Exchange points of two clusters, in place, until no exchange of two lowers the sum.

    Between clusters a and b a point of a gains c_a - c_b by moving; the sum falls where the gains
    of the two add up to more than 0. The largest gains of both sides are exchanged together.
    """
    clusters = costs_NC.shape[1]
    moved = True
    while moved:
        moved = False
        for a in range(clusters):
            for b in range(a + 1, clusters):
                of_a, of_b = (torch.nonzero(labels_N == c).flatten() for c in (a, b))
                gains_a = costs_NC[of_a, a] - costs_NC[of_a, b]
                gains_b = costs_NC[of_b, b] - costs_NC[of_b, a]
                order_a, order_b = (g.argsort(descending=True) for g in (gains_a, gains_b))
                # the margin keeps rounding from exchanging the same points for ever
                margin = 1e-6 * costs_NC.abs().max()
                count = int((gains_a[order_a] + gains_b[order_b] > margin).sum())
                if count:
                    labels_N[of_a[order_a[:count]]] = b
                    labels_N[of_b[order_b[:count]]] = a
                    moved = True
