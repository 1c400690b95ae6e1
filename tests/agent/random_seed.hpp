// A fresh seed for every run, printed by INFO where a test fails; MDS_TEST_SEED=n repeats a run.
#pragma once

#include <cstdlib>
#include <random>
#include <string>

inline uint64_t fresh_seed() {
  if (const char* given = std::getenv("MDS_TEST_SEED")) return std::stoull(given);
  return std::random_device{}();
}
