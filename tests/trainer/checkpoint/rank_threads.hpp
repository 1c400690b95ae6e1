// Ranks as threads of one test, joined by local communicators.
#pragma once

#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "trainer/comm/cpu.hpp"

namespace mds::testing {

/// Runs `body` once per rank, each in a thread of its own; the first exception is passed on.
inline void run_ranks(int size, const std::function<void(trainer::Communicator&)>& body) {
  auto group = trainer::make_local_group(size);
  std::vector<std::exception_ptr> failures(group.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < group.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        body(*group[i]);
      } catch (...) {
        failures[i] = std::current_exception();
        group[i].reset();  // its peers must not wait for it
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace mds::testing
