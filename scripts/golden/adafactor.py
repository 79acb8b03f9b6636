# SPDX-License-Identifier: Apache-2.0
# Twenty steps of Adafactor on tensors made by a formula; parameters and accumulators afterwards, float32.
# Writes tests/golden/adafactor.h5 with google-research/t5x (commit cc342d4), adafactor.py; the case "stacked_whole"
# comes from optax 0.2.5. Without stacking the two agree (compared below): epsilon 1e-30 is added to the squared gradient
# only, b2 = 1 - (step + 1)^-0.8 with step from 0, update RMS clipped at 1.0, scale max(RMS(parameter), 1e-3).
# They differ for rank > 2: t5x wants a rule, and its BATCH dimension keeps both RMS values per expert; optax factors
# the two largest dimensions, keeps the others, and takes one RMS over the tensor (as Mesh-TensorFlow does).
# Run: PYTHONPATH=<t5x checkout> python scripts/golden/adafactor.py

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from common import write_hdf5
from t5x_modules import all_versions, load

t5x = load("adafactor")

LEARNING_RATE, STEPS, KEPT, STRIDE = 0.01, 20, (1, 5, 20), 17


@dataclass
class Case:
    name: str
    number: int
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    per_expert: bool = False
    optax: bool = False
    spike: tuple[int, float] = (-1, 1.0)  # at this step the gradient is this many times as large


CASES = [
    Case("wide", 0, (128, 136)),
    Case("tall", 1, (136, 128)),
    Case("square", 2, (128, 128)),
    Case("not_factored", 3, (16, 200)),
    Case("vector", 4, (130,)),
    Case("stacked_per_expert", 5, (2, 128, 132), per_expert=True),
    Case("stacked_whole", 6, (2, 128, 132), optax=True),
    Case("stacked_small_per_expert", 7, (3, 12, 10), per_expert=True),
    Case("vector_spike", 8, (130,), spike=(12, 6.0)),
    Case("vector_no_parameter_scale", 9, (130,), {"multiply_by_parameter_scale": False}),
    Case("vector_momentum", 10, (130,), {"beta1": 0.9}),
    Case("vector_weight_decay", 11, (130,), {"weight_decay_rate": 0.001}),
]


def initial(case: Case) -> np.ndarray:
    i = np.arange(np.prod(case.shape), dtype=np.float64)
    return (0.5 * np.cos(0.23 * i + case.number)).astype(np.float32).reshape(case.shape)


def gradient(case: Case, step: int) -> np.ndarray:
    i = np.arange(np.prod(case.shape), dtype=np.float64)
    value = np.sin(0.37 * i + 1.3 * step + case.number) * (1 + 0.5 * np.cos(0.011 * i))
    factor = case.spike[1] if step == case.spike[0] else 1.0
    return (factor * value).astype(np.float32).reshape(case.shape)


def make_optimizer(case: Case, smallest: int = 128) -> Any:
    factor_map = None
    if case.per_expert:
        batch, row, column = t5x.FactorDim.BATCH, t5x.FactorDim.ROW, t5x.FactorDim.COLUMN
        factor_map = t5x.HParamMap(((".*", (batch, row, column)),))
    return t5x.Adafactor(LEARNING_RATE, factor_map=factor_map, min_dim_size_to_factor=smallest, **case.options)


def run_t5x(case: Case) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    optimizer = make_optimizer(case)
    parameter = jnp.asarray(initial(case))
    state = optimizer.init_param_state(parameter, "w")
    after = {}
    for step in range(STEPS):
        parameter, state = optimizer.apply_param_gradient(
            step, optimizer.hyper_params, parameter, state, jnp.asarray(gradient(case, step)), "w")
        after[step + 1] = np.asarray(parameter)
    slots = {name: np.asarray(getattr(state, name)) for name in ("v_row", "v_col", "v", "m")}
    return after, {name: value for name, value in slots.items() if value.shape != (1,)}


def run_optax(case: Case) -> tuple[dict[int, np.ndarray], dict[str, np.ndarray]]:
    optimizer = optax.adafactor(LEARNING_RATE)
    parameter = jnp.asarray(initial(case))
    state = optimizer.init(parameter)
    after = {}
    for step in range(STEPS):
        updates, state = optimizer.update(jnp.asarray(gradient(case, step)), state, parameter)
        parameter = optax.apply_updates(parameter, updates)
        after[step + 1] = np.asarray(parameter)
    slots = {name: np.asarray(getattr(state[0], name)) for name in ("v_row", "v_col", "v")}
    return after, {name: value for name, value in slots.items() if value.shape != (1,)}


