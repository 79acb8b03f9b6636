# SPDX-License-Identifier: Apache-2.0
# Span corruption and packing: lengths, noise masks, inputs and targets with sentinels, packed examples.
# Writes tests/golden/span_corruption.json with t5 0.9.4 (t5.data.preprocessors: random_spans_helper,
# random_spans_noise_mask, noise_span_to_unique_sentinel, nonnoise_span_to_unique_sentinel) and seqio 0.0.20
# (trim_and_pack_dataset through EncDecFeatureConverter) on TensorFlow 2.21.0. The span lengths are read off the mask.
# Run: python scripts/golden/span_corruption.py

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import seqio
import tensorflow as tf
from t5.data import preprocessors

from common import versions, write_json

DENSITY, SPAN = 0.15, 3.0
VOCABULARY = seqio.PassThroughVocabulary(size=32100)


def length_table() -> list[dict]:
    published = {64: (70, 14), 128: (141, 29), 256: (284, 58), 512: (568, 114), 1024: (1137, 229), 2048: (2274, 456)}
    settings = [(inputs, DENSITY, SPAN) for inputs in (16, 32, 48, 64, 96, 100, 128, 200, 256, 333, 512, 1024, 2048)]
    settings += [(512, 0.5, 3.0), (64, 0.5, 3.0), (64, 0.5, 1.0), (128, 0.3, 5.0), (512, 0.15, 8.0)]
    rows = []
    for inputs, density, span in settings:
        raw, targets = preprocessors.random_spans_helper(
            inputs_length=inputs, noise_density=density, mean_noise_span_length=span,
            extra_tokens_per_span_inputs=1, extra_tokens_per_span_targets=1)
        if density == DENSITY and span == SPAN and inputs in published:
            assert (raw, targets) == published[inputs]
        rows.append({"inputs": inputs, "noise_density": density, "mean_noise_span_length": span, "raw": raw,
                     "targets": targets})
    return rows


def make_mask(length: int, seed: int, density: float = DENSITY, span: float = SPAN) -> np.ndarray:
    seeds = tf.constant([[seed, 1], [seed, 2]], dtype=tf.int32)
    return preprocessors.random_spans_noise_mask(length, density, seeds, span).numpy()


def runs(mask: np.ndarray) -> tuple[list[int], list[int]]:
    """Lengths of the noise and of the non-noise runs; the first run is non-noise."""
    edges = np.flatnonzero(np.diff(mask.astype(int))) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(mask)]])).tolist()
    assert not mask[0] and mask[-1]
    return lengths[1::2], lengths[0::2]


def count_table(longest: int = 600) -> list[list[int]]:
    """[n, noise tokens, noise spans] at density 0.15 and mean span 3."""
    rows = []
    for length in range(2, longest + 1):
        noise, _ = runs(make_mask(length, length))
        rows.append([length, sum(noise), len(noise)])
    return rows


def make_case(length: int, seed: int) -> dict:
    mask = make_mask(length, seed)
    # A segment of one token is masked as if it had two, then cut.
    noise, nonnoise = runs(mask) if length > 1 else ([1], [1])
    tokens = np.random.default_rng(seed).integers(2, 32000, size=length).astype(np.int32)
    inputs = preprocessors.noise_span_to_unique_sentinel(tf.constant(tokens), tf.constant(mask), VOCABULARY, None)
    targets = preprocessors.nonnoise_span_to_unique_sentinel(tf.constant(tokens), tf.constant(mask), VOCABULARY, None)
    return {
        "n": length, "noise_density": DENSITY, "mean_noise_span_length": SPAN, "noise_span_lengths": noise,
        "nonnoise_span_lengths": nonnoise, "mask": mask.astype(int).tolist(), "vocab_size": 32100,
        "tokens": tokens.tolist(), "inputs": inputs.numpy().tolist(), "targets": targets.numpy().tolist(),
    }


def make_packing(name: str, examples: list[tuple[int, int]], inputs_length: int, targets_length: int,
                 seed: int) -> dict:
    """Examples are given by their input and target lengths; fewer examples than the longer feature has tokens."""
    assert len(examples) <= max(inputs_length, targets_length)
    random = np.random.default_rng(seed)
    raw = [{"inputs": random.integers(2, 100, a).tolist(), "targets": random.integers(2, 100, b).tolist()}
           for a, b in examples]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(raw),
        output_signature={name: tf.TensorSpec([None], tf.int32) for name in ("inputs", "targets")})
    converter = seqio.EncDecFeatureConverter(pack=True)
    lengths = {"inputs": inputs_length, "targets": targets_length}
    dataset = dataset.map(lambda one: {name: one[name][: lengths[name]] for name in lengths})  # as the task does
    converted = converter(dataset, lengths)
    names = {
        "encoder_input_tokens": "encoder_tokens", "encoder_segment_ids": "encoder_segment_ids",
        "encoder_positions": "encoder_positions", "decoder_input_tokens": "decoder_inputs",
        "decoder_target_tokens": "targets", "decoder_segment_ids": "decoder_segment_ids",
        "decoder_positions": "decoder_positions", "decoder_loss_weights": "loss_weights",
    }
    packed = [{ours: one[theirs].astype(int).tolist() for theirs, ours in names.items()}
              for one in converted.as_numpy_iterator()]
    return {"name": name, "inputs_length": inputs_length, "targets_length": targets_length, "examples": raw,
            "packed": packed}


def main() -> None:
    cases = [make_case(length, 100 * length + repeat)
             for length in (1, 2, 3, 5, 10, 20, 30, 50, 70, 141, 284, 568) for repeat in range(1 if length < 5 else 2)]
    packing = [
        make_packing("fits in turn", [(3, 2), (4, 3), (5, 2), (4, 4), (12, 8), (1, 1), (2, 7)], 12, 8, 1),
        make_packing("inputs full first", [(5, 1), (5, 1), (5, 1), (2, 1), (10, 2)], 12, 8, 2),
        make_packing("targets full first", [(2, 5), (2, 4), (2, 3), (1, 1), (1, 8)], 12, 8, 3),
        make_packing("trimmed", [(20, 3), (3, 15), (14, 9), (2, 2)], 12, 8, 4),
        make_packing("exactly full", [(6, 4), (6, 4), (12, 8), (4, 2), (4, 2), (4, 4)], 12, 8, 5),
    ]
    library_versions = versions(["t5", "seqio", "tensorflow", "tensorflow-text", "numpy"])
    write_json("span_corruption.json", "scripts/golden/span_corruption.py", library_versions, {
        "note": "inputs and targets of a case are without EOS; the pipeline appends EOS (1) to each afterwards",
        "length_table": length_table(), "count_table": count_table(), "cases": cases, "packing": packing,
    })


if __name__ == "__main__":
    main()
