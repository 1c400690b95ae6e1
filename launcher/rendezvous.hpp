// Rendezvous: the head's side of RankControl::exchange, an all-gather of small values by name. No input or output.
//
// Invariants: R1 a name is completed at most once an attempt; R2 an exchange completes with exactly `count` values, by
// index; R3 what ranks can make the head hold is bounded.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "topology/result.hpp"

namespace mds::launcher {

/// One rank's contribution.
struct Contribution {
  std::string name;
  int index = 0;
  int count = 0;
  int rank = 0;
  std::string value;             ///< any bytes
};

/// A complete exchange.
struct Exchange {
  std::string name;
  std::vector<int> ranks;        ///< by index
  std::vector<std::string> values;  ///< by index
};

class Rendezvous {
 public:
  static constexpr size_t kValueBytesMax = 1u << 20;
  static constexpr size_t kNameBytesMax = 256;
  static constexpr size_t kHeldBytesMax = 256u << 20;   ///< of values in exchanges that wait for ranks
  static constexpr size_t kNamesMax = 100'000;          ///< an attempt

  explicit Rendezvous(int world_size) : world_size_(world_size) {}

  /// The exchange if this contribution completes it. Errors: bad_input when a rank breaks the rules (another count,
  /// index taken or out of range, name used before, too large): the fault is the rank's, others are not disturbed.
  Result<std::optional<Exchange>> put(Contribution contribution);

  /// A new attempt begins: all names are free again.
  void reset();

  /// "name: ranks 0, 2 of 4 are there", for those that wait; what to look at when a start hangs.
  std::vector<std::string> waiting() const;

 private:
  struct Pending {
    std::vector<std::optional<Contribution>> by_index;
    int present = 0;
  };
  int world_size_;
  std::map<std::string, Pending> pending_;
  std::set<std::string> completed_;
  size_t held_bytes_ = 0;
};

}  // namespace mds::launcher
