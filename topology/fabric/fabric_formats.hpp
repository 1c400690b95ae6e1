// The readers behind read_fabric(), one a format. Each expects a text of its own format and at most 64 MiB; errors are
// bad_input with the line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "topology/fabric/fabric.hpp"
#include "topology/fabric/fabric_builder.hpp"
#include "topology/fabric/yaml_tree.hpp"
#include "topology/result.hpp"

namespace mds::topology {

Result<Fabric> read_slurm_conf(std::string_view text, std::vector<std::string>& notes);
Result<Fabric> read_slurm_yaml(const YamlNode& root, std::vector<std::string>& notes);
Result<Fabric> read_topograph(const YamlNode& root, std::vector<std::string>& notes);
Result<Fabric> read_ibnetdiscover(std::string_view text, std::vector<std::string>& notes);

/// A switch as Slurm describes it, in either of its formats.
struct SlurmSwitch {
  std::string name;
  std::string children;  ///< host list of switches
  std::string nodes;     ///< host list
  int line = 0;
};
/// `scontrol show topology` repeats under every switch all nodes below it: they count where they hang directly.
Status add_slurm_switches(FabricBuilder& builder, const std::vector<SlurmSwitch>& switches,
                          std::vector<std::string>& notes);

/// One line after another, without its end ("\n" or "\r\n").
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  bool next(std::string_view& line) {
    if (rest_.empty()) return false;
    const size_t end = rest_.find('\n');
    line = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number_;
    return true;
  }
  int number() const { return number_; }  ///< of the line that next() gave last, 1-based

 private:
  std::string_view rest_;
  int number_ = 0;
};

}  // namespace mds::topology
