// Shared beat: one page of memory in which a rank tells its agent that it lives, at the price of two relaxed
// instructions. The agent makes the page and seals its size, so that a rank cannot cut it under the agent's reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "agent/unique_fd.hpp"
#include "topology/result.hpp"

namespace mds::agent {

/// Layout of the page; both processes see the same build or the same layout.
struct BeatPage {
  std::atomic<uint64_t> beats{0};  ///< how often beat() was called
  std::atomic<uint64_t> step{0};   ///< the step named last
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

class SharedBeat {
 public:
  /// A new page. Errors: internal.
  static Result<SharedBeat> create();
  /// The page behind `fd`, which stays the caller's. Errors: bad_input (not such a page).
  static Result<SharedBeat> attach(int fd);

  SharedBeat(SharedBeat&&) = default;
  SharedBeat& operator=(SharedBeat&&) = default;

  /// To be inherited by the rank; -1 on an attached page.
  int fd() const { return fd_.get(); }

  /// Any thread of the rank.
  void beat(uint64_t step) {
    page_->step.store(step, std::memory_order_relaxed);
    page_->beats.fetch_add(1, std::memory_order_relaxed);
  }

  uint64_t beats() const { return page_->beats.load(std::memory_order_relaxed); }
  uint64_t step() const { return page_->step.load(std::memory_order_relaxed); }

 private:
  struct Unmap {
    void operator()(BeatPage* page) const;
  };
  static Result<SharedBeat> map(int fd);
  SharedBeat(UniqueFd fd, BeatPage* page) : fd_(std::move(fd)), page_(page) {}

  UniqueFd fd_;
  std::unique_ptr<BeatPage, Unmap> page_;
};

}  // namespace mds::agent
