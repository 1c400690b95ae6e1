// The matrix that `nvidia-smi topo -m` prints, as text: columns, cells, affinities and the legend of NICs.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "topology/paths.hpp"

namespace mds::topology {

/// One cell: how two devices reach each other. Of an NVLink the count; the PCI way behind it does not show.
struct SmiCell {
  PathClass kind = PathClass::dis;  ///< loc (X), nvl, pix, pxb, phb (PHB and NODE), sys (SYS, SOC); dis: N/A
  int nvlinks = 0;
};

struct SmiDevice {
  std::string name;              ///< "mlx5_0" (from the legend, where the matrix has NIC0); empty for GPUs
  int gpu = -1;                  ///< its number, -1: a NIC
  std::vector<SmiCell> cells{};  ///< to each device, itself included
  std::vector<int> cpus{};       ///< CPU affinity, ascending; empty where it is not given
  std::vector<int> numa{};       ///< NUMA affinity; empty where it is not given ("N/A")
};

struct SmiMatrix {
  std::vector<SmiDevice> devices;  ///< in the order of the columns
  std::vector<std::string> notes;
};

/// True if there is a line of column names with GPU0 and a row of the matrix below it, near the beginning.
bool looks_like_smi(std::string_view text);

/// All variants from driver 340 to 580: with or without NICs, NUMA affinity and "GPU NUMA ID"; underlined headers;
/// tabs or blanks between columns; text before and after it. Errors: bad_input with line.
Result<SmiMatrix> read_smi_matrix(std::string_view text);

}  // namespace mds::topology
