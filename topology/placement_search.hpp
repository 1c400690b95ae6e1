// Who sits where: positions that exchange bytes are given seats so that the traffic costs least (a quadratic assignment
// problem). Used for ranks on the GPUs of a node, and for nodes of the rank order on nodes of the fabric.
#pragma once

#include <cstddef>
#include <vector>

namespace mds::topology {

/// Bytes between two positions, both ways together.
struct Exchange {
  int a = 0, b = 0;
  double bytes = 0;
  bool operator==(const Exchange&) const = default;
};

/// The same pair's bytes added up, a < b, sorted; nothing from a position to itself.
std::vector<Exchange> merged(std::vector<Exchange> traffic);

struct SeatingProblem {
  size_t positions = 0;
  size_t seats = 0;               ///< at least as many; the first seats are preferred
  std::vector<Exchange> traffic;  ///< merged
  std::vector<double> cost;       ///< of a byte, [seats x seats], symmetric
};

using Seating = std::vector<int>;  ///< by position: its seat

double seating_cost(const SeatingProblem& problem, const Seating& seating);

/// How many seats are searched exhaustively (branch and bound); 8! = 40,320 orders.
inline constexpr size_t kExactSeatsMax = 8;

/// The cheapest seating: exact up to `exact_seats_max` seats; above, the best that swapping pairs makes of `starts` and
/// of a greedy seating, O(positions x seats) a round. Among equally good ones the first start. Requires a start.
Seating best_seating(const SeatingProblem& problem, const std::vector<Seating>& starts,
                     size_t exact_seats_max = kExactSeatsMax);

}  // namespace mds::topology
