#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times training steps of Hugging Face Transformers from the weights, tokens and recipe of a benchmark.h5.

    stmoe-pretrain RECIPE --benchmark 1 --set model.dropout=0 --output DIR     # writes DIR/benchmark.h5
    rival.py DIR/benchmark.h5 --dropout 0.1 --precision f32 --steps 3

Prints one JSON object: the cross-entropy per target token of the first step without dropout (to be equal to ours), then the
median time of a step (forward, backward, Adafactor) after two that are not counted, and the process's largest resident set.

  --precision f32            everything f32
              bf16           weights and optimizer f32, torch.autocast to bfloat16: what stmoe's bf16 is
              bf16-weights   weights, gradients and updates in bf16 too: faster, but small updates are lost

SwitchTransformers and T5 are built from the recipe: sparse layers, capacity (constant per sequence: the recipe must say
moe.groups: sequence), dropout at the same places, tied embeddings. Environment (allocator, OpenMP runtime): compare.py.
"""
import argparse
import json
import resource
import statistics
import time

import h5py
import torch
import transformers
import yaml

WARMUP_STEPS = 2


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"rival.py: {what}")


def expert_capacity(moe: dict, length: int) -> int:
    """stmoe's capacity of one sequence, which must be the constant that Hugging Face uses for every length."""
    return max(round(moe["train_capacity_factor"] * length / moe["num_experts"]), moe["min_capacity"])


def sparse_step(layers: list, num_layers: int) -> int:
    """Hugging Face knows every n-th block from the second on (1: all of them, 0: none)."""
    if not layers:
        return 0
    step = num_layers // len(layers)
    expected = [i for i in range(num_layers) if step == 1 or i % step == 1]
    check(layers == expected, f"sparse layers {layers} of {num_layers} are not every {step}th")
    return step


def build_model(recipe: dict, dropout: float, attention: str):
    model, moe = recipe["model"], recipe["moe"]
    check(model["activation"] == "relu" and model["tied_embeddings"], "only relu models with tied embeddings")
    common = dict(
        vocab_size=model["vocabulary_size"], d_model=model["d_model"], d_kv=model["d_kv"], d_ff=model["d_ff"],
        num_layers=model["encoder_layers"], num_decoder_layers=model["decoder_layers"], num_heads=model["num_heads"],
        relative_attention_num_buckets=model["relative_buckets"],
        relative_attention_max_distance=model["relative_max_distance"], dropout_rate=dropout,
        decoder_start_token_id=0, use_cache=False)
    encoder_sparse, decoder_sparse = moe["encoder_sparse_layers"] or [], moe["decoder_sparse_layers"] or []
    if not encoder_sparse and not decoder_sparse:
        config = transformers.T5Config(**common, feed_forward_proj="relu", attn_implementation=attention)
        return transformers.T5ForConditionalGeneration(config)
    check(moe["groups"] == "sequence" and moe["router"]["k"] == 1, "only top-1 routing with moe.groups: sequence")
    data = recipe["data"]
    # A capacity above the length drops nothing, whatever it is.
    capacities = {expert_capacity(moe, length) for length in (data["input_length"], data["target_length"])}
    check(len(capacities) == 1 or min(capacities) >= data["target_length"],
          f"capacities {capacities}: Hugging Face has one for both stacks")
    config = transformers.SwitchTransformersConfig(
        **common, num_experts=moe["num_experts"], expert_capacity=max(capacities),
        num_sparse_encoder_layers=len(encoder_sparse), num_sparse_decoder_layers=len(decoder_sparse),
        router_jitter_noise=moe["router"].get("jitter", 0.0), router_aux_loss_coef=moe["load_balance_loss"],
        router_z_loss_coef=moe["router_z_loss"])
    config.encoder_sparse_step = sparse_step(encoder_sparse, model["encoder_layers"])
    config.decoder_sparse_step = sparse_step(decoder_sparse, model["decoder_layers"])
    result = transformers.SwitchTransformersForConditionalGeneration(config)
    # The model's attention goes through the interface that knows sdpa, but its class does not say so.
    for part in (result, result.encoder, result.decoder):
        part.config._attn_implementation = attention
    return result


