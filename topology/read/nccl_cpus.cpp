#include "topology/read/nccl_cpus.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <set>

namespace mds::topology {
namespace {

/// How far apart the two runs of a node's CPUs are; 0 if they are not two runs of the same shape.
int distance_of_halves(const std::vector<int>& cpus) {
  if (cpus.size() < 2 || cpus.size() % 2 != 0) return 0;
  const size_t half = cpus.size() / 2;
  const int distance = cpus[half] - cpus[0];
  int widest_step = 1;
  for (size_t i = 0; i < half; ++i) {
    if (cpus[half + i] - cpus[i] != distance) return 0;
    if (i > 0) widest_step = std::max(widest_step, cpus[i] - cpus[i - 1]);
  }
  return cpus[half] - cpus[half - 1] > widest_step ? distance : 0;
}

Siblings guess_siblings(const std::vector<NumaCpus>& nodes) {
  Siblings all{};
  for (const NumaCpus& node : nodes) {
    if (node.siblings.threads > 0) return node.siblings;
    if (node.arch.starts_with("ppc64")) return {4, 1};
    if (!node.arch.empty() && node.arch != "x86_64") return {1, 1};
    if (node.cpus.empty()) continue;
    const int distance = distance_of_halves(node.cpus);
    if (distance == 0 || (all.stride != 0 && all.stride != distance)) return {1, 1};
    all = {2, distance};
  }
  return all.threads > 0 ? all : Siblings{1, 1};
}

}  // namespace

Result<std::vector<int>> cpus_of_mask(std::string_view mask, int offset) {
  const auto wrong = [&] {
    return bad_input("affinity=\"" + std::string(mask.substr(0, 80)) +
                     "\" is no list of 32-bit hexadecimal words of at most " + std::to_string(kCpusMax) + " CPUs");
  };
  if (offset < 0 || offset >= kCpusMax) return wrong();
  std::vector<int> cpus;
  if (mask.empty()) return cpus;
  std::vector<uint32_t> words;
  for (size_t at = 0; at <= mask.size();) {
    const size_t comma = std::min(mask.find(',', at), mask.size());
    std::string_view word = mask.substr(at, comma - at);
    if (word.starts_with("0x")) word.remove_prefix(2);
    uint32_t bits = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), bits, 16);
    if (read.ec != std::errc() || read.ptr != word.data() + word.size()) return wrong();
    words.push_back(bits);
    at = comma + 1;
  }
  for (size_t i = words.size(); i-- > 0;) {
    const size_t base = 32 * (words.size() - 1 - i);
    for (uint32_t bits = words[i]; bits != 0; bits &= bits - 1) {
      const size_t cpu = base + static_cast<size_t>(std::countr_zero(bits)) + static_cast<size_t>(offset);
      if (cpu >= kCpusMax) return wrong();
      cpus.push_back(static_cast<int>(cpu));
    }
  }
  return cpus;
}

std::string mask_of_cpus(const std::vector<int>& cpus) {
  std::vector<uint32_t> words(cpus.empty() ? 1 : static_cast<size_t>(cpus.back()) / 32 + 1);
  for (const int cpu : cpus) words[static_cast<size_t>(cpu) / 32] |= uint32_t{1} << (cpu % 32);
  std::string mask;
  for (size_t i = words.size(); i-- > 0;) {
    char word[12];
    std::snprintf(word, sizeof word, "%08x%s", words[i], i > 0 ? "," : "");
    mask += word;
  }
  return mask;
}

std::vector<Core> guess_cores(std::vector<NumaCpus> nodes) {
  std::stable_sort(nodes.begin(), nodes.end(), [](const NumaCpus& a, const NumaCpus& b) { return a.numa < b.numa; });
  const Siblings siblings = guess_siblings(nodes);
  std::set<int> taken;
  std::vector<Core> cores;
  for (const NumaCpus& node : nodes) {
    const std::set<int> own(node.cpus.begin(), node.cpus.end());
    for (const int first : node.cpus) {
      if (taken.contains(first)) continue;
      Core core{static_cast<int>(cores.size()), node.package, node.numa, {}};
      // Neighbours belong together by their numbers, also where some of them are missing.
      const int begin = siblings.stride == 1 ? first - first % siblings.threads : first;
      for (int thread = 0; thread < siblings.threads; ++thread) {
        const int cpu = begin + thread * siblings.stride;
        if (own.contains(cpu) && taken.insert(cpu).second) core.cpus.push_back(cpu);
      }
      cores.push_back(std::move(core));
    }
  }
  return cores;
}

Siblings siblings_to_tell(const std::vector<NumaCpus>& nodes, const std::vector<Core>& cores) {
  const auto same_threads = [&](const Siblings& siblings) {
    std::vector<NumaCpus> told = nodes;
    for (NumaCpus& node : told) node.siblings = siblings;
    std::set<std::vector<int>> guessed, wanted;
    for (const Core& core : guess_cores(std::move(told))) guessed.insert(core.cpus);
    for (const Core& core : cores) wanted.insert(core.cpus);
    return guessed == wanted;
  };
  if (same_threads({})) return {};
  Siblings siblings{1, 1};
  for (const Core& core : cores) {
    const int threads = static_cast<int>(core.cpus.size());
    if (threads > siblings.threads) siblings = {threads, core.cpus[1] - core.cpus[0]};
  }
  return siblings.stride > 0 && same_threads(siblings) ? siblings : Siblings{};
}

}  // namespace mds::topology
