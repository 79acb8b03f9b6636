# SPDX-License-Identifier: Apache-2.0
# Loads single files of google-research/t5x (commit cc342d4): adafactor.py and losses.py. t5x is not a registry
# package: have its source on PYTHONPATH. The package's __init__ and the two modules that adafactor.py takes base
# classes and tree helpers from would pull in the whole trainer, so empty stand-ins are put in their place;
# nothing used here (apply_param_gradient, init_param_state, the losses) calls into them.

import importlib
import importlib.metadata
import os
import platform
import sys
import types
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
COMMIT = "cc342d419ec3e3e9c4bf1df33c82330cafdc1e16"


class OptimizerBase:
    def __init__(self, hyper_params: Any) -> None:
        self.hyper_params = hyper_params


def load(name: str) -> types.ModuleType:
    places = [Path(entry) / "t5x" for entry in sys.path if (Path(entry) / "t5x" / "adafactor.py").is_file()]
    if not places:
        raise SystemExit("no t5x source on PYTHONPATH")
    if "t5x" not in sys.modules:
        package = types.ModuleType("t5x")
        package.__path__ = [str(places[0])]
        utils = types.ModuleType("t5x.utils")
        optimizers = types.ModuleType("t5x.optimizers")
        optimizers.OptimizerDef = OptimizerBase
        optimizers.OptimizerState = object
        package.utils, package.optimizers = utils, optimizers
        sys.modules.update({"t5x": package, "t5x.utils": utils, "t5x.optimizers": optimizers})
    return importlib.import_module(f"t5x.{name}")


def all_versions(extra: tuple[str, ...] = ()) -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy", *extra)}
    return {**found, "t5x": COMMIT, "python": platform.python_version()}
