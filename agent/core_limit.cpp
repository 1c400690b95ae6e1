#include "agent/core_limit.hpp"

namespace mds::agent {
namespace {

constexpr rlim_t kNoCore = 1;  // byte

std::optional<rlimit> before;

void set_soft_limit(rlim_t bytes) {
  const rlimit limit{bytes, before->rlim_max};
  setrlimit(RLIMIT_CORE, &limit);  // below the hard limit: this cannot fail
}

}  // namespace

void forbid_core_dumps() {
  rlimit limit{};
  if (before || getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_max < kNoCore) return;
  before = limit;
  set_soft_limit(kNoCore);
}

std::optional<rlimit> core_limit_before() { return before; }

CoreLimitLifted::CoreLimitLifted() {
  if (before) set_soft_limit(before->rlim_cur);
}

CoreLimitLifted::~CoreLimitLifted() {
  if (before) set_soft_limit(kNoCore);
}

}  // namespace mds::agent