def hugging_face_weights(name: str, value: torch.Tensor, is_switch: bool):
    """(name, tensor) pairs of one of our weights; kernels are [in, out] here and [out, in] there."""
    if name == "shared/embedding":
        yield "shared.weight", value
        return
    stack, *path = name.split("/")
    if path == ["final_norm", "scale"]:
        yield f"{stack}.final_layer_norm.weight", value
    elif path == ["relative_bias", "table"]:
        yield f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", value.t()
    else:
        block, layer, *rest = path
        index = {"self_attention": 0, "cross_attention": 1}.get(layer, 1 if stack == "encoder" else 2)
        prefix = f"{stack}.block.{block.removeprefix('block_')}.layer.{index}"
        attention = {0: "SelfAttention", 1: "EncDecAttention"}.get(index)
        if rest == ["norm", "scale"]:
            yield f"{prefix}.layer_norm.weight", value
        elif layer in ("self_attention", "cross_attention"):
            yield f"{prefix}.{attention}.{rest[0][0]}.weight", value.t()
        elif layer == "feed_forward":
            yield f"{prefix}.{'mlp' if is_switch else 'DenseReluDense'}.{rest[0]}.weight", value.t()
        elif rest == ["router", "kernel"]:
            yield f"{prefix}.mlp.router.classifier.weight", value.t()
        else:
            for expert, kernel in enumerate(value):
                yield f"{prefix}.mlp.experts.expert_{expert}.{rest[1]}.weight", kernel.t()


def load_weights(model, weights: h5py.Group) -> None:
    parameters = dict(model.named_parameters())
    left = set(parameters)
    is_switch = isinstance(model, transformers.SwitchTransformersForConditionalGeneration)

    def copy(name, dataset):
        if not isinstance(dataset, h5py.Dataset):
            return
        for target, value in hugging_face_weights(name, torch.from_numpy(dataset[()]), is_switch):
            check(parameters[target].shape == value.shape, f"{target}: {parameters[target].shape}, here {value.shape}")
            with torch.no_grad():
                parameters[target].copy_(value)
            left.remove(target)

    weights.visititems(copy)
    check(not left, f"weights that were not in the file: {sorted(left)[:5]}")


def make_optimizer(kind: str, parameters):
    """The same rate and clipping as stmoe's first steps (rsqrt schedule with 10000 steps of warm-up: 0.01 times the RMS)."""
    if kind == "transformers":
        return transformers.Adafactor(parameters, lr=0.01, scale_parameter=True, relative_step=False)
    return torch.optim.Adafactor(parameters, lr=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="benchmark.h5")
    parser.add_argument("--precision", choices=["f32", "bf16", "bf16-weights"], default="f32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--optimizer", choices=["transformers", "torch"], default="transformers")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--no-check", action="store_true", help="leave out the first loss without dropout")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    with h5py.File(arguments.file) as file:
        recipe = yaml.safe_load(file["recipe"][()])
        model = build_model(recipe, arguments.dropout, arguments.attention)
        load_weights(model, file["weights"])
        batch = {name: torch.from_numpy(file[f"batch/{ours}"][()]).long() for name, ours in
                 [("input_ids", "encoder_tokens"), ("decoder_input_ids", "decoder_inputs"), ("labels", "targets")]}
    if arguments.precision == "bf16-weights":
        model.to(torch.bfloat16)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.precision == "bf16")

    first_loss = None
    if not arguments.no_check:
        with torch.no_grad(), autocast:
            first_loss = model.eval()(**batch).loss.item()
    run = torch.compile(model) if arguments.compile else model
    model.train()
    optimizer = make_optimizer(arguments.optimizer, model.parameters())
    seconds, losses = [], []
    for _ in range(WARMUP_STEPS + arguments.steps):
        start = time.perf_counter()
        with autocast:
            loss = run(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[WARMUP_STEPS:])
    tokens = batch["input_ids"].numel() + batch["labels"].numel()
    print(json.dumps({
        "first_loss_without_dropout": first_loss, "losses": losses, "seconds_per_step": step,
        "tokens_per_second": tokens / step, "seconds": seconds[WARMUP_STEPS:],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
