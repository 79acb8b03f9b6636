# SPDX-License-Identifier: Apache-2.0
# Calls the routers of google/flaxformer (commit 399ea3a) on given logits. flaxformer is not a registry package:
# have its source on PYTHONPATH.

import importlib.metadata
import os
import platform

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
from flaxformer.architectures.moe import moe_layers, routing

COMMIT = "399ea3a85e9807ada653fd0de1a9de627eb0acde"


def all_versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy", "h5py")}
    return {**found, "flaxformer": COMMIT, "python": platform.python_version()}


def call_router(logits: jax.Array, k: int, capacity: int, prioritized: bool = False, masked: bool = False) -> object:
    """RouterIndices or RouterMask; the logits stand in for the product of the tokens with the router kernel."""
    kind = routing.TokensChooseMaskedRouter if masked else routing.TokensChooseScatterRouter
    router = kind(
        router_weights=lambda tokens, experts: tokens, jitter_noise=0.0, dtype=jnp.float32,
        ignore_padding_tokens=False, num_selected_experts=k, batch_prioritized_routing=prioritized,
    )
    return router.apply({}, logits, logits.shape[-1], capacity, apply_jitter=False)


def num_groups(max_group_size: int, tokens: int, experts: int, replicas: int) -> int:
    return moe_layers._num_groups(tokens, max_group_size, experts, replicas, strict_group_size=False)


def padded_shape(batch: int, length: int, experts: int, replicas: int) -> tuple[int, int]:
    shape = moe_layers._maybe_pad(jnp.zeros((batch, length, 1)), experts, replicas).shape
    return shape[0], shape[1]
