# SPDX-License-Identifier: Apache-2.0
# Tokens-choose routing (Switch top-1 and top-2): choices, slots, weights, losses, capacities, group counts.
# Writes tests/golden/routing.json. Choices, slots, weights, losses and group counts come from google/flaxformer
# (commit 399ea3a: scatter router, compared with the masked router) and are compared with moe_numpy.py;
# probabilities and dropped fractions come from moe_numpy.py.
# Run: PYTHONPATH=<flaxformer checkout> python scripts/golden/routing.py

import numpy as np

from common import write_json
from flaxformer_routing import all_versions, call_router, num_groups, padded_shape
from moe_numpy import capacity, route

WORKED_EXAMPLE = [[2, 1, 0], [1, 2.1, 0], [2.2, 0, 1], [1.5, 1, 0.5], [0, 1, 2.3], [3, 0, 0.2]]


def make_case(name: str, logits: np.ndarray, k: int, room: int, prioritized: bool = False) -> dict:
    logits = np.asarray(logits, dtype=np.float32)
    groups, tokens, experts = logits.shape
    theirs = call_router(logits, k, room, prioritized)
    mask = call_router(logits, k, room, prioritized, masked=True)
    ours = route(logits, k, room, prioritized)

    expert, position = np.asarray(theirs.dispatch_indices[..., 0]), np.asarray(theirs.dispatch_indices[..., 1])
    slot = np.where(position < room, position, -1)
    weight = np.asarray(theirs.combine_weights, dtype=np.float64)
    assert (expert == ours.expert).all() and (slot == ours.slot).all()
    np.testing.assert_allclose(weight, ours.weight, rtol=2e-6)
    np.testing.assert_allclose(theirs.auxiliary_loss, ours.load_balance_loss, rtol=2e-6)
    np.testing.assert_allclose(theirs.router_z_loss, ours.router_z_loss, rtol=2e-6)
    combine = np.zeros((groups, tokens, experts, room))
    for group, token, choice in np.argwhere(slot >= 0):
        combine[group, token, expert[group, token, choice], slot[group, token, choice]] = weight[group, token, choice]
    np.testing.assert_allclose(np.asarray(mask.combine_array), combine, rtol=2e-6)
    np.testing.assert_allclose(mask.auxiliary_loss, theirs.auxiliary_loss, rtol=1e-6)

    return {
        "name": name, "num_groups": groups, "tokens_per_group": tokens, "num_experts": experts, "k": k,
        "capacity": room, "logits": logits.tolist(), "probabilities": ours.probabilities.tolist(),
        "expert": expert.tolist(), "slot": slot.tolist(), "weight": weight.tolist(),
        "load_balance_loss": float(theirs.auxiliary_loss), "router_z_loss": float(theirs.router_z_loss),
        "dropped_fraction": ours.dropped_fraction(),
        "tokens_left_behind_fraction": ours.tokens_left_behind_fraction(),
    }


def random_logits(seed: int, shape: tuple[int, int, int], scale: float = 1.0) -> np.ndarray:
    """Multiples of 1/64: exact in float32 and short in text. No equal values in a row."""
    random = np.random.default_rng(seed)
    wide = np.round(random.standard_normal(shape) * scale * 64).astype(int)
    for row in wide.reshape(-1, shape[-1]):
        while len(set(row.tolist())) < len(row):
            row += random.integers(-2, 3, size=len(row))
    return wide / 64.0


def tied_logits() -> np.ndarray:
    rows = [[0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 3, 3], [2, 0, 2, 2], [0, 0, 0, 0.5], [1, 1, 0, 0], [0, 0, 0, 0],
            [-1, -1, 2, -1]]
    return np.array([rows, rows[::-1]], dtype=np.float64)


def make_cases() -> list[dict]:
    worked = np.array([WORKED_EXAMPLE])
    skewed = random_logits(5, (1, 24, 4)) + np.array([1.5, 0.0, 0.0, -1.5])
    return [
        make_case("top-1, no overflow", random_logits(1, (1, 16, 4)), 1, 16),
        make_case("top-1, overflow", skewed, 1, 6),
        make_case("top-1, several groups, overflow in some", random_logits(2, (3, 16, 8)), 1, 3),
        make_case("top-1, one expert", random_logits(3, (1, 6, 1)), 1, 4),
        make_case("top-1, one slot", random_logits(4, (2, 9, 3)), 1, 1),
        make_case("top-1, large logits", random_logits(6, (1, 12, 5), 30.0), 1, 4),
        make_case("top-1, ties", tied_logits(), 1, 8),
        make_case("top-1, ties and overflow", tied_logits(), 1, 2),
        make_case("top-2, no overflow", random_logits(7, (1, 16, 4)), 2, 32),
        make_case("top-2, overflow", skewed, 2, 9),
        make_case("top-2, several groups", random_logits(8, (3, 16, 8)), 2, 4),
        make_case("top-2, ties", tied_logits(), 2, 3),
        make_case("worked example, k=1 C=2", worked, 1, 2),
        make_case("worked example, k=2 C=2", worked, 2, 2),
        make_case("worked example, k=2 C=3", worked, 2, 3),
    ]


