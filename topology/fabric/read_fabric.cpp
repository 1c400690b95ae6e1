#include "topology/fabric/read_fabric.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "topology/fabric/fabric_builder.hpp"
#include "topology/fabric/fabric_formats.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace {

constexpr size_t kFabricBytesMax = size_t{64} << 20;
constexpr size_t kGuessBytes = size_t{256} << 10;  // comments may come first: topograph draws its models in them

enum class Format { none, slurm_conf, slurm_yaml, topograph, ibnetdiscover };

bool starts_with_any(std::string_view line, std::initializer_list<std::string_view> words) {
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return line.size() >= word.size() &&
           std::equal(word.begin(), word.end(), line.begin(), [&](char b, char a) { return same(a, b); });
  });
}

/// What the line alone tells.
Format format_of_line(std::string_view line) {
  if (starts_with_any(line, {"switchname=", "blockname=", "blocksizes=", "ringname=", "aggregatedblock="})) {
    return Format::slurm_conf;
  }
  if (line.starts_with("- topology:")) return Format::slurm_yaml;
  for (const char* key : {"switches:", "blocks:", "capacity_blocks:"}) {
    if (line.starts_with(key)) return Format::topograph;
  }
  if (starts_with_any(line, {"vendid=", "switchguid=", "caguid="})) return Format::ibnetdiscover;
  if (starts_with_any(line, {"switch\t", "switch ", "ca\t", "ca "})) {
    const size_t quote = line.find('"');
    const std::string_view rest = line.substr(std::min(quote, line.size()));
    if (rest.starts_with("\"S-") || rest.starts_with("\"H-")) return Format::ibnetdiscover;
  }
  return Format::none;
}

Format format_of(std::string_view text) {
  Lines lines(text.substr(0, kGuessBytes));
  std::string_view line;
  while (lines.next(line)) {
    // Markup and JSON are other formats, whatever stands on their later lines.
    if (line.starts_with('<') || line.starts_with('{')) return Format::none;
    const Format format = format_of_line(line);
    if (format != Format::none) return format;
    // Slurm's formats may be indented, topograph's keys stand in column 0.
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos || begin == 0) continue;
    const Format indented = format_of_line(line.substr(begin));
    if (indented == Format::slurm_conf || indented == Format::slurm_yaml) return indented;
  }
  return Format::none;
}

std::vector<std::string_view> split(std::string_view text, size_t parts_max) {
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < parts_max) {
    // A dot inside of brackets is none of ours.
    int depth = 0;
    size_t dot = 0;
    while (dot < text.size() && (depth > 0 || text[dot] != '.')) {
      depth += text[dot] == '[';
      depth -= text[dot] == ']';
      ++dot;
    }
    if (dot == text.size()) break;
    parts.push_back(text.substr(0, dot));
    text.remove_prefix(dot + 1);
  }
  parts.push_back(text);
  return parts;
}

/// Where a fabric says that a host's NIC hangs, by names.
using Places = std::map<std::pair<std::string, std::string>, std::set<std::string>>;

Places places_of(const Fabric& fabric) {
  Places places;
  for (const FabricPort& port : fabric.ports) places[{port.host, port.nic}].insert(fabric.switches[port.leaf].name);
  return places;
}

Status check_places(Places& known, const Fabric& fabric) {
  for (auto& [port, leaves] : places_of(fabric)) {
    const auto [place, added] = known.try_emplace(port, leaves);
    if (added || place->second == leaves) continue;
    return bad_input("the fabrics contradict each other: " + port.first + (port.second.empty() ? "" : " ") +
                     port.second + " hangs on the switch \"" + *place->second.begin() + "\" in one and on \"" +
                     *leaves.begin() + "\" in the other");
  }
  return {};
}

}  // namespace

bool looks_like_fabric(std::string_view text) { return format_of(text) != Format::none; }

namespace {

Result<Fabric> read_any(std::string_view text, std::vector<std::string>& notes) {
  if (text.size() > kFabricBytesMax) return bad_input("a fabric's description larger than 64 MiB");
  switch (format_of(text)) {
    case Format::slurm_conf:
      return read_slurm_conf(text, notes);
    case Format::ibnetdiscover:
      return read_ibnetdiscover(text, notes);
    case Format::slurm_yaml:
    case Format::topograph: {
      const auto root = read_yaml(text);
      if (!root) return root.error();
      return root->kind == YamlNode::Kind::list ? read_slurm_yaml(*root, notes) : read_topograph(*root, notes);
    }
    case Format::none:
      break;
  }
  return bad_input(
      "line 1: this describes no fabric: expected Slurm's topology.conf or topology.yaml, the output of ibnetdiscover, "
      "or a model of topograph");
}

}  // namespace

