// SPDX-License-Identifier: Apache-2.0
#include "lib/base/registry.h"

#include <csignal>

#include <catch2/catch.hpp>
#include <sys/wait.h>
#include <unistd.h>

namespace stmoe {
namespace {

struct Animal {
  using Factory = int;
  static constexpr const char* kKind = "animal";
};

STMOE_REGISTER(Animal, "horse", 4)
STMOE_REGISTER(Animal, "hen", 2)

// What a child process that runs `body` prints on standard error, and whether it was aborted.
template <class Body>
std::pair<std::string, bool> in_child(Body body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);
    body();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[512];
  for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return {text, WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT};
}

}  // namespace

TEST_CASE("a plug-in is found by the name it registered under", "[base][registry]") {
  CHECK(Registry<Animal>::get("horse") == 4);
  CHECK(Registry<Animal>::get("hen") == 2);
  CHECK(Registry<Animal>::contains("hen"));
  CHECK(!Registry<Animal>::contains("cow"));
  CHECK(Registry<Animal>::names() == std::vector<std::string>{"hen", "horse"});
}

TEST_CASE("an unknown name lists the known ones and the nearest", "[base][registry]") {
  CHECK_THROWS_AS(Registry<Animal>::get("cow"), UsageError);
  CHECK_THROWS_WITH(Registry<Animal>::get("horsse"),
                    "animal 'horsse' is unknown; did you mean 'horse'?; known: hen, horse");
  CHECK_THROWS_WITH(Registry<Animal>::get("elephant"),
                    "animal 'elephant' is unknown; known: hen, horse");
}

TEST_CASE("registering a name twice ends the program and names both files", "[base][registry]") {
  const auto [text, was_aborted] =
      in_child([] { Registry<Animal>::add("hen", 3, "lib/animals/other_hen.cpp"); });
  CHECK(was_aborted);
  CHECK_THAT(text, Catch::Contains("animal 'hen' is registered twice: in ") &&
                       Catch::Contains("registry_test.cpp and in lib/animals/other_hen.cpp"));
}

TEST_CASE("the nearest name is near enough to be meant", "[base][registry]") {
  const std::vector<std::string> keys{"capacity_factor", "num_experts", "group_size"};
  CHECK(nearest_name("capacity_factr", keys) == "capacity_factor");
  CHECK(nearest_name("num_expert", keys) == "num_experts");
  CHECK(nearest_name("experts_num", keys) == "");
  CHECK(nearest_name("dropout", keys) == "");
  CHECK(nearest_name("x", {}) == "");
}

}  // namespace stmoe
