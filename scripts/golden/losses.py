# SPDX-License-Identifier: Apache-2.0
# Cross-entropy with z-loss and label smoothing as t5x computes it: losses and gradients, float64.
# Writes tests/golden/losses.json. Written here after t5x/losses.py (compute_weighted_cross_entropy) so that autodiff
# runs in float64; t5x's own function (commit cc342d4; it rounds the soft targets to float32) is called and compared.
# "loss" is divided by the sum of the weights, "loss_sum" is not; both include the z-loss term.
# Run: PYTHONPATH=<t5x checkout> python scripts/golden/losses.py

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import enable_x64

from common import write_json
from t5x_modules import all_versions, load

t5x = load("losses")

TOKENS, CLASSES = 6, 11


def per_token(logits: jax.Array, targets: np.ndarray, smoothing: float, z: float) -> tuple[jax.Array, jax.Array]:
    on, off = 1.0 - smoothing, smoothing / (CLASSES - 1)
    soft = jnp.full((TOKENS, CLASSES), off).at[jnp.arange(TOKENS), targets].set(on)
    entropy = -(on * np.log(on) + (CLASSES - 1) * off * np.log(off + 1e-20))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    z_loss = z * log_z**2
    return -(soft * (logits - log_z[:, None])).sum(axis=-1) - entropy + z_loss, z_loss


def make_case(name: str, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, smoothing: float,
              z: float) -> dict:
    def mean(values: jax.Array) -> jax.Array:
        return (per_token(values, targets, smoothing, z)[0] * weights).sum() / weights.sum()

    with enable_x64():
        exact = jnp.asarray(logits)
        losses, z_losses = per_token(exact, targets, smoothing, z)
        loss, gradient = jax.value_and_grad(mean)(exact)

        def theirs(values: jax.Array) -> jax.Array:
            total, _, weight = t5x.compute_weighted_cross_entropy(
                values, jnp.asarray(targets), jnp.asarray(weights), label_smoothing=smoothing, z_loss=z)
            return total / weight

        their_gradient = jax.grad(theirs)(exact)
        assert gradient.dtype == jnp.float64
        np.testing.assert_allclose(theirs(exact), loss, rtol=1e-6)
        np.testing.assert_allclose(their_gradient, gradient, rtol=1e-5, atol=1e-8)
    return {
        "name": name, "z_loss": z, "label_smoothing": smoothing, "logits": logits.tolist(),
        "targets": targets.tolist(), "weights": weights.tolist(), "per_token_loss": np.asarray(losses).tolist(),
        "per_token_z_loss": np.asarray(z_losses).tolist(),
        "loss_sum": float((losses * weights).sum()), "z_loss_sum": float((z_losses * weights).sum()),
        "weight_sum": float(weights.sum()), "loss": float(loss), "gradient": np.asarray(gradient).tolist(),
    }


def main() -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((TOKENS, CLASSES)) * 3
    targets = random.integers(0, CLASSES, TOKENS)
    ones = np.ones(TOKENS)
    padded = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    cases = [
        make_case("plain", logits, targets, ones, 0.0, 0.0),
        make_case("padding", logits, targets, padded, 0.0, 0.0),
        make_case("z-loss", logits, targets, padded, 0.0, 1e-4),
        make_case("smoothing", logits, targets, padded, 0.1, 0.0),
        make_case("z-loss and smoothing", logits, targets, padded, 0.1, 1e-4),
        make_case("z-loss, large logits", logits * 20 + 50, targets, ones, 0.0, 1e-4),
    ]
    write_json("losses.json", "scripts/golden/losses.py", all_versions(), {"cases": cases})


if __name__ == "__main__":
    main()
