// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of this room: the shipped vocabulary, and corpora of made-up tokens.
#pragma once

#include <algorithm>
#include <fstream>
#include <functional>
#include <string>

#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/base/files.h"
#include "lib/data/corpus.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::test {

inline Path source_file(const std::string& relative) { return Path(STMOE_SOURCE_DIR) / relative; }

inline const Vocabulary& t5_vocabulary() {
  static const Vocabulary vocabulary =
      Vocabulary::load(source_file("recipes/vocabularies/t5/spiece.model"));
  return vocabulary;
}
inline const Vocabulary& seqio_vocabulary() {
  static const Vocabulary vocabulary =
      Vocabulary::load(source_file("tests/data/files/seqio_test.model"));
  return vocabulary;
}

// Names of what is in a folder.
inline std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    all.push_back(entry.path().filename().string());
  std::sort(all.begin(), all.end());
  return all;
}

// Runs `call`, which must throw an error of this exit code whose text holds all of `parts`.
inline void require_error(ExitCode code, const std::vector<std::string>& parts,
                          const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    INFO("message: " << error.what());
    CHECK(static_cast<int>(error.code()) == static_cast<int>(code));
    for (const std::string& part : parts) {
      INFO("expected in it: " << part);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
    return;
  }
  FAIL("nothing was thrown");
}

// Documents of the given lengths. Token i of the whole stream is 3 + i % 30000, so that a test can
// tell where it is from.
inline Path write_corpus(const Path& path, const std::vector<int64_t>& lengths,
                         const Vocabulary& vocabulary = t5_vocabulary(), int32_t first = 0) {
  CorpusWriter writer(path, vocabulary);
  int32_t next = first;
  for (int64_t length : lengths) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < length; ++i) tokens.push_back(3 + next++ % 30000);
    writer.append(tokens, static_cast<uint64_t>(4 * length));
  }
  writer.finish();
  return path;
}

}  // namespace stmoe::test
