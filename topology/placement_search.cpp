#include "topology/placement_search.hpp"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace mds::topology {
namespace {

constexpr double kBetter = 1 - 1e-9;  // less than this is rounding, and the earlier seating stays
constexpr int kRoundsMax = 50;

struct Neighbour {
  int position;
  double bytes;
};
using Neighbours = std::vector<std::vector<Neighbour>>;  // by position

Neighbours neighbours(const SeatingProblem& problem) {
  Neighbours all(problem.positions);
  for (const Exchange& e : problem.traffic) {
    all[static_cast<size_t>(e.a)].push_back({e.b, e.bytes});
    all[static_cast<size_t>(e.b)].push_back({e.a, e.bytes});
  }
  return all;
}

double cost_between(const SeatingProblem& problem, int seat_a, int seat_b) {
  return problem.cost[static_cast<size_t>(seat_a) * problem.seats + static_cast<size_t>(seat_b)];
}

/// Depth first, position after position; a branch ends where even the cheapest cost for all bytes still to come would
/// not beat the best so far.
class BranchAndBound {
 public:
  BranchAndBound(const SeatingProblem& problem, Seating start)
      : problem_(problem),
        neighbours_(neighbours(problem)),
        best_(std::move(start)),
        best_cost_(seating_cost(problem, best_)),
        seating_(problem.positions, -1),
        taken_(problem.seats) {
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < problem.seats; ++i) {
      for (size_t j = 0; j < i; ++j) least = std::min(least, problem.cost[i * problem.seats + j]);
    }
    to_come_.assign(problem.positions + 1, 0);
    for (const Exchange& e : problem.traffic) {
      for (int depth = 0; depth <= e.b; ++depth) to_come_[static_cast<size_t>(depth)] += e.bytes * least;
    }
  }

  Seating run() {
    descend(0, 0);
    return best_;
  }

 private:
  void descend(size_t position, double cost) {
    if (cost + to_come_[position] >= best_cost_ * kBetter) return;
    if (position == problem_.positions) {
      best_ = seating_;
      best_cost_ = cost;
      return;
    }
    for (size_t seat = 0; seat < problem_.seats; ++seat) {
      if (taken_[seat]) continue;
      double more = 0;
      for (const Neighbour& n : neighbours_[position]) {
        if (static_cast<size_t>(n.position) >= position) continue;
        more += n.bytes * cost_between(problem_, static_cast<int>(seat), seating_[static_cast<size_t>(n.position)]);
      }
      taken_[seat] = true;
      seating_[position] = static_cast<int>(seat);
      descend(position + 1, cost + more);
      taken_[seat] = false;
    }
  }

  const SeatingProblem& problem_;
  const Neighbours neighbours_;
  Seating best_;
  double best_cost_;
  Seating seating_;
  std::vector<bool> taken_;
  std::vector<double> to_come_;  // by depth: least cost of the exchanges whose later position is not seated yet
};

/// Each position takes the seat that is cheapest to those already seated.
Seating greedy(const SeatingProblem& problem, const Neighbours& neighbours) {
  Seating seating;
  std::vector<bool> taken(problem.seats);
  for (size_t position = 0; position < problem.positions; ++position) {
    double least = std::numeric_limits<double>::infinity();
    size_t chosen = 0;
    for (size_t seat = 0; seat < problem.seats; ++seat) {
      if (taken[seat]) continue;
      double cost = 0;
      for (const Neighbour& n : neighbours[position]) {
        if (static_cast<size_t>(n.position) >= position) continue;
        cost += n.bytes * cost_between(problem, static_cast<int>(seat), seating[static_cast<size_t>(n.position)]);
      }
      if (cost < least * kBetter) std::tie(least, chosen) = std::pair(cost, seat);
    }
    taken[chosen] = true;
    seating.push_back(static_cast<int>(chosen));
  }
  return seating;
}

/// Swaps the occupants of two seats, or moves one to an empty seat, as long as that saves something.
void improve(const SeatingProblem& problem, const Neighbours& neighbours, Seating& seating) {
  std::vector<int> occupant(problem.seats, -1);
  for (size_t p = 0; p < seating.size(); ++p) occupant[static_cast<size_t>(seating[p])] = static_cast<int>(p);
  // What `position` would pay on `seat`, without the exchange with `other`, which a swap does not change.
  const auto pays = [&](int position, int seat, int other) {
    double cost = 0;
    if (position < 0) return cost;
    for (const Neighbour& n : neighbours[static_cast<size_t>(position)]) {
      if (n.position == other) continue;
      cost += n.bytes * cost_between(problem, seat, seating[static_cast<size_t>(n.position)]);
    }
    return cost;
  };
  bool improved = true;
  for (int round = 0; improved && round < kRoundsMax; ++round) {
    improved = false;
    for (int a = 0; a < static_cast<int>(problem.seats); ++a) {
      for (int b = a + 1; b < static_cast<int>(problem.seats); ++b) {
        const int p = occupant[static_cast<size_t>(a)], q = occupant[static_cast<size_t>(b)];
        if (p < 0 && q < 0) continue;
        const double now = pays(p, a, q) + pays(q, b, p), then = pays(p, b, q) + pays(q, a, p);
        if (then >= now * kBetter) continue;
        std::swap(occupant[static_cast<size_t>(a)], occupant[static_cast<size_t>(b)]);
        if (p >= 0) seating[static_cast<size_t>(p)] = b;
        if (q >= 0) seating[static_cast<size_t>(q)] = a;
        improved = true;
      }
    }
  }
}

}  // namespace

std::vector<Exchange> merged(std::vector<Exchange> traffic) {
  for (Exchange& e : traffic) {
    if (e.a > e.b) std::swap(e.a, e.b);
  }
  std::erase_if(traffic, [](const Exchange& e) { return e.a == e.b; });
  std::stable_sort(traffic.begin(), traffic.end(),
                   [](const Exchange& x, const Exchange& y) { return std::tie(x.a, x.b) < std::tie(y.a, y.b); });
  size_t count = 0;
  for (const Exchange& e : traffic) {
    if (count > 0 && traffic[count - 1].a == e.a && traffic[count - 1].b == e.b) {
      traffic[count - 1].bytes += e.bytes;
    } else {
      traffic[count++] = e;
    }
  }
  traffic.resize(count);
  return traffic;
}

double seating_cost(const SeatingProblem& problem, const Seating& seating) {
  double cost = 0;
  for (const Exchange& e : problem.traffic) {
    cost += e.bytes * cost_between(problem, seating[static_cast<size_t>(e.a)], seating[static_cast<size_t>(e.b)]);
  }
  return cost;
}

Seating best_seating(const SeatingProblem& problem, const std::vector<Seating>& starts, size_t exact_seats_max) {
  if (problem.seats <= exact_seats_max) return BranchAndBound(problem, starts.front()).run();
  const Neighbours near = neighbours(problem);
  std::vector<Seating> candidates = starts;
  candidates.push_back(greedy(problem, near));
  Seating best = starts.front();
  double best_cost = seating_cost(problem, best);
  for (Seating& candidate : candidates) {
    improve(problem, near, candidate);
    const double cost = seating_cost(problem, candidate);
    if (cost >= best_cost * kBetter) continue;
    best = std::move(candidate);
    best_cost = cost;
  }
  return best;
}

}  // namespace mds::topology
