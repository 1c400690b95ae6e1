// What the links between GPUs come down to.
#include <algorithm>
#include <set>
#include <tuple>

#include "topology/doctor/machine_checks.hpp"
#include "topology/picture/machine_picture.hpp"

namespace mds::topology::picture {
namespace {

const char* name_of(LinkKind kind) {
  return kind == LinkKind::nvlink ? "NVLink" : kind == LinkKind::xgmi ? "xGMI" : "C2C";
}

std::string links(int count, double each) {
  const std::string speed = each > 0 ? " of " + doctor::figure(each) + " GB/s" : "";
  return std::to_string(count) + (count == 1 ? " link" : " links") + speed;
}

void add_pairs(const Machine& machine, LinkKind kind, LinkSummary& summary) {
  std::map<std::pair<int, int>, int> counts;
  double each = 0;
  std::set<int> linked;
  for (const GpuLink& link : machine.links) {
    if (link.kind != kind || link.end != LinkEnd::gpu || link.peer < 0 || link.peer == link.gpu) continue;
    if (link.peer >= static_cast<int>(machine.gpus.size())) continue;
    int& count = counts[{std::min(link.gpu, link.peer), std::max(link.gpu, link.peer)}];
    count = std::max(count, link.count);
    each = std::max(each, link.gb_per_s_each);
    linked.insert({link.gpu, link.peer});
  }
  if (counts.empty()) return;
  std::set<int> different;
  for (const auto& [pair, count] : counts) {
    summary.pairs.push_back({pair.first, pair.second, count, kind});
    different.insert(count);
  }
  const bool all = counts.size() == linked.size() * (linked.size() - 1) / 2 && linked.size() == machine.gpus.size();
  const std::string who = linked.size() == 2 && all ? "both GPUs are joined by "
                          : all                     ? "every pair of GPUs is joined by "
                                                    : std::to_string(counts.size()) + " pairs of GPUs are joined by ";
  const std::string count = different.size() == 1
                                ? links(*different.begin(), each)
                                : std::to_string(*different.begin()) + " to " + links(*different.rbegin(), each);
  summary.sentences.push_back(std::string(name_of(kind)) + ": " + who + count);
}

void add_switches(const Machine& machine, LinkSummary& summary) {
  double each = 0;
  std::set<std::string> switches;
  std::set<int> totals;
  for (const GpuLink& link : machine.links) {
    if (link.end != LinkEnd::nvswitch) continue;
    summary.to_switch[link.gpu] += link.count;
    each = std::max(each, link.gb_per_s_each);
    if (!link.peer_bus_id.empty()) switches.insert(link.peer_bus_id);
  }
  if (summary.to_switch.empty()) return;
  for (const auto& [gpu, count] : summary.to_switch) totals.insert(count);
  summary.switches.assign(switches.begin(), switches.end());
  const int most = *totals.rbegin();
  std::string text = totals.size() == 1 ? "NVLink: each GPU has " : "NVLink: a GPU has up to ";
  text += links(most, each) + " to NVSwitches";
  if (each > 0) text += ", " + doctor::figure(most * each) + " GB/s each way";
  summary.sentences.push_back(text);
}

void add_cpus(const Machine& machine, LinkSummary& summary) {
  std::map<LinkKind, std::tuple<int, double>> most;
  for (const GpuLink& link : machine.links) {
    if (link.end != LinkEnd::cpu) continue;
    auto& [count, each] = most[link.kind];
    count = std::max(count, link.count);
    each = std::max(each, link.gb_per_s_each);
  }
  for (const auto& [kind, link] : most) {
    const auto& [count, each] = link;
    summary.sentences.push_back(std::string(name_of(kind)) + ": a GPU is joined to its CPU by " + links(count, each));
  }
}

}  // namespace

LinkSummary summarise_links(const Machine& machine) {
  LinkSummary summary;
  for (const LinkKind kind : {LinkKind::nvlink, LinkKind::xgmi}) add_pairs(machine, kind, summary);
  add_switches(machine, summary);
  add_cpus(machine, summary);
  return summary;
}

}  // namespace mds::topology::picture