Result<Fabric> read_fabric(std::string_view text, std::vector<std::string>& notes) {
  std::vector<std::string> own;
  auto fabric = read_any(text, own);
  // Both quote the file, which may hold anything.
  for (const std::string& note : own) notes.push_back(printable(note));
  if (!fabric) return bad_input(printable(fabric.error().message));
  return fabric;
}

Result<Fabric> fabric_from_slurm_address(std::string_view address, std::string_view pattern) {
  const auto fail = [&](const std::string& what) {
    return bad_input("SLURM_TOPOLOGY_ADDR=\"" + printable(address) + "\" with SLURM_TOPOLOGY_ADDR_PATTERN=\"" +
                     printable(pattern) + "\": " + what);
  };
  if (address.size() > 65536 || pattern.size() > 4096) return bad_input("SLURM_TOPOLOGY_ADDR is too long");
  const auto kinds = split(pattern, 64), parts = split(address, kinds.size());
  if (kinds.size() != parts.size()) return fail("they do not have the same number of parts");
  if (kinds.back() != "node" || parts.back().empty()) return fail("the last part must be the node");
  const std::string host(parts.back());
  FabricBuilder builder;
  std::vector<int> above;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto names = expand_hosts(parts[i], 65536);
    if (!names) return fail(names.error().message);
    if (kinds[i] != "switch" && kinds[i] != "block") return fail("expected switch, block and node in the pattern");
    std::vector<int> here;
    for (const std::string& name : *names) {
      if (kinds[i] == "block") {
        if (const Status added = builder.add_to_block(name, {host}); !added) return added.error();
        continue;
      }
      if (builder.has_switch(name)) return fail("the switch \"" + name + "\" stands twice");
      here.push_back(builder.switch_named(name));
    }
    if (here.size() * above.size() > 65536) return fail("too many switches");
    for (const int child : here) {
      for (const int parent : above) builder.connect(child, parent);
    }
    if (!here.empty()) above = std::move(here);
  }
  for (const int leaf : above) {
    if (const Status added = builder.add_port({host, "", leaf, 0}); !added) return added.error();
  }
  return std::move(builder).finish();
}

Result<Fabric> merge(const std::vector<Fabric>& fabrics) {
  FabricBuilder builder(fabrics.size());
  Places places;
  std::map<std::string, std::set<std::string>> parents_of;
  for (const Fabric& fabric : fabrics) {
    if (const Status agree = check_places(places, fabric); !agree) return agree.error();
    for (const FabricSwitch& s : fabric.switches) {
      const int self = builder.switch_named(s.name);
      std::set<std::string> parents;
      for (const int parent : s.parents) {
        parents.insert(fabric.switches[parent].name);
        builder.connect(self, builder.switch_named(fabric.switches[parent].name));
      }
      std::set<std::string>& known = parents_of[s.name];
      const bool share = std::any_of(parents.begin(), parents.end(), [&](const auto& p) { return known.contains(p); });
      if (!known.empty() && !parents.empty() && !share) {
        return bad_input("the fabrics contradict each other: the switch \"" + s.name + "\" is below \"" +
                         *known.begin() + "\" in one and below \"" + *parents.begin() + "\" in the other");
      }
      known.insert(parents.begin(), parents.end());
    }
    for (const FabricPort& port : fabric.ports) {
      const int leaf = builder.switch_named(fabric.switches[port.leaf].name);
      if (const Status added = builder.add_port({port.host, port.nic, leaf, port.gbps}); !added) return added.error();
    }
    for (const FabricBlock& block : fabric.blocks) {
      if (const Status added = builder.add_to_block(block.name, block.hosts); !added) return added.error();
    }
  }
  auto merged = std::move(builder).finish();
  if (!merged) return merged.error().within("the fabrics contradict each other");
  return merged;
}

Result<Fabric> merge(const Fabric& a, const Fabric& b) { return merge(std::vector<Fabric>{a, b}); }

}  // namespace mds::topology
