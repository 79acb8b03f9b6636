#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails when a linked program could run an instruction that the processor lacks (docs/decisions/0002-cpu-levels.md).

Usage: check_cpu_levels.py MAP EXECUTABLE OBJECT...

MAP is the linker's map of the executable with its cross reference table and mangled names; OBJECTs are the objects that are
compiled for a level above portable (NAME.LEVEL.cpp.o). Three things must hold:
 1. A function that objects of several levels define (inline functions and templates of headers) comes from the lowest of them.
 2. No such function of a level is visible to the shared libraries, which would take it for their own.
 3. What the objects of a level run before main has no vector instruction of that level.
"""
import re
import subprocess
import sys

LEVELS = ["portable", "avx2", "avx512", "avx512_bf16"]
LEVEL_OF_OBJECT = re.compile(r"\.(avx2|avx512|avx512_bf16)\.cpp\.o\)?$")


def level_of(file):
    found = LEVEL_OF_OBJECT.search(file)
    return LEVELS.index(found[1]) if found else 0


def cross_references(map_file):
    """(symbol, [the file that defines it, the others that define it or refer to it])"""
    with open(map_file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("Cross Reference Table"):
                break
        else:
            raise SystemExit(f"{map_file}: has no cross reference table; link with -Wl,-Map=FILE,--cref,--no-demangle")
        symbol, files = None, []
        for line in lines:
            words = line.rstrip("\n").split(None, 1)
            if not words or line.startswith("Symbol "):
                continue
            if line[0] == " ":
                files.append(line.strip())
                continue
            if symbol:
                yield symbol, files
            symbol, files = words[0], words[1:]
        if symbol:
            yield symbol, files


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wrong_owners(references, functions):
    problems = []
    for symbol, files in references:
        if len(files) < 2 or symbol not in functions:
            continue
        lowest = min(files, key=level_of)
        if level_of(files[0]) > level_of(lowest):
            problems.append(f"{symbol}: taken from {files[0]}, though {lowest} needs it: link lower levels first")
    return problems


def visible_symbols(references, exported):
    return [f"{symbol}: of {files[0]} is visible to shared libraries" for symbol, files in references
            if symbol in exported and files and level_of(files[0]) > 0]


def early_instructions(objects):
    problems = []
    for object_file in objects:
        function = None
        for line in run("objdump", "-d", "--no-show-raw-insn", object_file).splitlines():
            if start := re.match(r"[0-9a-f]+ <(.*)>:", line):
                function = start[1]
                if function.startswith("_GLOBAL__sub_I") or "__static_initialization" in function:
                    problems.append(f"{object_file}: {function}: a global with a constructor, which would run before main")
            elif function and "stmoe_register_" in function and re.match(r"\s*[0-9a-f]+:\s+(v\w+\s|.*[yz]mm)", line):
                problems.append(f"{object_file}: {function}: {line.strip()}")
    return problems


def main():
    map_file, executable, *objects = sys.argv[1:]
    if not objects or any(level_of(file) == 0 for file in objects):
        raise SystemExit("check_cpu_levels.py: expected objects named NAME.LEVEL.cpp.o")
    references = list(cross_references(map_file))
    if not any(level_of(file) for _, files in references for file in files):
        raise SystemExit(f"{map_file}: no object of a level is part of the program")
    functions = {line.split()[2] for line in run("nm", executable).splitlines() if re.match(r"\S+ [TtWwi] ", line)}
    exported = {line.split()[2] for line in run("nm", "-D", "--defined-only", executable).splitlines()}
    problems = wrong_owners(references, functions) + visible_symbols(references, exported) + early_instructions(objects)
    for problem in problems:
        print(problem)
    shared = sum(len(files) > 1 and level_of(max(files, key=level_of)) > 0 for _, files in references)
    print(f"{executable}: {len(objects)} objects of levels, {shared} symbols shared with them, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
