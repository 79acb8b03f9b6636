#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`stmoe-data corpus` against Hugging Face tokenizers (Rust) on the same text and the same Unigram vocabulary.

    tokenizers_rate.py --stmoe-data build/release/bin/stmoe-data --vocabulary spiece.model --tokenizer tokenizer.json.gz \\
        c4-train.00000-of-00008.json.gz ...

The files are JSON lines with `text`. Ours is a whole run of the program: start, reading, parsing, encoding, writing the packed
corpus. The rival's time is that of encode_batch_fast alone, on texts that are in memory already. Each on 1 core and on 2 (bound to
them), in turn, the median of the rounds, in MB of text a second. The ids of both are compared document by document.
"""
import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time


def texts_of(files: list) -> list:
    texts = []
    for file in files:
        with (gzip.open if file.endswith(".gz") else open)(file, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def rival(arguments) -> None:
    """In a process of its own, on the cores that it was bound to: one JSON line, and the ids when asked."""
    import tokenizers
    packed = pathlib.Path(arguments.tokenizer).read_bytes()
    tokenizer = tokenizers.Tokenizer.from_str((gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed).decode())
    tokenizer.no_truncation(), tokenizer.no_padding()
    texts = texts_of(arguments.files)
    start = time.perf_counter()
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    seconds = time.perf_counter() - start
    if arguments.compare_with:
        import h5py
        import numpy
        with h5py.File(arguments.compare_with) as corpus:
            ours = numpy.split(corpus["tokens"][()], corpus["document_ends"][()][:-1])
        # A document without tokens is not stored.
        theirs = [numpy.array(e.ids) for e in encoded if len(e.ids)]
        equal = sum(a.shape == b.shape and bool((a == b).all()) for a, b in zip(ours, theirs))
        print(json.dumps({"documents": len(theirs), "stored": len(ours), "equal": equal}))
    else:
        print(json.dumps({"seconds": seconds, "tokens": sum(len(e.ids) for e in encoded), "version": tokenizers.__version__}))


def on_cores(count: int, command: list) -> subprocess.CompletedProcess:
    cores = sorted(os.sched_getaffinity(0))[:count]
    environment = os.environ | {"RAYON_NUM_THREADS": str(count), "TOKENIZERS_PARALLELISM": "true" if count > 1 else "false"}
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, check=False,
                            preexec_fn=lambda: os.sched_setaffinity(0, cores))
    if result.returncode != 0:
        sys.exit(f"{command}\nended with {result.returncode}:\n{result.stderr[-2000:]}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="JSON lines, also .gz")
    parser.add_argument("--vocabulary", help="the SentencePiece model")
    parser.add_argument("--tokenizer", required=True, help="the same vocabulary as tokenizer.json, also .gz")
    parser.add_argument("--stmoe-data", help="the program")
    parser.add_argument("--python", default=sys.executable, help="a Python with requirements.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="chrt -f 1, for a machine with other work")
    parser.add_argument("--rival", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--compare-with", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rival:
        rival(arguments)
        return
    prefix = ["chrt", "-f", "1"] if arguments.realtime else []
    megabytes = sum(len(text.encode()) for text in texts_of(arguments.files)) / 1e6
    their_command = prefix + [arguments.python, __file__, "--rival", "--tokenizer", arguments.tokenizer, *arguments.files]
    print(f"{len(arguments.files)} files, {megabytes:.1f} MB of text\n")
    print("| cores | stmoe-data corpus, MB/s | tokenizers, MB/s | ratio |\n| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder) / "corpus.h5"
        for cores in (1, 2):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                start = time.perf_counter()
                on_cores(cores, prefix + [arguments.stmoe_data, "corpus", "--threads", cores, "--keep-duplicates", "--overwrite",
                                          "--vocabulary", arguments.vocabulary, "--output", corpus, *arguments.files])
                ours.append(megabytes / (time.perf_counter() - start))
                theirs.append(megabytes / json.loads(on_cores(cores, their_command).stdout)["seconds"])
            rates = statistics.median(ours), statistics.median(theirs)
            print(f"| {cores} | {rates[0]:.2f} | {rates[1]:.2f} | **{rates[0] / rates[1]:.2f}** |", flush=True)
        same = json.loads(on_cores(2, their_command + ["--compare-with", corpus]).stdout)
        print(f"\n{same['equal']} of {same['documents']} documents have equal ids ({same['stored']} stored).")


if __name__ == "__main__":
    main()
