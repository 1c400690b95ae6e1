#include "topology/fabric/node_order.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "topology/fabric/host_ranges.hpp"
#include "topology/fabric/natural_order.hpp"
#include "topology/fabric/node_groups.hpp"

namespace mds::topology {
namespace {

constexpr int kUnknown = std::numeric_limits<int>::max();

std::string counted(size_t count, const std::string& noun, const std::string& plural = "") {
  return std::to_string(count) + " " + (count == 1 ? noun : plural.empty() ? noun + "s" : plural);
}

/// Which blocks stand inside which. A block that overlaps a larger one without lying in it is not heeded.
struct Nesting {
  std::vector<std::vector<int>> chain;  ///< by node: blocks that hold it, outermost first
  std::vector<int> torn;                ///< blocks that could not be kept whole
};

Nesting nest(const std::vector<NodeBlock>& blocks, size_t nodes) {
  std::vector<int> by_size(blocks.size());
  std::iota(by_size.begin(), by_size.end(), 0);
  // Of equally large blocks the one that GPUs themselves report is the one that matters.
  std::stable_sort(by_size.begin(), by_size.end(), [&](int a, int b) {
    return std::pair(blocks[a].nodes.size(), blocks[a].nvlink) > std::pair(blocks[b].nodes.size(), blocks[b].nvlink);
  });
  Nesting nesting{std::vector<std::vector<int>>(nodes), {}};
  for (const int block : by_size) {
    const auto innermost = [&](int node) { return nesting.chain[node].empty() ? -1 : nesting.chain[node].back(); };
    const auto& members = blocks[block].nodes;
    const bool whole =
        std::all_of(members.begin(), members.end(), [&](int n) { return innermost(n) == innermost(members.front()); });
    if (!whole) {
      nesting.torn.push_back(block);
      continue;
    }
    for (const int node : members) nesting.chain[node].push_back(block);
  }
  return nesting;
}

/// Sort keys. A node's key is those of the blocks that hold it, outermost first, and then its own; each is the place in
/// the fabric from the top down, then whether it is a block, then the block's or the node's number.
class Keys {
 public:
  Keys(const NodeGroups& groups, const Nesting& nesting) : groups_(groups), nesting_(nesting) {
    for (size_t block = 0; block < groups.blocks.size(); ++block) {
      block_keys_.push_back(key(home(groups.blocks[block].nodes), 0, static_cast<int>(block)));
    }
  }

  std::vector<int> of_node(int node) const {
    std::vector<int> whole;
    for (const int block : nesting_.chain[node]) append(whole, block_keys_[block]);
    append(whole, key(node, 1, node));
    return whole;
  }

 private:
  static void append(std::vector<int>& key, const std::vector<int>& more) {
    key.insert(key.end(), more.begin(), more.end());
  }

  std::vector<int> key(int node, int kind, int number) const {
    std::vector<int> key;
    for (size_t level = groups_.levels.size(); level-- > 0;) {
      const int group = groups_.levels[level][node];
      key.push_back(group < 0 ? kUnknown : group);
    }
    key.push_back(kind);
    key.push_back(number);
    return key;
  }

  /// A node that hangs where most of the block's nodes do.
  int home(const std::vector<int>& nodes) const {
    if (groups_.levels.empty()) return nodes.front();
    std::map<int, std::pair<int, int>> units;  // leaf unit -> how many, and one of them
    for (const int node : nodes) {
      const int unit = groups_.levels[0][node];
      auto& [count, some] = units.try_emplace(unit < 0 ? kUnknown : unit, 0, node).first->second;
      ++count;
    }
    const auto most = std::max_element(units.begin(), units.end(),
                                       [](const auto& a, const auto& b) { return a.second.first < b.second.first; });
    return most->second.second;
  }

