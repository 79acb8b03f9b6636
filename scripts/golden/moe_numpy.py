# SPDX-License-Identifier: Apache-2.0
# Tokens-choose routing written out in NumPy float64, token by token, used to check what flaxformer returns.
# Follows flaxformer/architectures/moe/routing.py (TokensChooseScatterRouter, _load_balancing_loss,
# _router_z_loss): choice-major slots, every entry counted, raw probabilities as weights, all k choices in the
# balance loss.

from dataclasses import dataclass

import numpy as np


@dataclass
class Routing:
    probabilities: np.ndarray  # [G, T, E]
    expert: np.ndarray  # [G, T, k]
    slot: np.ndarray  # [G, T, k], -1 where dropped
    weight: np.ndarray  # [G, T, k], 0 where dropped
    load_balance_loss: float
    router_z_loss: float

    def dropped_fraction(self) -> float:
        return float((self.slot < 0).mean())

    def tokens_left_behind_fraction(self) -> float:
        return float((self.slot < 0).all(axis=-1).mean())


def route(logits: np.ndarray, k: int, capacity: int, prioritized: bool = False) -> Routing:
    logits = np.asarray(logits, dtype=np.float64)
    groups, tokens, experts = logits.shape
    largest = logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(logits - largest)
    log_z = largest[..., 0] + np.log(exponentials.sum(axis=-1))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    # A stable descending sort puts the lower expert first among equals.
    order = np.argsort(-logits, axis=-1, kind="stable")
    expert = order[..., :k]
    slot = np.full((groups, tokens, k), -1)
    weight = np.zeros((groups, tokens, k))
    for group in range(groups):
        queue = np.arange(tokens)
        if prioritized:
            queue = np.argsort(-probabilities[group].max(axis=-1), kind="stable")
        waiting = [0] * experts
        for choice in range(k):
            for token in queue:
                chosen = expert[group, token, choice]
                if waiting[chosen] < capacity:
                    slot[group, token, choice] = waiting[chosen]
                    weight[group, token, choice] = probabilities[group, token, chosen]
                waiting[chosen] += 1
    share = np.zeros((groups, experts))
    for one in range(experts):
        share[:, one] = (expert == one).any(axis=-1).mean(axis=-1)
    balance = experts * (share * probabilities.mean(axis=1)).sum(axis=-1).mean()
    return Routing(probabilities, expert, slot, weight, float(balance), float((log_z**2).mean()))


def capacity(factor: float, tokens_per_group: int, experts: int, smallest: int) -> int:
    """Half to even, as Python rounds; flaxformer/architectures/moe/moe_layers.py, MoeLayer.__call__."""
    return max(int(round(factor * tokens_per_group / experts)), smallest)
