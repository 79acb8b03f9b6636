#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when an #include points up, a third-party header leaves its room, or a file has outgrown its reader.

The direction is not written down here: it is the transitive closure of the DEPENDS lists in lib/*/CMakeLists.txt, and of
STMOE_TEST_EXTRA_<room> in tests/CMakeLists.txt for tests. Usage: check_layers.py [root of the repository]
"""
import pathlib
import re
import sys

CODE = {".h", ".cpp", ".cu", ".cuh"}
SIZED = CODE | {".py", ".sh", ".cmake", ".awk"}
MOST_LINES, MANY_LINES = 600, 400

# Third-party headers: where they may be included, as path prefixes; tests may read and write JSON and HDF5 as well.
THIRD_PARTY = {
    r"fmt/": ["lib/base/format.h"],
    r"spdlog/": ["lib/base/log.cpp"],
    r"xxhash\.h": ["lib/base/checksum.cpp"],
    r"omp\.h": ["lib/base/threads.cpp", "lib/ops/"],
    r"yaml-cpp/": ["lib/config/"],
    r"(hdf5\.h|H5)": ["lib/hdf5/", "tests/hdf5/"],
    r"mpi\.h": ["lib/comm/", "lib/hdf5/"],
    r"sentencepiece": ["lib/data/", "data_tools/vocabulary/"],
    r"CLI/": ["apps/common/", "data_tools/"],
    r"(zlib|zstd)\.h": ["data_tools/input/", "tests/data_tools/"],
    r"nlohmann/": ["lib/", "apps/", "data_tools/", "tests/"],
    r"catch2/": ["tests/"],
    r"(cuda|nccl|cublas)": ["cuda/"],
}
# Of these, headers of ours that may include them all the same: private to one room.
THIRD_PARTY_IN_HEADERS = ["lib/base/format.h", "lib/hdf5/", "tests/", "cuda/"]
GENERATED = {"build_info.h"}  # by CMake, into the build folder
# What a top folder may include besides lib/; tests of the emulation and of the CUDA runtime also cuda/.
BESIDES_LIB = {
    "lib": [],
    "apps": ["apps/"],
    "data_tools": ["data_tools/", "apps/common/"],
    "cuda": ["cuda/"],
    "tests": ["tests/", "apps/", "data_tools/"],
}
CUDA_MAY_USE = {"base", "tensor", "comm", "autograd", "ops", "config", "optim"}  # headers; of the last three for kernels' tables


def code_of_lists(path):
    return re.sub(r"#.*", "", path.read_text()) if path.exists() else ""


def room_closures(root):
    """room -> itself and every room below it."""
    depends = {}
    for lists in sorted([*root.glob("lib/*/CMakeLists.txt"), *root.glob("cuda/*/CMakeLists.txt")]):
        for name, rest in re.findall(r"stmoe_add_room\(\s*(\w+)([^)]*)\)", code_of_lists(lists)):
            if name != lists.parent.name:
                raise SystemExit(f"{lists}: room {name} in folder {lists.parent.name}")
            words = re.search(r"\bDEPENDS\b(.*?)(?=\b(?:SOURCES|CPU_KERNELS|BF16_KERNELS|LINK)\b|$)", rest, re.S)
            depends[name] = words.group(1).split() if words else []

    def below(room, path=()):
        if room in path:
            raise SystemExit(f"lib: rooms depend on each other: {' -> '.join(path + (room,))}")
        if room not in depends:
            raise SystemExit(f"lib: {path[-1]} depends on '{room}', which is no room")
        return {room}.union(*(below(other, path + (room,)) for other in depends[room]))

    return {room: below(room) for room in depends}


def test_extras(root):
    text = code_of_lists(root / "tests" / "CMakeLists.txt")
    extras = {}
    for rooms, extra in re.findall(r"foreach\(room ([\w ]+)\)\s*set\(STMOE_TEST_EXTRA_\$\{room\} ([\w ]+)\)", text):
        for room in rooms.split():
            extras.setdefault(room, set()).update(extra.split())
    for room, extra in re.findall(r"set\(STMOE_TEST_EXTRA_(\w+) ([\w ]+)\)", text):
        extras.setdefault(room, set()).update(extra.split())
    return extras


class Layers:
    def __init__(self, root):
        self.closures = room_closures(root)
        self.extras = test_extras(root)

    def rooms_for(self, parts):
        """The rooms that a file may include, or None for all."""
        if parts[0] == "lib":
            return self.closures.get(parts[1], {parts[1]})
        if parts[0] == "tests" and parts[1] == "support":
            return self.closures["autograd"]
        if parts[0] == "tests" and parts[1] in self.closures:
            extras = (self.closures[extra] for extra in self.extras.get(parts[1], ()))
            return self.closures[parts[1]].union(*extras)
        return CUDA_MAY_USE if parts[0] == "cuda" else None

    def problem(self, file, header):
        parts, target = file.parts, header.split("/")
        if len(target) == 1:
            return None if header in GENERATED else "includes are spelled from the root of the repository"
        if target[0] == "lib":
            allowed = self.rooms_for(parts)
            if allowed is not None and target[1] not in allowed:
                return f"{'/'.join(parts[:2])} does not depend on lib/{target[1]}"
        elif parts[:2] in (("tests", "emu"), ("tests", "cuda")) and target[0] == "cuda":
            return None
        elif not any(header.startswith(prefix) for prefix in BESIDES_LIB[parts[0]]):
            return f"{parts[0]}/ may not include {header}"
        return None


def third_party_problem(file, header):
    name = file.as_posix()
    for pattern, places in THIRD_PARTY.items():
        if not re.match(pattern, header):
            continue
        if not any(name.startswith(place) for place in places):
            return f"<{header}> belongs to {', '.join(places)}"
        if file.suffix == ".h" and not any(name.startswith(place) for place in THIRD_PARTY_IN_HEADERS):
            return f"<{header}> in a header: third-party headers are included in .cpp files only"
    return None


def unlisted_test(text):
    """The first test whose name breaks CMake's lists, by which CTest knows the tests."""
    for match in re.finditer(r'TEST_CASE\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)', text):
        name = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[1]))
        if name.count("[") != name.count("]") or ";" in name:
            return name
    return None


def check(root):
    layers, problems, warnings = Layers(root), [], []
    files = [path for top in ("lib", "apps", "data_tools", "tests", "cuda", "scripts")
             for path in sorted((root / top).rglob("*")) if path.suffix in SIZED and path.is_file()]
    for path in files:
        file, lines = path.relative_to(root), path.read_text().splitlines()
        if len(lines) > MANY_LINES:
            (problems if len(lines) > MOST_LINES else warnings).append(
                f"{file}: {len(lines)} lines; split it (soft limit {MANY_LINES}, hard limit {MOST_LINES})")
        if file.parts[0] == "tests" and re.search(r'TEST_CASE\(\s*"[-~]', "\n".join(lines)):
            problems.append(f"{file}: a test's name begins with - or ~: given as an argument, Catch runs nothing")
        if file.parts[0] == "tests" and path.suffix in CODE and (name := unlisted_test("\n".join(lines))):
            problems.append(f"{file}: the test '{name}': with a bracket alone or a semicolon, CMake makes one of it and its neighbours")
        for number, line in enumerate(lines if path.suffix in CODE else [], 1):
            include = re.match(r"\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", line)
            if not include:
                continue
            check_one = third_party_problem if include[1] == "<" else layers.problem
            if problem := check_one(file, include[2]):
                problems.append(f"{file}:{number}: {problem}")
    return len(files), problems, warnings


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent).resolve()
    count, problems, warnings = check(root)
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(problem)
    print(f"{count} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