def run_float64(case: Case) -> tuple[np.ndarray, int]:
    """The equations in NumPy: parameters after the last step, and at how many steps the update was clipped."""
    parameter = initial(case).astype(np.float64)
    rank = parameter.ndim
    averaged = tuple(range(1, rank)) if case.per_expert else tuple(range(rank))
    last, first = rank - 1, rank - 2
    factored = rank > 1 and (case.per_expert or min(case.shape[-2:]) >= 128)
    row = column = full = momentum = 0.0
    clipped = 0
    for step in range(STEPS):
        g = gradient(case, step).astype(np.float64)
        decay = 1 - (step + 1.0) ** -0.8
        squared = g**2 + 1e-30
        if factored:
            row = decay * row + (1 - decay) * squared.mean(axis=last, keepdims=True)
            column = decay * column + (1 - decay) * squared.mean(axis=first, keepdims=True)
            update = g / np.sqrt(row / row.mean(axis=first, keepdims=True)) / np.sqrt(column)
        else:
            full = decay * full + (1 - decay) * squared
            update = g / np.sqrt(full)
        size = np.sqrt((update**2).mean(axis=averaged, keepdims=True))
        clipped += bool((size > 1.0).any())
        delta = LEARNING_RATE * update / np.maximum(1.0, size)
        if case.options.get("multiply_by_parameter_scale", True):
            delta = delta * np.maximum(np.sqrt((parameter**2).mean(axis=averaged, keepdims=True)), 1e-3)
        beta1 = case.options.get("beta1", 0.0)
        momentum = beta1 * momentum + (1 - beta1) * delta
        parameter = (1 - case.options.get("weight_decay_rate", 0.0)) * parameter - momentum
    return parameter, clipped


def check_worked_example() -> None:
    optimizer = make_optimizer(Case("", 0, (2, 3)), smallest=2)
    parameter = jnp.array([[0.5, -1, 2], [1.5, 0.25, -0.75]])
    state = optimizer.init_param_state(parameter, "w")
    gradients = [[[0.1, -0.2, 0.3], [0.05, 0.4, -0.6]], [[0.2, 0.1, -0.1], [-0.3, 0.2, 0.5]]]
    for step, g in enumerate(gradients):
        parameter, state = optimizer.apply_param_gradient(
            step, optimizer.hyper_params, parameter, state, jnp.array(g), "w")
    np.testing.assert_allclose(
        parameter, [[0.46116221, -0.99821062, 1.99481755], [1.50820504, 0.23239742, -0.75055677]], atol=2e-7)
    np.testing.assert_allclose(state.v_row, [0.03135069, 0.14688508], rtol=1e-6)
    np.testing.assert_allclose(state.v_col, [0.03999301, 0.05692381, 0.17043683], rtol=1e-6)


def main() -> None:
    check_worked_example()
    datasets: dict[str, np.ndarray] = {}
    cases = []
    for case in CASES:
        after, slots = (run_optax if case.optax else run_t5x)(case)
        if not (case.per_expert or case.optax or case.options):
            other, _ = run_optax(case)
            np.testing.assert_allclose(after[STEPS], other[STEPS], atol=1e-6)
        exact, clipped = run_float64(case)
        difference = float(np.abs(after[STEPS] - exact).max())
        assert difference < 2e-6, (case.name, difference)
        print(f"{case.name}: from float64 {difference:.1e}, update clipped at {clipped} of {STEPS} steps, "
              f"slots {[(name, value.shape) for name, value in slots.items()]}")
        small = after[STEPS].size <= 4000
        for step in KEPT:
            whole = small or step == STEPS
            key = f"{case.name}/after_{step}" + ("" if whole else "_sampled")
            datasets[key] = after[step] if whole else after[step].ravel()[::STRIDE]
        datasets |= {f"{case.name}/{name}": value for name, value in slots.items()}
        cases.append({
            "name": case.name, "number": case.number, "shape": list(case.shape),
            "v_row_averages_axis": None if "v" in slots else int(np.argsort(case.shape, kind="stable")[-1]),
            "scope": "expert" if case.per_expert else "tensor", "source": "optax" if case.optax else "t5x",
            "multiply_by_parameter_scale": case.options.get("multiply_by_parameter_scale", True),
            "beta1": case.options.get("beta1", 0.0), "weight_decay": case.options.get("weight_decay_rate", 0.0),
            "spike_step": case.spike[0], "spike_factor": case.spike[1],
            "max_difference_from_f64": difference, "clipped_steps": clipped,
        })
    attributes = {
        "cases": cases, "learning_rate": LEARNING_RATE, "steps": STEPS, "sample_stride": STRIDE,
        "formula": "p[i] = 0.5*cos(0.23*i + c); g[step][i] = sin(0.37*i + 1.3*step + c)*(1 + 0.5*cos(0.011*i)), "
                   "times spike_factor at spike_step; float64 rounded to float32, i the flat index, step from 0, "
                   "c the case's number",
    }
    write_hdf5("adafactor.h5", "scripts/golden/adafactor.py", all_versions(("optax", "h5py")), datasets, attributes)


if __name__ == "__main__":
    main()
