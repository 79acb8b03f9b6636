# SPDX-License-Identifier: Apache-2.0
# Relative position buckets of T5 for rel = key - query in [-300, 300], 32 buckets, maximum distance 128.
# Writes tests/golden/relative_buckets.json with T5Attention._relative_position_bucket of Hugging Face
# transformers 4.57.6. Run: python scripts/golden/buckets.py

import torch
from transformers.models.t5.modeling_t5 import T5Attention

from common import versions, write_json


def main() -> None:
    relative = torch.arange(-300, 301)
    tables = {
        name: T5Attention._relative_position_bucket(
            relative, bidirectional=bidirectional, num_buckets=32, max_distance=128
        ).tolist()
        for name, bidirectional in (("bidirectional", True), ("causal", False))
    }
    content = {"num_buckets": 32, "max_distance": 128, "relative_positions": relative.tolist(), **tables}
    write_json("relative_buckets.json", "scripts/golden/buckets.py", versions(["torch", "transformers"]), content)


if __name__ == "__main__":
    main()