  const NodeGroups& groups_;
  const Nesting& nesting_;
  std::vector<std::vector<int>> block_keys_;
};

/// "n[1-4],n9" or the first of many.
std::string some_hosts(const Cluster& cluster, const std::vector<int>& nodes) {
  std::vector<std::string> hosts;
  for (const int node : nodes) hosts.push_back(cluster.nodes[node].host);
  const std::string folded = fold_hosts(hosts);
  return folded.size() <= 80 ? folded : folded.substr(0, 77) + "...";
}

size_t distinct(const std::vector<int>& groups) {
  return std::set<int>(groups.begin(), groups.end()).size() - (std::count(groups.begin(), groups.end(), -1) > 0);
}

void explain_levels(const Cluster& cluster, const NodeGroups& groups, std::vector<std::string>& reasons) {
  if (groups.levels.empty()) return;
  std::vector<int> unknown;
  for (size_t node = 0; node < cluster.nodes.size(); ++node) {
    if (groups.levels[0][node] < 0) unknown.push_back(static_cast<int>(node));
  }
  const size_t known = cluster.nodes.size() - unknown.size();
  if (known > 0) {
    std::string sentence = counted(known, "node") + " hang on " + counted(distinct(groups.levels[0]), "leaf", "leaves");
    for (size_t level = 1; level < groups.levels.size(); ++level) {
      sentence += level == 1 ? " below " : ", those below ";
      sentence += counted(distinct(groups.levels[level]), "group") + " of switches of level " + std::to_string(level);
    }
    reasons.push_back(sentence +
                      ": nodes of one leaf are filled side by side, then the leaves below the same switches");
  }
  if (!unknown.empty()) {
    reasons.push_back("the fabric does not know " + counted(unknown.size(), "node") + " (" +
                      some_hosts(cluster, unknown) + "), which " + (unknown.size() == 1 ? "comes" : "come") + " last");
  }
}

void explain_blocks(const Cluster& cluster, const NodeGroups& groups, const Nesting& nesting,
                    std::vector<std::string>& reasons) {
  const auto& blocks = groups.blocks;
  const size_t kept = blocks.size() - nesting.torn.size();
  if (kept > 0) {
    reasons.push_back(counted(kept, "NVLink domain or block", "NVLink domains or blocks") +
                      (kept == 1 ? " is kept whole" : " are kept whole, one after the other"));
  }
  const std::set<int> torn(nesting.torn.begin(), nesting.torn.end());
  std::vector<std::string> split;
  for (size_t i = 0; i < blocks.size() && !groups.levels.empty(); ++i) {
    std::set<int> units;
    for (const int node : blocks[i].nodes) units.insert(groups.levels[0][node]);
    if (units.size() > 1 && !torn.contains(static_cast<int>(i))) split.push_back(blocks[i].name);
  }
  if (!split.empty()) {
    reasons.push_back(counted(split.size(), "domain or block", "domains or blocks") + " (" + split.front() +
                      (split.size() > 1 ? ", ..." : "") +
                      ") are kept together though they span several leaves: NVLink "
                      "counts more than the leaf");
  }
  for (const int block : nesting.torn) {
    reasons.push_back("the block " + blocks[block].name + " (" + some_hosts(cluster, blocks[block].nodes) +
                      ") overlaps a larger one and could not be kept whole");
  }
}

int domain_of(const Machine& machine, std::map<std::string, int>& numbers) {
  for (const Gpu& gpu : machine.gpus) {
    if (gpu.nvlink_domain.empty()) continue;
    return numbers.try_emplace(gpu.nvlink_domain, static_cast<int>(numbers.size())).first->second;
  }
  return -1;
}

bool share(const std::vector<int>& a, const std::vector<int>& b) {
  return std::find_first_of(a.begin(), a.end(), b.begin(), b.end()) != a.end();
}

}  // namespace

NodeOrder node_order(const Cluster& cluster) {
  NodeOrder order;
  order.nodes.resize(cluster.nodes.size());
  std::iota(order.nodes.begin(), order.nodes.end(), 0);
  if (cluster.nodes.size() < 2) return order;
  const NodeGroups groups = node_groups(cluster);
  if (groups.levels.empty() && groups.blocks.empty()) {
    order.reasons.push_back(
        "nothing is known of the switches between the nodes: they keep the order in which they were given");
    return order;
  }
  const Nesting nesting = nest(groups.blocks, cluster.nodes.size());
  const Keys keys(groups, nesting);
  std::vector<std::vector<int>> key_of;
  for (size_t node = 0; node < cluster.nodes.size(); ++node) key_of.push_back(keys.of_node(static_cast<int>(node)));
  std::sort(order.nodes.begin(), order.nodes.end(), [&](int a, int b) { return key_of[a] < key_of[b]; });
  explain_levels(cluster, groups, order.reasons);
  explain_blocks(cluster, groups, nesting, order.reasons);
  if (!std::is_sorted(order.nodes.begin(), order.nodes.end())) {
    order.reasons.push_back("so the nodes are filled in another order than they were given in");
  }
  return order;
}

NodeDistances::NodeDistances(const Cluster& cluster) : blocks_(cluster.nodes.size()) {
  NodeGroups groups = node_groups(cluster);
  levels_ = std::move(groups.levels);
  for (size_t block = 0; block < groups.blocks.size(); ++block) {
    for (const int node : groups.blocks[block].nodes) blocks_[node].push_back(static_cast<int>(block));
  }
  std::map<std::string, int> hosts, domains;
  for (const Machine& machine : cluster.nodes) {
    host_.push_back(hosts.try_emplace(machine.host, static_cast<int>(hosts.size())).first->second);
    domain_.push_back(domain_of(machine, domains));
  }
}

int NodeDistances::operator()(int a, int b) const {
  if (a == b || host_[a] == host_[b]) return 0;
  const bool both_say = domain_[a] >= 0 && domain_[b] >= 0;
  if (both_say ? domain_[a] == domain_[b] : share(blocks_[a], blocks_[b])) return 1;
  if (levels_.empty()) return 2;
  for (size_t level = 0; level < levels_.size(); ++level) {
    if (levels_[level][a] >= 0 && levels_[level][a] == levels_[level][b]) return 2 + static_cast<int>(level);
  }
  return 2 + static_cast<int>(levels_.size());
}

int fabric_distance(const Cluster& cluster, int node_a, int node_b) { return NodeDistances(cluster)(node_a, node_b); }

}  // namespace mds::topology