def check_worked_example(cases: list[dict]) -> None:
    """The table that was worked out by hand: kept slots and losses."""
    by_name = {case["name"]: case for case in cases}
    first = by_name["worked example, k=1 C=2"]
    assert [s[0] for s in first["slot"][0]] == [0, 0, 1, -1, 0, -1]
    assert abs(first["load_balance_loss"] - 1.270528) < 1e-6 and abs(first["router_z_loss"] - 6.607039) < 1e-5
    assert by_name["worked example, k=2 C=2"]["slot"][0] == [[0, 1], [0, -1], [1, 1], [-1, -1], [0, -1], [-1, -1]]
    third = by_name["worked example, k=2 C=3"]
    assert third["slot"][0] == [[0, 1], [0, -1], [1, 1], [2, 2], [0, -1], [-1, 2]]
    assert abs(third["load_balance_loss"] - 2.143759) < 1e-6


def prioritized_cases() -> list[dict]:
    worked = np.array([WORKED_EXAMPLE])
    cases = [
        make_case("worked example, prioritized, k=1 C=2", worked, 1, 2, True),
        make_case("prioritized, top-2, several groups", random_logits(9, (2, 16, 4)), 2, 6, True),
        make_case("prioritized, ties", tied_logits(), 1, 2, True),
    ]
    assert [s[0] for s in cases[0]["slot"][0]] == [-1, 0, 1, -1, 0, 0]
    return cases


def capacity_table() -> list[dict]:
    rows = [
        (1.25, 8192, 128, 4, 80), (1.25, 512, 32, 4, 20), (1.25, 100, 8, 4, 16), (1.25, 50, 8, 4, 8),
        (1.0, 28, 8, 4, 4), (1.0, 20, 8, 2, 2), (2.0, 2048, 2048, 2, 2), (1.0, 28, 8, 1, 4), (1.0, 36, 8, 1, 4),
        (1.0, 44, 8, 1, 6), (1.0, 52, 8, 1, 6), (1.0, 60, 8, 1, 8), (2.0, 24, 4, 4, 12), (1.25, 24, 4, 4, 8),
        (1.25, 4096, 64, 4, 80), (4.0, 4096, 64, 2, 256), (1.0, 2048, 2048, 2, 2), (0.75, 512, 32, 4, 12),
        (1.0, 1, 8, 4, 4), (1.0, 1, 8, 1, 1), (0.5, 3, 2, 1, 1),
    ]
    table = []
    for factor, tokens, experts, smallest, expected in rows:
        result = capacity(factor, tokens, experts, smallest)
        assert result == expected, (factor, tokens, experts, smallest, result)
        table.append({"capacity_factor": factor, "tokens_per_group": tokens, "num_experts": experts,
                      "min_capacity": smallest, "capacity": result})
    return table


def group_table() -> list[dict]:
    # The first five are flaxformer's own test vectors; None: whatever flaxformer returns.
    rows = [
        (8, 32, 2, 1, 4), (9, 32, 2, 1, 4), (16, 32, 4, 2, 8), (32, 32, 2, 1, 2), (64, 32, 2, 1, 2),
        (8192, 1 << 20, 128, 1, 128), (8192, 1 << 20, 8, 4, None), (4096, 65536, 8, 1, None),
        (1024, 65536, 64, 2, None), (10, 72, 4, 1, None), (7, 60, 3, 1, None), (5, 12, 2, 1, None),
        (1, 24, 4, 1, None), (100, 96, 4, 3, None), (2048, 128 * 626, 8, 1, None),
    ]
    table = []
    for largest, tokens, experts, replicas, expected in rows:
        result = num_groups(largest, tokens, experts, replicas)
        assert expected is None or result == expected, (largest, tokens, experts, replicas, result)
        table.append({"max_group_size": largest, "num_tokens": tokens, "num_experts": experts,
                      "num_data_replicas": replicas, "num_groups": result})
    return table


def padding_table() -> list[dict]:
    rows = [(3, 24, 4, 1), (3, 5, 4, 1), (1, 7, 4, 1), (5, 3, 4, 1), (2, 3, 8, 1), (7, 10, 4, 2), (1, 1, 8, 1),
            (6, 114, 16, 1), (3, 3, 2, 2)]
    table = []
    for batch, length, experts, replicas in rows:
        padded_batch, padded_length = padded_shape(batch, length, experts, replicas)
        table.append({"batch": batch, "length": length, "num_experts": experts, "num_data_replicas": replicas,
                      "padded_batch": padded_batch, "padded_length": padded_length})
    return table


def main() -> None:
    cases = make_cases()
    check_worked_example(cases)
    write_json("routing.json", "scripts/golden/routing.py", all_versions(), {
        "cases": cases, "batch_prioritized_cases": prioritized_cases(), "capacity_table": capacity_table(),
        "group_table": group_table(), "padding_table": padding_table(),
    })


if __name__ == "__main__":
    main()
