// One machine, laid out and drawn: the inside of cluster_svg.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "topology/doctor/doctor.hpp"
#include "topology/picture/device_tree.hpp"
#include "topology/picture/palette.hpp"
#include "topology/picture/svg_canvas.hpp"

namespace mds::topology::picture {

/// A group of devices with its size: tiles in columns, then the boxes of switches.
struct DeviceBlock {
  const DeviceNode* node = nullptr;
  std::vector<std::vector<const std::vector<int>*>> nics;  ///< adapters of every column, above its GPU
  std::vector<DeviceBlock> switches;
  Size size;
};

struct NumaBox {
  const NumaView* view = nullptr;
  DeviceBlock devices;
  Size size;
};

struct PackageBox {
  int package = 0;
  std::vector<NumaBox> nodes;
  int across = 1;  ///< NUMA nodes side by side
  Size size;
};

/// The links of a machine in short, for the strip below its GPUs.
struct LinkSummary {
  struct Pair {
    int a, b, count;
    LinkKind kind;
  };
  std::vector<Pair> pairs;             ///< a < b
  std::map<int, int> to_switch;        ///< links to NVSwitches by GPU
  std::vector<std::string> switches;   ///< bus ids
  std::vector<std::string> sentences;  ///< "NVLink: every pair of GPUs has 4 links of 20 GB/s"
};
LinkSummary summarise_links(const Machine& machine);

class MachinePicture {
 public:
  /// Draws the machine that the kind names; it must outlive the picture.
  explicit MachinePicture(const MachineKind& kind);

  Size size() const { return size_; }
  void draw(SvgCanvas& canvas, double x, double y);

 private:
  /// Findings of one subject; they are listed below the picture in this order, counted from 1.
  struct Mark {
    size_t number;
    Severity severity;
  };

  void lay_out();
  void draw_heading(SvgCanvas& canvas, double x, double y) const;
  void draw_package(SvgCanvas& canvas, double x, double y, const PackageBox& package);
  void draw_numa(SvgCanvas& canvas, double x, double y, double height, const NumaBox& numa);
  void draw_devices(SvgCanvas& canvas, double x, double y, double height, const DeviceBlock& block);
  void draw_gpu(SvgCanvas& canvas, double x, double y, int gpu);
  void draw_nic(SvgCanvas& canvas, double x, double y, const std::vector<int>& adapter) const;
  double draw_links(SvgCanvas& canvas, double y) const;
  void draw_arcs(SvgCanvas& canvas, double y, const LinkSummary& links) const;
  std::map<int, int> places() const;  ///< of the GPUs from left to right
  void draw_findings(SvgCanvas& canvas, double x, double y) const;
  void draw_mark(SvgCanvas& canvas, const Box& tile, const std::string& subject) const;

  const Machine& machine_;
  const std::vector<std::string> hosts_;
  std::vector<NumaView> views_;
  std::vector<PackageBox> packages_;
  bool stacked_ = false;  ///< packages below each other
  double links_height_ = 0;
  std::vector<Finding> findings_;
  std::map<std::string, Mark> marks_;  ///< by subject
  std::map<int, Box> gpu_tiles_;       ///< where draw_gpu put them
  Size size_;
};

/// The colour of a severity: dark red, amber, grey blue.
std::string severity_colour(Severity severity);

}  // namespace mds::topology::picture
