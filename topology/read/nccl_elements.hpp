// The elements of NCCL's topology files, read one by one into what a machine is made of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "topology/read/nccl_cpus.hpp"
#include "topology/read/xml_document.hpp"

namespace mds::topology {

/// Attributes of one element. The first that is wrong is kept as the error; getters then return defaults, so that a
/// reader reads as a list of attributes.
class NcclAttributes {
 public:
  NcclAttributes(const XmlDocument& xml, pugi::xml_node node) : xml_(xml), node_(node) {}

  bool has(const char* name) const { return !node_.attribute(name).empty(); }
  /// Printable ASCII of at most 255 characters; empty where it is missing.
  std::string text(const char* name);
  /// Decimal or "0x...", as NCCL reads it; `fallback` where it is missing or empty. Clamped to [min, max].
  int64_t number(const char* name, int64_t fallback, int64_t min, int64_t max);
  bool flag(const char* name, bool fallback) { return number(name, fallback ? 1 : 0, 0, 1) != 0; }
  /// "16.0 GT/s PCIe" -> 16; 0 for anything that does not begin with a number ("", "Unknown speed").
  double gtps(const char* name);

  void fail(const std::string& problem);
  const std::optional<Error>& error() const { return error_; }

 private:
  const XmlDocument& xml_;
  pugi::xml_node node_;
  std::optional<Error> error_;
};

/// A host of a file: its machine as far as it is read, and what is settled at the end.
struct NcclHost {
  std::string hash;
  Machine machine{};
  std::vector<NumaCpus> numa{};
  std::vector<int> gpu_devs{};    ///< of each of machine.gpus: "dev", -1 if not said
  std::vector<int> net_devs{};    ///< of each of machine.nics
  std::vector<bool> fused{};      ///< of each of machine.nics: NCCL made it of others ("mlx5_0+mlx5_1")
  std::vector<bool> classless{};  ///< of each of machine.links: the file does not say what it leads to
};

/// Reads <cpu> with all that hangs below it into `host`. Errors: bad_input with line.
Status read_nccl_cpu(const XmlDocument& xml, pugi::xml_node cpu, NcclHost& host);

/// The machine: GPUs in the driver's order, links between them, cores.
Machine finish(NcclHost host);

}  // namespace mds::topology
