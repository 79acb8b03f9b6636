# SPDX-License-Identifier: Apache-2.0
"""The check of link order finds what it is there for, in maps of its own."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts"))
import check_cpu_levels  # noqa: E402

MAP = """Archive member included to satisfy reference by file (symbol)

 .text          0x0000000000001400       0x29 a.cpp.o

Cross Reference Table

Symbol                                            File
_Z5twicef                                         {}
                                                  {}
_Z10long_enough_to_stand_on_a_line_of_its_own_before_its_filesv
                                                  add.avx2.cpp.o
                                                  libops.a(add.avx512.cpp.o)
main                                              main.cpp.o
"""


class CheckCpuLevelsTest(unittest.TestCase):
    def references(self, first, second):
        with tempfile.NamedTemporaryFile("w", suffix=".map") as file:
            file.write(MAP.format(first, second))
            file.flush()
            return list(check_cpu_levels.cross_references(file.name))

    def problems(self, first, second):
        references = self.references(first, second)
        return check_cpu_levels.wrong_owners(references, {symbol for symbol, _ in references})

    def test_levels_of_objects(self):
        for file, level in [("x/add.cpp.o", 0), ("add.avx2.cpp.o", 1), ("libops.a(add.avx512.cpp.o)", 2),
                            ("a/attention.avx512_bf16.cpp.o", 3), ("libavx2.cpp.o.a(main.o)", 0)]:
            self.assertEqual(check_cpu_levels.level_of(file), level, file)

    def test_the_first_file_defines(self):
        self.assertEqual(self.problems("a.cpp.o", "libops.a(add.avx512.cpp.o)"), [])
        self.assertEqual(self.problems("add.avx2.cpp.o", "add.avx512.cpp.o"), [])
        wrong = self.problems("libops.a(add.avx2.cpp.o)", "libCatch2.a(catch.cpp.o)")
        self.assertEqual(len(wrong), 1, wrong)
        self.assertIn("_Z5twicef: taken from libops.a(add.avx2.cpp.o), though libCatch2.a(catch.cpp.o)", wrong[0])
        self.assertEqual(len(self.problems("add.avx512.cpp.o", "add.avx2.cpp.o")), 1)

    def test_what_shared_libraries_see(self):
        references = self.references("add.avx2.cpp.o", "add.avx512.cpp.o")
        self.assertEqual(len(check_cpu_levels.visible_symbols(references, {"_Z5twicef", "main"})), 1)
        self.assertEqual(check_cpu_levels.visible_symbols(references, {"main"}), [])

    def test_a_map_without_its_table(self):
        with tempfile.NamedTemporaryFile("w", suffix=".map") as file, self.assertRaisesRegex(SystemExit, "--cref"):
            list(check_cpu_levels.cross_references(file.name))


if __name__ == "__main__":
    unittest.main()
