# SPDX-License-Identifier: Apache-2.0
# Twenty steps of AdamW and clipping by the global norm, float32, on tensors made by the formula of adafactor.py.
# Writes tests/golden/adamw.h5 with PyTorch 2.5.1: torch.optim.AdamW (weight decay decoupled, on every tensor) and
# torch.nn.utils.clip_grad_norm_ (factor min(1, max_norm / (norm + 1e-6)); t5x has no 1e-6).
# Run: python scripts/golden/adamw.py

import numpy as np
import torch

from common import versions, write_hdf5

SHAPES = {"matrix": (0, (24, 30)), "vector": (1, (130,))}
STEPS, KEPT = 20, (1, 5, 20)


def initial(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy((0.5 * np.cos(0.23 * i + number)).astype(np.float32).reshape(shape))


def gradient(number: int, shape: tuple[int, ...], step: int) -> torch.Tensor:
    i = np.arange(np.prod(shape), dtype=np.float64)
    value = np.sin(0.37 * i + 1.3 * step + number) * (1 + 0.5 * np.cos(0.011 * i))
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def main() -> None:
    torch.set_num_threads(1)
    datasets: dict[str, np.ndarray] = {}
    options = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for name, (number, shape) in SHAPES.items():
        parameter = torch.nn.Parameter(initial(number, shape))
        optimizer = torch.optim.AdamW([parameter], **options, foreach=False, fused=False)
        for step in range(STEPS):
            parameter.grad = gradient(number, shape, step)
            optimizer.step()
            if step + 1 in KEPT:
                datasets[f"{name}/after_{step + 1}"] = parameter.detach().numpy().copy()
        state = optimizer.state[parameter]
        datasets[f"{name}/first_moment"] = state["exp_avg"].numpy()
        datasets[f"{name}/second_moment"] = state["exp_avg_sq"].numpy()
    limits = {"clipped": 1.0, "untouched": 1000.0}
    for case, limit in limits.items():
        parameters = [torch.nn.Parameter(initial(number, shape)) for number, shape in SHAPES.values()]
        for parameter, (number, shape) in zip(parameters, SHAPES.values()):
            parameter.grad = gradient(number, shape, 0)
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        datasets[f"clipping/{case}/max_norm"] = np.float32(limit)
        datasets[f"clipping/{case}/norm"] = norm.numpy()
        for name, parameter in zip(SHAPES, parameters):
            datasets[f"clipping/{case}/{name}"] = parameter.grad.numpy()
    attributes = {
        "cases": [{"name": name, "number": number, "shape": list(shape)} for name, (number, shape) in SHAPES.items()],
        "learning_rate": options["lr"], "beta1": 0.9, "beta2": 0.999, "epsilon": options["eps"],
        "weight_decay": options["weight_decay"], "steps": STEPS,
        "formula": "p[i] = 0.5*cos(0.23*i + c); g[step][i] = sin(0.37*i + 1.3*step + c)*(1 + 0.5*cos(0.011*i)); "
                   "float64 rounded to float32, i the flat index, step from 0, c the case's number; "
                   "clipping uses step 0",
    }
    write_hdf5("adamw.h5", "scripts/golden/adamw.py", versions(["torch", "numpy", "h5py"]), datasets, attributes)


if __name__ == "__main__":
    main()
