# SPDX-License-Identifier: Apache-2.0
# A whole mixture-of-experts layer with overflow: output, losses and gradients, float64, by JAX autodiff.
# Writes tests/golden/moe_layer.h5 (k = 1) and moe_layer_top2.h5 (k = 2). L = sum(y * dy) + 0.01 * balance
# + 0.001 * z; y is without the residual. The layer is written here in jax.numpy after flaxformer's moe_layers.py;
# the same L, y and gradients are computed through flaxformer's own masked router (commit 399ea3a, float32) and compared.
# Run: PYTHONPATH=<flaxformer checkout> python scripts/golden/moe_layer.py

from typing import Callable

import numpy as np

from jax.experimental import enable_x64

from common import write_hdf5
from flaxformer_routing import all_versions, call_router, jax, jnp
from moe_numpy import route

GROUPS, TOKENS, WIDTH, EXPERTS, HIDDEN = 2, 14, 8, 4, 10
BALANCE, Z = 0.01, 0.001


def experts(x: jax.Array, wi: jax.Array, wo: jax.Array) -> jax.Array:
    """Every expert on every token: [G, T, E, d]."""
    return jnp.einsum("gtef,efd->gted", jax.nn.relu(jnp.einsum("gtd,edf->gtef", x, wi)), wo)


def layer(inputs: dict[str, jax.Array], kept: np.ndarray, chosen: np.ndarray) -> tuple[jax.Array, ...]:
    """kept and chosen [G, T, E] are constants: which choices have a slot, and which were made at all."""
    x = inputs["x"].reshape(GROUPS, TOKENS, WIDTH)
    logits = x @ inputs["router_kernel"]
    probabilities = jax.nn.softmax(logits, axis=-1)
    outputs = experts(x, inputs["wi"], inputs["wo"])
    y = jnp.einsum("gted,gte->gtd", outputs, probabilities * kept)
    balance = EXPERTS * (chosen.mean(axis=1) * probabilities.mean(axis=1)).sum(axis=-1).mean()
    z = (jax.nn.logsumexp(logits, axis=-1) ** 2).mean()
    return y.reshape(GROUPS * TOKENS, WIDTH), balance, z


def flaxformer_layer(inputs: dict[str, jax.Array], k: int, capacity: int) -> tuple[jax.Array, ...]:
    x = inputs["x"].reshape(GROUPS, TOKENS, WIDTH)
    mask = call_router(x @ inputs["router_kernel"], k, capacity, masked=True)
    weights = mask.combine_array.sum(axis=-1)
    y = jnp.einsum("gted,gte->gtd", experts(x, inputs["wi"], inputs["wo"]), weights)
    return y.reshape(GROUPS * TOKENS, WIDTH), mask.auxiliary_loss, mask.router_z_loss


def loss_and_gradients(function: Callable, inputs: dict[str, jax.Array], dy: jax.Array) -> tuple:
    def loss(values: dict[str, jax.Array]) -> tuple:
        y, balance, z = function(values)
        return (y * dy).sum() + BALANCE * balance + Z * z, (y, balance, z)

    (value, (y, balance, z)), gradients = jax.value_and_grad(loss, has_aux=True)(inputs)
    return value, y, balance, z, gradients


def attempt(seed: int, k: int, capacity: int) -> dict[str, np.ndarray] | None:
    random = np.random.default_rng(seed)
    sizes = {"x": (GROUPS * TOKENS, WIDTH), "router_kernel": (WIDTH, EXPERTS), "wi": (EXPERTS, WIDTH, HIDDEN),
             "wo": (EXPERTS, HIDDEN, WIDTH)}
    deviations = {"x": 1.0, "router_kernel": 0.5, "wi": WIDTH**-0.5, "wo": HIDDEN**-0.5}
    inputs = {name: random.standard_normal(shape) * deviations[name] for name, shape in sizes.items()}
    dy = random.standard_normal(sizes["x"])
    routing = route((inputs["x"] @ inputs["router_kernel"]).reshape(GROUPS, TOKENS, EXPERTS), k, capacity)
    ordered = np.sort(routing.probabilities, axis=-1)
    clear = (ordered[..., 1:] - ordered[..., :-1]).min() > 2e-3
    dropped = (routing.slot < 0).sum(axis=(1, 2))
    if not clear or dropped.min() < 2 or len(set(routing.expert.ravel().tolist())) < EXPERTS:
        return None
    kept, chosen = np.zeros((2, GROUPS, TOKENS, EXPERTS))
    for group, token, choice in np.ndindex(GROUPS, TOKENS, k):
        chosen[group, token, routing.expert[group, token, choice]] = 1
        kept[group, token, routing.expert[group, token, choice]] = routing.slot[group, token, choice] >= 0

    with enable_x64():
        exact = {name: jnp.asarray(value) for name, value in inputs.items()}
        value, y, balance, z, gradients = loss_and_gradients(
            lambda values: layer(values, kept, chosen), exact, jnp.asarray(dy))
        assert value.dtype == jnp.float64 and y.dtype == jnp.float64
    single = {name: jnp.asarray(value, dtype=jnp.float32) for name, value in inputs.items()}
    theirs = loss_and_gradients(lambda values: flaxformer_layer(values, k, capacity), single,
                                jnp.asarray(dy, dtype=jnp.float32))
    for mine, other in zip(jax.tree.leaves((value, y, balance, z, gradients)), jax.tree.leaves(theirs)):
        np.testing.assert_allclose(other, mine, rtol=2e-5, atol=2e-5)

    datasets = {**inputs, "dy": dy, "y": y, "loss": value, "load_balance_loss": balance, "router_z_loss": z,
                "probabilities": routing.probabilities, "expert": routing.expert, "slot": routing.slot}
    return datasets | {f"gradients/{name}": gradient for name, gradient in gradients.items()}


def make(name: str, k: int, capacity: int) -> None:
    for seed in range(1000):
        datasets = attempt(seed, k, capacity)
        if datasets is not None:
            break
    attributes = {
        "num_groups": GROUPS, "tokens_per_group": TOKENS, "num_experts": EXPERTS, "capacity": capacity, "k": k,
        "load_balance_coefficient": BALANCE, "router_z_coefficient": Z, "seed": seed,
    }
    print(name, "seed", seed, "dropped", int((datasets["slot"] < 0).sum()))
    write_hdf5(name, "scripts/golden/moe_layer.py", all_versions(), datasets, attributes)


if __name__ == "__main__":
    make("moe_layer.h5", 1, 4)
    make("moe_layer_top2.h5", 2, 7)
