// Slurm's topology.conf and the output of `scontrol show topology`: https://slurm.schedmd.com/topology.conf.html
#include <algorithm>
#include <optional>
#include <set>

#include "topology/fabric/fabric_formats.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

/// One "Key=value" of a line.
struct Setting {
  std::string key;  ///< lower case
  std::string value;
};

Result<std::vector<Setting>> settings_of(std::string_view line) {
  std::vector<Setting> settings;
  while (true) {
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return settings;
    line.remove_prefix(begin);
    const size_t equals = line.find_first_of("= \t");
    if (equals == std::string_view::npos || line[equals] != '=' || equals == 0) {
      return bad_input("expected Key=value, not \"" + std::string(line.substr(0, std::min<size_t>(equals, 60))) + "\"");
    }
    Setting setting{lower(line.substr(0, equals)), ""};
    line.remove_prefix(equals + 1);
    const bool quoted = line.starts_with('"');
    if (quoted) line.remove_prefix(1);
    const size_t end = line.find_first_of(quoted ? "\"" : " \t");
    if (quoted && end == std::string_view::npos) return bad_input("a quote is not closed");
    setting.value = line.substr(0, end);
    line.remove_prefix(std::min(end, line.size()));
    if (quoted) line.remove_prefix(1);
    settings.push_back(std::move(setting));
  }
}

class Reader {
 public:
  explicit Reader(std::vector<std::string>& notes) : notes_(notes) {}

  Status line(std::string_view text, int number) {
    const auto settings = settings_of(text);
    if (!settings) return at_line(number, settings.error().message);
    std::string kind, name, nodes, switches;
    for (const auto& [key, value] : *settings) {
      if (key == "switchname" || key == "blockname" || key == "ringname" || key == "aggregatedblock") {
        if (!kind.empty()) return at_line(number, "two names on one line");
        kind = key;
        name = value;
        if (name.empty()) return at_line(number, "a switch or block without a name");
      } else if (key == "nodes") {
        nodes = value;
      } else if (key == "switches") {
        switches = value;
      } else if (!kKnown.contains(key)) {
        skipped_.insert(key);
      }
    }
    if (kind == "switchname") {
      switches_.push_back({name, switches == "(null)" ? "" : switches, nodes == "(null)" ? "" : nodes, number});
      return {};
    }
    if (kind == "blockname" || kind == "ringname") return block(name, nodes, number);
    if (kind.empty() && (!nodes.empty() || !switches.empty())) {
      return at_line(number, "Nodes= and Switches= belong on a line with SwitchName= or BlockName=");
    }
    return {};
  }

  Result<Fabric> finish() {
    for (const std::string& key : skipped_) notes_.push_back("the key " + key + "= of topology.conf was skipped");
    if (const Status added = add_slurm_switches(builder_, switches_, notes_); !added) return added.error();
    return std::move(builder_).finish();
  }

 private:
  Status block(const std::string& name, const std::string& nodes, int number) {
    if (!blocks_.insert(name).second) return at_line(number, "the block \"" + name + "\" is given twice");
    const auto hosts = expand_hosts_within(nodes == "(null)" ? "" : nodes, builder_.names_left());
    if (!hosts) return at_line(number, hosts.error().message);
    return builder_.add_to_block(name, *hosts);
  }

  // What says nothing about who hangs where; LinkSpeed has no unit, and Slurm itself does not use it.
  inline static const std::set<std::string> kKnown{"linkspeed", "blocksizes", "level", "blockindex", "blocksize"};

  std::vector<std::string>& notes_;
  FabricBuilder builder_;
  std::vector<SlurmSwitch> switches_;
  std::set<std::string> blocks_, skipped_;
};

}  // namespace

Status add_slurm_switches(FabricBuilder& builder, const std::vector<SlurmSwitch>& switches,
                          std::vector<std::string>& notes) {
  std::set<std::string> defined, placed;
  std::string undefined;
  size_t undefined_count = 0;
  for (const SlurmSwitch& s : switches) {
    if (!defined.insert(s.name).second) return at_line(s.line, "the switch \"" + s.name + "\" is given twice");
    builder.switch_named(s.name);
  }
  for (const SlurmSwitch& s : switches) {
    const auto children = expand_hosts_within(s.children, builder.names_left());
    if (!children) return at_line(s.line, children.error().message);
    for (const std::string& child : *children) {
      if (!defined.contains(child)) {
        if (++undefined_count == 1)
          undefined = "line " + std::to_string(s.line) + ": \"" + child + "\" below " + s.name;
        continue;
      }
      builder.connect(builder.switch_named(child), builder.switch_named(s.name));
    }
  }
  if (undefined_count > 0) {
    notes.push_back(std::to_string(undefined_count) + " switches were skipped, as they are defined nowhere (" +
                    undefined + ")");
  }
  for (const bool inner : {false, true}) {
    for (const SlurmSwitch& s : switches) {
      if (s.children.empty() == inner) continue;
      const auto hosts = expand_hosts_within(s.nodes, builder.names_left());
      if (!hosts) return at_line(s.line, hosts.error().message);
      for (const std::string& host : *hosts) {
        if (inner && placed.contains(host)) continue;
        if (!inner) placed.insert(host);
        const Status added = builder.add_port({host, "", builder.switch_named(s.name), 0});
        if (!added) return at_line(s.line, added.error().message);
      }
    }
  }
  return {};
}

Result<Fabric> read_slurm_conf(std::string_view text, std::vector<std::string>& notes) {
  Reader reader(notes);
  Lines lines(text);
  std::string joined;
  int begin = 0;
  std::string_view line;
  while (lines.next(line)) {
    if (joined.empty()) begin = lines.number();
    line = line.substr(0, line.find('#'));
    const size_t end = line.find_last_not_of(" \t");
    line = line.substr(0, end == std::string_view::npos ? 0 : end + 1);
    const bool goes_on = line.ends_with('\\');
    if (goes_on) line.remove_suffix(1);
    joined += line;
    if (goes_on) continue;
    if (lower(joined).starts_with("include ")) {
      notes.push_back("line " + std::to_string(begin) + ": \"" + joined + "\" was skipped: give that file, too");
    } else if (const Status read = reader.line(joined, begin); !read) {
      return read.error();
    }
    joined.clear();
  }
  if (!joined.empty()) return at_line(begin, "the file ends in the middle of a continued line");
  return reader.finish();
}

}  // namespace mds::topology
