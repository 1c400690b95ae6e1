// How long a pipeline stage computes, and how long a step's schedule takes on it: the rest is the bubble.
#pragma once

#include <chrono>
#include <utility>
#include <vector>

#include <c10/core/Device.h>
#include <c10/core/Event.h>

namespace mds::trainer {

/// Seconds of one run of a schedule.
struct StageTime {
  double busy = 0;   ///< in the passes themselves, exchanges with the neighbours left out
  double span = 0;   ///< from before the first exchange to behind the last one
};

/// One thread. On GPUs the passes' begins and ends are events in the current stream, so nothing waits; on CPUs, where
/// passes end when their call returns, it is a clock.
class StageClock {
 public:
  explicit StageClock(c10::Device device) : device_(device) {}

  void start();          ///< a schedule begins; forgets the one before
  void pass_begins();
  void pass_ends();
  void stop();

  /// Of the schedule last stopped; the device must have come to its end (c10::Error otherwise). Zeros before the first.
  StageTime read() const;

 private:
  using Instant = std::chrono::steady_clock::time_point;
  void mark();

  c10::Device device_;
  std::vector<Instant> instants_;     ///< on CPUs: start, begin and end of each pass, stop
  std::vector<c10::Event> events_;    ///< on GPUs: the same
};

/// The share of all stages' time in which they do not compute: (p-1)/(m+p-1) for 1F1B or GPipe with p stages and m
/// micro batches of equal passes (Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1: there of the ideal time).
/// `busy`: seconds, summed over the stages; `span`: of the first stage, whose schedule takes longest, times the stages.
inline double bubble_share(double busy, double span) { return span > 0 ? 1 - busy / span : 0; }

}  // namespace mds::trainer
