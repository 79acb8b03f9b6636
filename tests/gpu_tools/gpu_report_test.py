#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu_report: what it makes of lines, complete, partial and broken ones. All figures here are made up: fixtures."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMITTED = ROOT / "docs/benchmarks/gpu.md"


def line(item, name, values, device="FIXTURE, no real device"):
    return json.dumps({"item": item, "name": name, "values": values, "unit": "", "commit": "fixture", "device": device,
                       "clocks": {"sm_mhz": 1980, "memory_mhz": 3201}, "seed": 1, "time": "2000-01-01T00:00:00Z"})


def steps(name, tokens, utilization):
    return line("steps", name, {"tokens_per_second": tokens, "seconds_per_step": 0.1, "flops_utilization_of_989": utilization,
                                "peak_memory_bytes": 2**30, "planned_memory_bytes": 2**30})


def product(rows, ratio):
    return line("products", f"R {rows} E 8 d 768, forward", {
        "rows": rows, "width": 768, "strided_of_dense": ratio, "strided_flops_per_second": 5e14, "dense_flops_per_second": 6e14,
        "loop_of_dense": 0.5, "strided_of_roofline": 0.8})


RIVAL = {"batch": 64, "capacity_factor": 2.0, "first_loss": 10.5, "rival_first_loss": 10.501, "best_way": "eager, autocast",
         "tokens_per_second": 600e3, "rival_tokens_per_second": 100e3, "ratio": 6.0, "peak_memory_bytes": 5e9,
         "rival_peak_memory_bytes": 1e10, "memory_ratio": 0.5}
COMPLETE = [
    line("rival", "bench-switch-base-8, batch 64", RIVAL),
    line("rival", "bench-switch-base-8, batch 128", RIVAL | {"rival_tokens_per_second": 150e3, "ratio": 4.2, "memory_ratio": 0.7}),
    steps("Switch-Base-128, batch 256", 450e3, 0.35), steps("ST-MoE-L, batch 96", 150e3, 0.39),
    steps("one layer of ST-MoE-32B, batch 32", 9e3, 0.65),
    product(640, 0.86), product(2048, 0.90),
    line("kernels", "geglu forward", {"seconds": 1e-3, "bytes": 4e9, "bytes_per_second": 4e12, "of_copy": 0.93}),
    line("kernels", "adafactor", {"seconds": 1e-3, "bytes": 3e9, "bytes_per_second": 3e12, "of_copy": 0.70}),
    line("losses", "difference", {"steps": 300, "held_out": 0.004, "mean_of_last_20": 0.001}),
    line("determinism", "f32, twice", {"steps": 50, "equal_bytes": True, "is_graph": True}),
    json.dumps({"item": "gpu_check", "name": "racecheck", "values": {"rc": 9, "seconds": 3, "what": "a race"}, "time": "x"}),
]


def report(lines, *arguments, check=True):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "results.jsonl").write_text("\n".join(lines) + "\n")
        done = subprocess.run([sys.executable, ROOT / "scripts/gpu_report", path / "results.jsonl", "--page", path / "page.md", "--table",
                               path / "table.txt", *arguments], capture_output=True, text=True, check=check)
        return (path / "page.md").read_text(), (path / "table.txt").read_text(), done.stderr


def state_of(page, row):
    found = [text.split(" | ") for text in page.splitlines() if text.startswith(f"| {row}")]
    found = [cells for cells in found if cells[1].startswith(("at least", "at most", "yes"))]  # the table of floors
    assert len(found) == 1, (row, found)
    return found[0][2].strip(), found[0][3].strip()


class GpuReport(unittest.TestCase):
    def test_floors_are_met_missed_and_of_the_fastest_rival(self):
        page, table, errors = report(COMPLETE)
        self.assertEqual(errors, "")
        self.assertEqual(state_of(page, "Switch-Base-8"), ("4.20", "missed"))
        self.assertEqual(state_of(page, "peak memory"), ("0.70", "missed"))
        self.assertEqual(state_of(page, "Switch-Base-128, batch 256: tokens/s"), ("450,000", "met"))
        self.assertEqual(state_of(page, "the same, of the ideal"), ("77.1%", "met"))
        self.assertEqual(state_of(page, "ST-MoE-L"), ("39.0%", "missed"))
        self.assertEqual(state_of(page, "one layer"), ("65.0%", "met"))
        self.assertEqual(state_of(page, "strided-batched"), ("86.0%", "met"))
        self.assertEqual(state_of(page, "at 2048 rows"), ("90.0%", "missed"))
        self.assertEqual(state_of(page, "every memory-bound"), ("70.0%", "missed"))
        self.assertEqual(state_of(page, "bf16 with f32 router"), ("0.40%", "met"))
        self.assertEqual(state_of(page, "two runs"), ("yes", "met"))
        self.assertIn("SM 1980 MHz", page)
        self.assertIn("exit 9: a race", page)
        self.assertIn("racecheck exit 9", table)

    def test_rows_without_lines_stay_open_with_their_command(self):
        page, table, _ = report(COMPLETE[2:3])
        self.assertEqual(state_of(page, "Switch-Base-128, batch 256: tokens/s"), ("450,000", "met"))
        self.assertEqual(state_of(page, "Switch-Base-8")[1], "open")
        self.assertIn("--only rival", page)
        self.assertEqual(page.count("| open |"), 9)

    def test_one_pair_of_unequal_runs_is_a_no(self):
        page, _, _ = report([*COMPLETE, line("determinism", "f32, kernel by kernel", {"steps": 50, "equal_bytes": False, "is_graph": False})])
        self.assertEqual(state_of(page, "two runs"), ("no", "missed"))

    def test_failures_are_listed_and_broken_lines_left_out(self):
        page, _, errors = report([line("steps", "ST-MoE-L, batch 96", {"failed": "out of memory"}), "{broken", '{"item": 3}', "",
                                  line("losses", "difference", {"steps": 2, "held_out": 0.0})])
        self.assertIn("| steps | ST-MoE-L, batch 96 | out of memory |", page)
        self.assertEqual(state_of(page, "ST-MoE-L")[1], "open")
        self.assertEqual(state_of(page, "bf16 with f32 router")[1], "open")  # not after 300 steps
        self.assertIn("2 lines are no results", errors)

    def test_the_emulated_device_fills_no_row(self):
        emulated = [text.replace("FIXTURE, no real device", "emu") for text in COMPLETE]
        page, _, errors = report(emulated)
        self.assertEqual(page.count("| open |"), 11)
        self.assertIn("not of a GPU", errors)

    def test_a_later_line_replaces_an_earlier_one(self):
        page, _, _ = report([product(640, 0.5), product(640, 0.86)])
        self.assertEqual(state_of(page, "strided-batched"), ("86.0%", "met"))

    def test_the_committed_page_holds_no_fixture(self):
        text = COMMITTED.read_text()
        self.assertNotIn("FIXTURE", text)
        self.assertNotIn(", emu,", text)
        self.assertIn("Switch-Base-128, batch 256", text)


if __name__ == "__main__":
    unittest.main()
