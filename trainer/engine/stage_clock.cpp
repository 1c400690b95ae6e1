#include "trainer/engine/stage_clock.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace mds::trainer {

void StageClock::start() {
  instants_.clear();
  events_.clear();
  mark();
}

void StageClock::pass_begins() { mark(); }
void StageClock::pass_ends() { mark(); }
void StageClock::stop() { mark(); }

void StageClock::mark() {
  if (device_.is_cpu()) {
    instants_.push_back(std::chrono::steady_clock::now());
    return;
  }
  events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);   // the default flag: with timing
  events_.back().record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

StageTime StageClock::read() const {
  const size_t count = device_.is_cpu() ? instants_.size() : events_.size();
  if (count < 2) return {};
  const auto between = [this](size_t begin, size_t end) {
    if (device_.is_cpu()) return std::chrono::duration<double>(instants_[end] - instants_[begin]).count();
    return events_[begin].elapsedTime(events_[end]) / 1e3;
  };
  StageTime time{0, between(0, count - 1)};
  for (size_t i = 1; i + 2 < count; i += 2) time.busy += between(i, i + 1);
  return time;
}

}  // namespace mds::trainer
