#include "topology/cost/collective.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace mds::topology::cost {
namespace {

constexpr double kMicro = 1e-6, kGiga = 1e9;

enum Algorithm { kTree, kRing, kNvls, kAlgorithms };
enum Protocol { kLl, kLl128, kSimple, kProtocols };
enum Hardware { kNvlink, kPci, kNet };
enum Generation { kVolta, kAmpere, kHopper, kBlackwell };

// Microseconds: what a call costs by itself, and each of its steps. [algorithm][LL, LL128, Simple]
constexpr double kBaseLatency[kAlgorithms][kProtocols] = {{6.8, 14.0, 8.4}, {6.6, 14.0, 8.4}, {0, 0, 0}};
constexpr double kStepLatency[3][kAlgorithms][kProtocols] = {
    {{0.6, 1.25, 4.0}, {0.6, 1.9, 3.4}, {0, 0, 25}},
    {{1.0, 1.9, 4.0}, {1.0, 2.5, 5.7}, {0, 0, 0}},
    {{5.0, 8.5, 14.0}, {2.7, 4.0, 14.0}, {0, 0, 18}},
};

// GB/s. [generation][1, 2, more nodes]. Across nodes the row of LL goes by the processor: Intel first, AMD second.
constexpr double kLlMax[4][3] = {{39.0, 39.0, 20.4}, {87.7, 22.5, 19.0}, {141.0, 45.0, 35.0}, {282.0, 90.0, 70.0}};
constexpr double kChannelRingLl128[4] = {20.0, 20.0, 36.7, 40.0};
constexpr double kChannelTreeLl128[4][3] = {
    {20.0, 20.0, 20.0}, {20.0, 20.0, 20.0}, {36.7, 36.7, 29.0}, {55.6, 31.67, 20.0}};
constexpr double kChannelTree[4][3] = {
    {26.5, 18.5, 10.0}, {24.0, 23.6, 17.8}, {38.7, 41.4, 36.0}, {70.0, 42.8, 24.0}};
constexpr double kNvlsEfficiency[4] = {0, 0, 0.85, 0.74};

// Trees do not follow the model at middle sizes. Powers of two from 64 bytes on.
constexpr double kTreeCorrection[kProtocols][23] = {
    {1, 1, 1, 1, .9, .8, .7, .7, .7, .7, .6, .5, .4, .4, .5, .6, .7, .8, .9, 1, 1, 1, 1},
    {1, 1, 1, 1, 1, .9, .8, .8, .8, .7, .6, .6, .6, .6, .6, .6, .8, .9, .9, .9, .9, 1, 1},
    {.9, .9, .9, .9, .9, .9, .9, .8, .7, .6, .6, .5, .5, .5, .5, .6, .7, .8, .7, .7, .8, .9, .9},
};

Generation generation(int sm) { return sm >= 100 ? kBlackwell : sm >= 90 ? kHopper : sm >= 80 ? kAmpere : kVolta; }

/// A call of one algorithm and protocol: seconds = latency + bytes / bandwidth. Bandwidth 0: not possible.
struct Choice {
  double latency = 0;    ///< microseconds
  double bandwidth = 0;  ///< GB/s of the tensor, not of the bus
};

struct Tuner {
  Collective collective;
  const Group& group;
  const Links& links;

  int nodes() const { return group.nodes(); }
  int column() const { return std::min(nodes(), 3) - 1; }
  Hardware inside() const { return links.hardware == LinkHardware::nvlink ? kNvlink : kPci; }
  // A ring enters and leaves each node once: its ranks there share their NICs' bandwidth, and the slowest link rules.
  double bus() const {
    if (nodes() == 1) return links.inside;
    const double net = links.network * group.per_node;
    return group.per_node == 1 ? net : std::min(links.inside, net);
  }
  // NCCL opens channels of about 20 GB/s on Hopper and 12 before; only caps that are given by the channel need this.
  double channels() const { return std::max(1.0, std::round(bus() / (links.sm >= 90 ? 20.0 : 12.0))); }
  double steps() const { return (collective == Collective::all_reduce ? 2.0 : 1.0) * (group.ranks - 1); }

