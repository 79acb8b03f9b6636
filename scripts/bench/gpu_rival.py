#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""stmoe and Hugging Face SwitchTransformers in bf16 on one GPU, in turn: JSON lines for scripts/gpu_report.

    scripts/bench/gpu_rival.py --stmoe bin/stmoe-pretrain --recipe recipes/bench/bench-switch-base-8.yaml

Same weights and tokens (a benchmark.h5 of stmoe-pretrain --benchmark 1 --output), same lengths, Adafactor, no dropout, cross-entropy
alone. The rival's capacity is another thing in every release of transformers (per sequence in some, no limit in others), so both compute
every token: here the capacity is what the fullest expert of the first step needs, there the limit is out of reach. Nothing is
compared unless the first losses agree to 1 %. The published factor 1.25 is timed as well, and named so.

The rival's ways (each a fresh process, between two runs of ours): weights in f32 under torch.autocast, which is what stmoe does, or all
in bf16, which loses small updates; eager or torch.compile. Its best counts. `worker FILE` is one such process.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-2
WAYS = {  # name: flags of the worker, seconds it may take
    "eager, autocast": ([], 60),
    "eager, bf16 weights": (["--precision", "bf16-weights"], 60),
    "compiled, autocast": (["--compile"], 150),
    "compiled, bf16 weights": (["--precision", "bf16-weights", "--compile"], 150),
}


def worker(arguments) -> dict:
    import h5py
    import torch
    import transformers
    import yaml
    sys.path.insert(0, str(HERE))
    import rival

    device = torch.device(arguments.device)
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    with h5py.File(arguments.file) as file:
        recipe = yaml.safe_load(file["recipe"][()])
        recipe["moe"] |= {"groups": "sequence", "min_capacity": 1 << 20}  # out of reach
        with device:  # starting values that are overwritten: made where that is fast
            model = rival.build_model(recipe, 0.0, arguments.attention)
        rival.load_weights(model, file["weights"])
        batch = {name: torch.from_numpy(file[f"batch/{ours}"][()]).long().to(device) for name, ours in
                 [("input_ids", "encoder_tokens"), ("decoder_input_ids", "decoder_inputs"), ("labels", "targets")]}
    if arguments.precision == "bf16-weights":
        model.to(torch.bfloat16)
    model.to(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=arguments.precision == "bf16")

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    with torch.no_grad(), autocast:
        first_loss = model.eval()(**batch).loss.item()
    run = torch.compile(model) if arguments.compile else model
    model.train()
    if arguments.optimizer == "torch":
        optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01, foreach=True)  # faster than its default
    else:
        optimizer = rival.make_optimizer(arguments.optimizer, model.parameters())
    seconds = []
    for _ in range(rival.WARMUP_STEPS + arguments.steps):
        wait()
        start = time.perf_counter()
        with autocast:
            loss = run(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        wait()
        seconds.append(time.perf_counter() - start)
    seconds = seconds[rival.WARMUP_STEPS:]
    tokens = batch["input_ids"].numel() + batch["labels"].numel()
    result = {"first_loss": first_loss, "seconds_per_step": statistics.median(seconds), "seconds": seconds,
              "tokens_per_second": tokens / statistics.median(seconds),
              "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
              "torch": torch.__version__, "transformers": transformers.__version__}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(0)
        result |= {"peak_memory_bytes": total - free, "most_allocated_bytes": torch.cuda.max_memory_allocated(),
                   "gpu": torch.cuda.get_device_name(), "l2_bytes": properties.L2_cache_size}
    return result


class Comparison:
    def __init__(self, arguments, folder: pathlib.Path):
        self.arguments, self.folder = arguments, folder
        self.end = time.monotonic() + arguments.seconds

    def time_left(self) -> float:
        return self.end - time.monotonic()

    def run(self, command: list, seconds: float) -> dict:
        """The JSON object that a command prints; {"failed": why} when there is none."""
        allowed = min(seconds, self.time_left())
        if allowed < 1:
            return {"failed": "no time was left"}
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=allowed)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {allowed:.0f} s"}
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["nothing was said"]
            return {"failed": f"exit {done.returncode}: {' '.join(lines[-3:])[:500]}"}
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError as error:
            return {"failed": f"no JSON: {error}"}

    def ours(self, batch: int, factor: float, steps: int, output=None) -> dict:
        settings = ["model.dropout=0", "precision.compute=bf16", "moe.groups=tokens", "moe.group_size=0", "moe.min_capacity=4",
                    f"moe.train_capacity_factor={factor}", f"data.batch_size={batch}", *self.arguments.set]
        command = [self.arguments.stmoe, self.arguments.recipe, "--benchmark", steps, "--json", "--device", self.arguments.device]
        for setting in settings:
            command += ["--set", setting]
        return self.run(command + (["--output", output] if output else []), 60)

    def rival(self, way: str, file: pathlib.Path) -> dict:
        flags, seconds = WAYS[way]
        return self.run([sys.executable, __file__, "worker", file, "--device", self.arguments.device,
                         "--steps", self.arguments.steps, *flags], seconds)

    def line(self, name: str, values: dict) -> None:
        commit = subprocess.run([self.arguments.stmoe, "--version"], capture_output=True, text=True).stdout
        commit = next((line.split()[-1] for line in commit.splitlines() if "git commit" in line), "unknown")
        gpu = values.get("gpu") or self.arguments.device
        print(json.dumps({"item": "rival", "name": name, "values": values, "unit": "tokens/s", "commit": commit, "device": gpu,
                          "clocks": clocks(), "seed": 1, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}), flush=True)

    def factor_without_drops(self, batch: int) -> tuple:
        """A capacity factor at which the first step keeps all tokens, that run, and the file that it wrote."""
        output = self.folder / f"batch-{batch}"
        result, factor = self.ours(batch, 1.25, 1), 1.25
        for _ in range(4):
            if "failed" in result:
                return factor, result, None
            layers = result["routing"].values()
            # Weights have moved a little by the last step, whose load is told.
            factor = round(max(factor, 1.03 * max(layer["load_max"] for layer in layers)), 3)
            result = self.ours(batch, factor, 1, output)
            if "failed" not in result and all(layer["dropped_fraction"] == 0 for layer in result["routing"].values()):
                return factor, result, output / "benchmark.h5"
            factor *= 1.2
        return factor, result if "failed" in result else {"failed": "tokens are dropped whatever the capacity"}, None

    def compare(self, batch: int) -> bool:
        name = f"{pathlib.Path(self.arguments.recipe).stem}, batch {batch}"
        factor, start, file = self.factor_without_drops(batch)
        if file is None:
            self.line(name, start)
            return False
        ours, rivals = [], {}
        for way in self.arguments.ways or WAYS:
            ours.append(self.ours(batch, factor, self.arguments.steps))
            rivals[way] = self.rival(way, file)
            self.line(f"{name}, rival {way}", rivals[way])
        published = self.ours(batch, 1.25, self.arguments.steps)
        self.line(f"{name}, ours at the published capacity 1.25", slim(published))
        self.line(name, self.verdict(batch, factor, start, [run for run in ours if "failed" not in run],
                                     {way: run for way, run in rivals.items() if "failed" not in run}))
        file.unlink()
        return bool(rivals)

    @staticmethod
    def verdict(batch: int, factor: float, start: dict, ours: list, rivals: dict) -> dict:
        values = {"batch": batch, "capacity_factor": factor, "first_loss": start["first_loss"]}
        if not ours or not rivals:
            return values | {"failed": "ours did not run" if not ours else "no way of the rival ran"}
        best = max(rivals, key=lambda way: rivals[way]["tokens_per_second"])
        rival = rivals[best]
        difference = abs(rival["first_loss"] - start["first_loss"]) / start["first_loss"]
        values |= {"rival_first_loss": rival["first_loss"], "first_loss_difference": difference, "best_way": best, "gpu": rival.get("gpu"),
                   "torch": rival["torch"], "transformers": rival["transformers"]}
        if difference > TOLERANCE:
            return values | {"failed": "the first losses differ: nothing is compared"}
        tokens = statistics.median(run["tokens_per_second"] for run in ours)
        memory = statistics.median(run["peak_memory_bytes"] for run in ours)
        return values | {
            "tokens_per_second": tokens, "rival_tokens_per_second": rival["tokens_per_second"],
            "ratio": tokens / rival["tokens_per_second"], "peak_memory_bytes": memory,
            "rival_peak_memory_bytes": rival["peak_memory_bytes"], "memory_ratio": memory / rival["peak_memory_bytes"]}


