# SPDX-License-Identifier: Apache-2.0
"""The layer check finds what it is there for, in a small tree of its own."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "scripts"))
import check_layers  # noqa: E402


class CheckLayersTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("lib/base/CMakeLists.txt", "stmoe_add_room(base SOURCES a.cpp LINK fmt::fmt)")
        self.write("lib/tensor/CMakeLists.txt", "stmoe_add_room(tensor SOURCES t.cpp DEPENDS base LINK x)")
        self.write("lib/hdf5/CMakeLists.txt", "stmoe_add_room(hdf5\n  SOURCES h.cpp\n  DEPENDS base)")
        self.write("lib/ops/CMakeLists.txt", "# DEPENDS hdf5\nstmoe_add_room(ops SOURCES o.cpp\n DEPENDS tensor)")
        self.write("tests/CMakeLists.txt", "foreach(room ops nn)\n  set(STMOE_TEST_EXTRA_${room} hdf5)\nendforeach()")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def problems(self, name, text):
        self.write(name, text)
        problems = check_layers.check(self.root)[1]
        (self.root / name).unlink()
        return problems

    def assert_fine(self, name, text):
        self.assertEqual(self.problems(name, text), [])

    def assert_problem(self, name, text, part):
        problems = self.problems(name, text)
        self.assertEqual(len(problems), 1, problems)
        self.assertIn(part, problems[0])

    def test_includes_go_down(self):
        self.assert_fine("lib/ops/o.cpp", '#include <vector>\n#include "lib/base/a.h"\n#include "lib/ops/o.h"\n')
        self.assert_problem("lib/tensor/t.cpp", '\n#include "lib/ops/o.h"', "lib/tensor/t.cpp:2: lib/tensor does not")
        self.assert_problem("lib/ops/o.h", '#  include "lib/hdf5/h.h"', "does not depend on lib/hdf5")
        self.assert_problem("lib/ops/o.cpp", '#include "apps/common/x.h"', "lib/ may not include apps/common/x.h")
        self.assert_problem("lib/ops/o.cpp", '#include "cuda/ops/x.h"', "lib/ may not include")
        self.assert_problem("lib/ops/o.cpp", '#include "o.h"', "spelled from the root")

    def test_tests_see_their_room_and_its_extras(self):
        self.assert_fine("tests/ops/a_test.cpp", '#include "lib/hdf5/h.h"\n#include "tests/support/s.h"\n')
        self.assert_problem("tests/tensor/a_test.cpp", '#include "lib/hdf5/h.h"', "tests/tensor does not depend")

    def test_names_that_catch_takes_for_flags(self):
        self.assert_fine("tests/ops/a_test.cpp", 'TEST_CASE("the flag --help", "[a]") {}\n')
        self.assert_problem("tests/ops/a_test.cpp", 'TEST_CASE(\n    "--help is shown", "[a]") {}\n', "begins with -")

    def test_names_that_cmake_joins_with_their_neighbours(self):
        self.assert_fine("tests/ops/a_test.cpp", 'TEST_CASE("rows [a, b] and "\n          "columns", "[a]") {}\n')
        self.assert_problem("tests/ops/a_test.cpp", 'TEST_CASE("in [0, 1)", "[a]") {}\n', "in [0, 1)")
        self.assert_problem("tests/ops/a_test.cpp", 'TEST_CASE("one; "\n  "two", "[a]") {}\n', "one; two")

    def test_cuda_sees_few_rooms(self):
        self.assert_fine("cuda/ops/a.cu", '#include "lib/ops/o.h"\n#include <cuda_runtime.h>\n')
        self.assert_problem("cuda/ops/a.cu", '#include "lib/hdf5/h.h"', "does not depend on lib/hdf5")

    def test_third_party_headers_stay_in_their_rooms(self):
        self.assert_fine("lib/hdf5/h.cpp", "#include <hdf5.h>\n#include <mpi.h>\n")
        self.assert_problem("lib/ops/o.cpp", "#include <hdf5.h>", "<hdf5.h> belongs to lib/hdf5/")
        self.assert_problem("lib/base/a.cpp", "#include <fmt/format.h>", "belongs to lib/base/format.h")
        self.assert_problem("lib/ops/o.h", "#include <nlohmann/json.hpp>", "in a header")

    def test_long_files(self):
        self.assert_fine("lib/ops/o.cpp", "\n" * 500)
        self.assert_problem("lib/ops/o.cpp", "\n" * 601, "601 lines")
        self.assert_problem("scripts/long.py", "\n" * 700, "700 lines")

    def test_broken_room_lists(self):
        self.write("lib/base/CMakeLists.txt", "stmoe_add_room(base SOURCES a.cpp DEPENDS ops)")
        with self.assertRaisesRegex(SystemExit, "base -> ops -> tensor -> base"):
            check_layers.check(self.root)
        self.write("lib/base/CMakeLists.txt", "stmoe_add_room(base SOURCES a.cpp DEPENDS nothing)")
        with self.assertRaisesRegex(SystemExit, "'nothing', which is no room"):
            check_layers.check(self.root)


if __name__ == "__main__":
    unittest.main()