  double bandwidth(Algorithm a, Protocol p) const;
  double latency(Algorithm a, Protocol p) const;
};

double Tuner::bandwidth(Algorithm a, Protocol p) const {
  const Generation g = generation(links.sm);
  const bool reduces_all = collective == Collective::all_reduce;
  if (a == kTree && !reduces_all) return 0;
  if (p == kLl128 && (inside() != kNvlink || (links.sm != 70 && links.sm != 80 && links.sm < 90))) return 0;
  const double to_tensor = group.ranks / steps();
  const double ll_max = kLlMax[nodes() == 1 ? g : links.amd_cpu ? 1 : 0][column()];
  if (a == kNvls) {
    const bool possible = links.nvls && p == kSimple && nodes() == 1 && group.ranks > 2;
    if (!possible) return 0;
    const double passes = reduces_all ? 2.0 : (group.per_node - 1.0) / group.per_node;
    return links.inside * kNvlsEfficiency[g] * passes * (reduces_all ? to_tensor : 1.0);
  }
  double bus = this->bus();
  if (a == kRing) {
    if (p == kLl) bus = std::min(ll_max, bus * 0.5);
    if (p == kLl128) bus = std::min(bus * 0.92, channels() * kChannelRingLl128[g]);
    return bus * to_tensor;
  }
  bus = std::min(bus * 0.92, channels() * kChannelTree[g][column()]);
  if (p == kLl) bus = std::min(bus / 3.8, ll_max);
  if (p == kLl128) {
    bus = std::min(bus * (nodes() == 1 ? 7.0 / 9.0 : 120.0 / 128.0), channels() * kChannelTreeLl128[g][column()]);
  }
  return bus * 0.5;
}

double Tuner::latency(Algorithm a, Protocol p) const {
  double within = kStepLatency[inside()][a][p];
  const double across = kStepLatency[kNet][group.per_node == 1 ? kTree : a][p];
  if (a == kNvls) return within;
  if (a == kTree) {
    return kBaseLatency[a][p] + 2 * ((group.per_node - 1) * within + std::floor(std::log2(nodes())) * across);
  }
  if (nodes() > 1) within = std::max(within, (links.amd_cpu ? 2.0 : 1.0) * (p == kSimple ? 3 : 1));
  const double crossings = nodes() == 1 ? 0 : (collective == Collective::all_reduce ? 2.0 : 1.0) * (nodes() - 1);
  return kBaseLatency[a][p] + (steps() - crossings) * within + crossings * across;
}

// Our CPU communicator sends in rings over sockets: tens of microseconds a step.
double over_sockets(Collective collective, double bytes, const Group& group, const Links& links) {
  constexpr double kStep = 30 * kMicro;
  const double steps = (collective == Collective::all_reduce ? 2.0 : 1.0) * (group.ranks - 1);
  const double rate = (group.nodes() > 1 && links.network > 0 ? links.network : links.inside) * kGiga;
  return steps * (kStep + bytes / group.ranks / rate);
}

}  // namespace

double collective_seconds(Collective collective, double bytes, const Group& group, const Links& links) {
  if (group.ranks <= 1 || bytes <= 0) return 0;
  if (links.hardware == LinkHardware::host) return over_sockets(collective, bytes, group, links);
  const Tuner tuner{collective, group, links};
  double best = std::numeric_limits<double>::infinity();
  const int power = std::max(0, static_cast<int>(std::log2(bytes / 64)));
  for (int a = 0; a < kAlgorithms; ++a) {
    for (int p = 0; p < kProtocols; ++p) {
      const auto algorithm = static_cast<Algorithm>(a);
      const auto protocol = static_cast<Protocol>(p);
      double bandwidth = tuner.bandwidth(algorithm, protocol);
      if (bandwidth <= 0) continue;
      if (algorithm == kTree && power < 23) bandwidth *= kTreeCorrection[p][power];
      double latency = tuner.latency(algorithm, protocol);
      const bool plateau = algorithm == kRing && protocol == kSimple && tuner.nodes() > 1 &&
                           collective == Collective::all_reduce &&
                           bytes / (tuner.channels() * group.ranks) >= 64;
      if (plateau) latency *= links.sm < 80 ? 1.9 : 1.4;
      best = std::min(best, latency * kMicro + bytes / (bandwidth * kGiga));
    }
  }
  return best;
}

double transfer_seconds(double bytes, bool across_nodes, const Links& links) {
  if (bytes <= 0) return 0;
  const double rate = (across_nodes ? links.network : links.inside) * kGiga;
  if (links.hardware == LinkHardware::host) return 30 * kMicro + bytes / rate;
  const Hardware hardware = across_nodes                                 ? kNet
                            : links.hardware == LinkHardware::nvlink ? kNvlink
                                                                         : kPci;
  return (kBaseLatency[kRing][kSimple] + kStepLatency[hardware][kRing][kSimple]) * kMicro + bytes / rate;
}

}  // namespace mds::topology::cost