def slim(result: dict) -> dict:
    return {key: value for key, value in result.items() if not isinstance(value, (list, dict))}


def clocks():
    query = "clocks.sm,clocks.mem,power.draw,temperature.gpu"
    try:
        text = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"], capture_output=True, text=True,
                              timeout=10, check=True).stdout
        values = [float(value) for value in text.splitlines()[0].split(",")]
        return dict(zip(["sm_mhz", "memory_mhz", "power_watt", "temperature_celsius"], values))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    one = actions.add_parser("worker", help="the rival's process")
    one.add_argument("file", help="benchmark.h5")
    one.add_argument("--precision", choices=["bf16", "bf16-weights"], default="bf16")
    one.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    one.add_argument("--optimizer", choices=["transformers", "torch"], default="torch")
    one.add_argument("--compile", action="store_true")
    for sub in (parser, one):
        sub.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
        sub.add_argument("--steps", type=int, default=10)
    parser.add_argument("--stmoe", help="stmoe-pretrain")
    parser.add_argument("--recipe", default=str(HERE.parent.parent / "recipes/bench/bench-switch-base-8.yaml"))
    parser.add_argument("--set", action="append", default=[], help="for stmoe-pretrain, any number of times")
    parser.add_argument("--batches", default="64,128,32,16", help="in this order, until the time is used up")
    parser.add_argument("--ways", type=lambda text: text.split(";"), help="of the rival, separated by semicolons; default: all")
    parser.add_argument("--seconds", type=float, default=240)
    arguments = parser.parse_args()
    if arguments.action == "worker":
        print(json.dumps(worker(arguments)))
        return
    if not arguments.stmoe:
        parser.error("--stmoe is missing: give stmoe-pretrain")
    unknown = [way for way in arguments.ways or [] if way not in WAYS]
    if unknown:
        parser.error(f"unknown ways: {unknown}; there are {'; '.join(WAYS)}")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(arguments, pathlib.Path(folder))
        compared = [comparison.compare(int(batch)) for batch in arguments.batches.split(",") if comparison.time_left() > 5]
    sys.exit(0 if any(compared) else 1)


if __name__ == "__main__":
    main()
