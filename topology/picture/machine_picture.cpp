#include "topology/picture/machine_picture.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "topology/doctor/machine_checks.hpp"
#include "topology/fabric/host_ranges.hpp"

namespace mds::topology::picture {
namespace {

constexpr double kWidthMax = 1544;  // of a machine; with the page's margins 1600
constexpr double kTileWidth = 140, kGpuHeight = 82, kNicHeader = 20, kNicLine = 13, kTileGap = 8;
constexpr double kPadding = 10, kGap = 12, kSwitchHeader = 34, kNumaHeader = 40, kPackageHeader = 24;
constexpr double kCore = 7, kCorePitch = 9;
constexpr double kHeading = 58, kFindingLine = 15;
constexpr size_t kFindingsMax = 10, kPortsMax = 4, kArcsMax = 66;
constexpr double kArcStep = 9;

const std::string kGpuFill = "#ecfdf5", kGpuEdge = "#059669", kGpuInk = "#064e3b";
const std::string kNicFill = "#eff6ff", kNicEdge = "#3b82f6", kNicInk = "#1e3a8a";
const std::string kSwitchFill = "#fafaf9", kSwitchEdge = "#d6d3d1";
const std::string kLinkFill = "#f5f3ff", kLinkEdge = "#8b5cf6", kLinkInk = "#4c1d95";
const std::string kCoreFill = "#94a3b8";

double nic_height(const std::vector<int>& adapter) {
  return kNicHeader + 2 * kNicLine + static_cast<double>(std::min(adapter.size(), kPortsMax)) * kNicLine + 6;
}

/// "0000:3b:00.0" without the domain that nearly all have.
std::string short_bus(const std::string& bus_id) { return bus_id.starts_with("0000:") ? bus_id.substr(5) : bus_id; }

std::string short_name(const std::string& name) {
  for (const char* maker : {"NVIDIA ", "Tesla ", "AMD "}) {
    if (name.starts_with(maker)) return name.substr(std::string(maker).size());
  }
  return name;
}

DeviceBlock lay_out_devices(const DeviceNode& node) {
  DeviceBlock block;
  block.node = &node;
  const size_t columns = node.gpus.empty() ? (node.nics.size() + 1) / 2 : node.gpus.size();
  block.nics.resize(columns);
  for (size_t i = 0; i < node.nics.size(); ++i) block.nics[i % columns].push_back(&node.nics[i]);
  double height = 0;
  for (size_t column = 0; column < columns; ++column) {
    double column_height = column < node.gpus.size() ? kGpuHeight + kTileGap : 0;
    for (const auto* adapter : block.nics[column]) column_height += nic_height(*adapter) + kTileGap;
    height = std::max(height, column_height - kTileGap);
    block.size.width += kTileWidth + kTileGap;
  }
  for (const DeviceNode& below : node.switches) {
    block.switches.push_back(lay_out_devices(below));
    const Size& size = block.switches.back().size;
    height = std::max(height, size.height);
    block.size.width += size.width + kTileGap;
  }
  block.size.width = std::max(0., block.size.width - kTileGap);
  block.size.height = height;
  if (node.pci >= 0) {
    block.size.width += 2 * kTileGap;
    block.size.height += kSwitchHeader + kTileGap;
  }
  return block;
}

/// Cores side by side, so that all rows but the last are full and that one nearly.
size_t cores_across(size_t count, double width) {
  const auto most = static_cast<size_t>(std::max(1., std::floor(width / kCorePitch)));
  const size_t rows = (count + most - 1) / most;
  return rows == 0 ? most : (count + rows - 1) / rows;
}

double cores_height(size_t count, double width) {
  const size_t across = cores_across(count, width);
  return static_cast<double>((count + across - 1) / across) * kCorePitch;
}

NumaBox lay_out_numa(const NumaView& view) {
  NumaBox box;
  box.view = &view;
  box.devices = lay_out_devices(view.devices);
  const double inner = std::max(box.devices.size.width, view.cores.size() > 24 ? 16 * kCorePitch : 112.);
  box.size.width = inner + 2 * kPadding;
  box.size.height = kNumaHeader + cores_height(view.cores.size(), inner) + kPadding;
  if (box.devices.size.height > 0) box.size.height += box.devices.size.height + kPadding;
  return box;
}

/// NUMA nodes side by side, in as many rows as the width asks for.
PackageBox lay_out_package(int package, std::vector<NumaBox> nodes) {
  PackageBox box;
  box.package = package;
  box.nodes = std::move(nodes);
  const auto count = static_cast<int>(box.nodes.size());
  for (box.across = count;; --box.across) {
    box.size = {};
    for (int row = 0; row < count; row += box.across) {
      double width = 2 * kPadding - kGap, height = 0;
      for (int i = row; i < std::min(count, row + box.across); ++i) {
        width += box.nodes[static_cast<size_t>(i)].size.width + kGap;
        height = std::max(height, box.nodes[static_cast<size_t>(i)].size.height);
      }
      box.size.width = std::max(box.size.width, width);
      box.size.height += height + kGap;
    }
    if (box.size.width <= kWidthMax || box.across <= 1) break;
  }
  box.size.height += kPackageHeader - kGap + kPadding;
  return box;
}

/// "Package 0", or "Packages 0-1" where a NUMA node spans them.
std::string package_name(const PackageBox& box) {
  std::vector<int> packages;
  for (const NumaBox& numa : box.nodes) {
    for (const Core* core : numa.view->cores) packages.push_back(core->package);
  }
  if (packages.empty()) packages.push_back(box.package);
  const std::string list = doctor::number_ranges(std::move(packages));
  return (list.find_first_of(",-") == std::string::npos ? "Package " : "Packages ") + list;
}

std::string cpu_name(const Machine& machine, int package) {
  for (const Package& one : machine.packages) {
    if (one.index != package) continue;
    if (one.vendor == "GenuineIntel") return "Intel";
    if (one.vendor == "AuthenticAMD") return "AMD";
    return !one.vendor.empty() ? one.vendor : one.arch;
  }
  return "";
}

/// "RDMA 2×100 Gbit/s".
std::string adapter_text(const Machine& machine, const std::vector<int>& adapter) {
  const Nic& first = machine.nics[static_cast<size_t>(adapter.front())];
  const std::string rate = rate_text(first.gbps);
  const std::string times = adapter.size() > 1 ? std::to_string(adapter.size()) + "×" : "";
  return std::string(first.rdma ? "RDMA" : "Ethernet") + (rate.empty() ? "" : " " + times + rate);
}

/// Deep enough for the widest arc there can be.
double arcs_height(const LinkSummary& links) {
  std::set<int> gpus;
  for (const auto& pair : links.pairs) gpus.insert({pair.a, pair.b});
  return static_cast<double>(gpus.size()) * kArcStep + 14;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    if (!part.empty()) text += (text.empty() ? "" : " · ") + part;
  }
  return text;
}

}  // namespace

std::string severity_colour(Severity severity) {
  return severity == Severity::fault ? "#b91c1c" : severity == Severity::warning ? "#b45309" : "#64748b";
}

MachinePicture::MachinePicture(const MachineKind& kind)
    : machine_(*kind.machine), hosts_(kind.hosts), views_(numa_views(machine_)), findings_(examine(machine_)) {
  std::erase_if(findings_, [](const Finding& finding) { return finding.code == "discovery"; });
  for (size_t i = 0; i < std::min(findings_.size(), kFindingsMax); ++i) {
    const Finding& finding = findings_[i];
    const std::string& subject = finding.subject;
    const Mark mark{i + 1, finding.severity};
    marks_.try_emplace(subject.substr(0, subject.find(" and ")), mark);
    if (!subject.starts_with("gpus ") || finding.severity == Severity::note) continue;
    for (size_t gpu = 0; gpu < machine_.gpus.size(); ++gpu) {
      if (doctor::names_gpu(subject, machine_.gpus[gpu].index)) {
        marks_.try_emplace(doctor::gpu_subject(machine_, gpu), mark);
      }
    }
  }
  lay_out();
}

void MachinePicture::lay_out() {
  std::map<int, std::vector<NumaBox>> nodes;
  for (const NumaView& view : views_) nodes[view.os_index < 0 ? -1 : view.package].push_back(lay_out_numa(view));
  double width = -kGap, tallest = 0, widest = 0, total = -kGap;
  for (auto& [package, boxes] : nodes) {
    packages_.push_back(lay_out_package(package, std::move(boxes)));
    const Size& size = packages_.back().size;
    width += size.width + kGap;
    total += size.height + kGap;
    widest = std::max(widest, size.width);
    tallest = std::max(tallest, size.height);
  }
  stacked_ = width > kWidthMax;
  if (!stacked_) {
    for (PackageBox& package : packages_) package.size.height = tallest;  // so that GPUs stand in one line
  }
  const LinkSummary links = summarise_links(machine_);
  links_height_ = 0;
  if (!links.to_switch.empty()) {
    links_height_ += 70;
  } else if (!links.pairs.empty() && links.pairs.size() <= kArcsMax && !stacked_) {
    links_height_ += arcs_height(links);
  }
  links_height_ += static_cast<double>(links.sentences.size()) * 16 + (links.sentences.empty() ? 0 : 12);
  size_.width = std::max(stacked_ ? widest : width, findings_.empty() ? 460. : 760.);  // their sentences are long
  size_.height = kHeading + (stacked_ ? total : tallest) + links_height_;
  if (!findings_.empty()) {
    const size_t lines = std::min(findings_.size(), kFindingsMax) + (findings_.size() > kFindingsMax ? 1 : 0);
    size_.height += 18 + static_cast<double>(lines) * 2 * kFindingLine + 4;
  }
}

void MachinePicture::draw(SvgCanvas& canvas, double x, double y) {
  draw_heading(canvas, x, y);
  double left = x, top = y + kHeading, bottom = top;
  for (const PackageBox& package : packages_) {
    draw_package(canvas, left, top, package);
    bottom = std::max(bottom, top + package.size.height);
    (stacked_ ? top : left) += (stacked_ ? package.size.height : package.size.width) + kGap;
  }
  bottom = draw_links(canvas, bottom);
  draw_findings(canvas, x, bottom);
}

void MachinePicture::draw_heading(SvgCanvas& canvas, double x, double y) const {
  uint64_t memory = 0;
  std::set<int> packages;
  for (const NumaNode& node : machine_.numa) memory += node.memory_bytes;
  for (const Core& core : machine_.cores) packages.insert(core.package);
  std::string title = fold_hosts(hosts_);
  if (hosts_.size() > 1) title += "  ×" + std::to_string(hosts_.size());
  canvas.text(x, y + 22, size_.width, title, {20, kInk, true});
  using doctor::amount;
  std::string gpus = amount(machine_.gpus.size(), "GPU");
  if (!machine_.gpus.empty() && !machine_.gpus.front().name.empty()) {
    gpus = std::to_string(machine_.gpus.size()) + " × " + short_name(machine_.gpus.front().name);
  }
  const std::string summary =
      joined({packages.empty() ? "" : amount(packages.size(), "package"),
              machine_.cores.empty() ? "cores unknown" : amount(machine_.cores.size(), "core"),
              machine_.numa.empty() ? "" : amount(machine_.numa.size(), "NUMA node"), memory_text(memory),
              machine_.gpus.empty() ? "" : gpus, machine_.nics.empty() ? "" : amount(machine_.nics.size(), "NIC")});
  canvas.text(x, y + 43, size_.width, summary, {12.5, kSoftInk});
}

void MachinePicture::draw_package(SvgCanvas& canvas, double x, double y, const PackageBox& package) {
  const Box box{x, y, package.size.width, package.size.height};
  canvas.rect(box, {kNodeFill, kNodeEdge, 12, 1, "package"});
  const std::string name = package.package < 0 ? "Devices of an unknown NUMA node"
                                               : joined({package_name(package), cpu_name(machine_, package.package)});
  canvas.text(x + kPadding, y + 17, box.width - 2 * kPadding, name, {12, kInk, true});
  double top = y + kPackageHeader;
  const size_t across = static_cast<size_t>(package.across);
  for (size_t row = 0; row < package.nodes.size(); row += across) {
    const size_t end = std::min(package.nodes.size(), row + across);
    double height = 0, left = x + kPadding;
    for (size_t i = row; i < end; ++i) height = std::max(height, package.nodes[i].size.height);
    if (end == package.nodes.size()) height = std::max(height, box.bottom() - kPadding - top);
    for (size_t i = row; i < end; ++i) {
      draw_numa(canvas, left, top, height, package.nodes[i]);
      left += package.nodes[i].size.width + kGap;
    }
    top += height + kGap;
  }
}

void MachinePicture::draw_numa(SvgCanvas& canvas, double x, double y, double height, const NumaBox& numa) {
  const Box box{x, y, numa.size.width, height};
  canvas.rect(box, {kWhite, kPanelEdge, 8, 1, "numa"});
  const double inner = box.width - 2 * kPadding;
  const NumaView& view = *numa.view;
  const std::string name = view.os_index < 0 ? "NUMA node unknown" : "NUMA node " + std::to_string(view.os_index);
  canvas.text(x + kPadding, y + 16, inner, name, {11, kInk, true});
  const std::string cores = view.cores.empty() ? "no cores known" : doctor::amount(view.cores.size(), "core");
  canvas.text(x + kPadding, y + 31, inner, joined({memory_text(view.memory_bytes), cores}), {10, kSoftInk});
  draw_mark(canvas, box, "numa " + std::to_string(view.os_index));
  const size_t across = cores_across(view.cores.size(), inner);
  for (size_t i = 0; i < view.cores.size(); ++i) {
    canvas.rect({x + kPadding + static_cast<double>(i % across) * kCorePitch,
                 y + kNumaHeader + static_cast<double>(i / across) * kCorePitch, kCore, kCore},
                {kCoreFill, "none", 1.5, 1, "core"});
  }
  const double top = y + kNumaHeader + cores_height(view.cores.size(), inner) + (view.cores.empty() ? 0 : kPadding);
  draw_devices(canvas, x + kPadding, top, box.bottom() - kPadding - top, numa.devices);
}

void MachinePicture::draw_devices(SvgCanvas& canvas, double x, double y, double height, const DeviceBlock& block) {
  double left = x, top = y;
  const double bottom = y + height - (block.node->pci >= 0 ? kTileGap : 0);
  if (block.node->pci >= 0) {
    const PciDevice& device = machine_.pci[static_cast<size_t>(block.node->pci)];
    const Box box{x, y, block.size.width, height};
    canvas.rect(box, {kSwitchFill, kSwitchEdge, 7, 1, "switch"});
    canvas.text(x + kTileGap, y + 14, box.width - 2 * kTileGap, "PCI switch " + short_bus(device.bus_id),
                {10, kInk, true});
    const std::string link = link_text(device.link);
    canvas.text(x + kTileGap, y + 27, box.width - 2 * kTileGap, link.empty() ? "" : "↑ " + link, {9.5, kSoftInk});
    draw_mark(canvas, box, doctor::pci_subject(machine_, static_cast<size_t>(block.node->pci)));
    left += kTileGap;
    top += kSwitchHeader;
  }
  for (size_t column = 0; column < block.nics.size(); ++column) {
    double at = top;
    for (const auto* adapter : block.nics[column]) {
      draw_nic(canvas, left, at, *adapter);
      at += nic_height(*adapter) + kTileGap;
    }
    if (column < block.node->gpus.size()) draw_gpu(canvas, left, bottom - kGpuHeight, block.node->gpus[column]);
    left += kTileWidth + kTileGap;
  }
  for (const DeviceBlock& below : block.switches) {
    draw_devices(canvas, left, top, bottom - top, below);
    left += below.size.width + kTileGap;
  }
}

void MachinePicture::draw_gpu(SvgCanvas& canvas, double x, double y, int index) {
  const Gpu& gpu = machine_.gpus[static_cast<size_t>(index)];
  const Box tile{x, y, kTileWidth, kGpuHeight};
  canvas.rect(tile, {kGpuFill, kGpuEdge, 7, 1.4, "gpu"});
  const double inner = tile.width - 16;
  const std::string arch = !gpu.gcn.empty() ? gpu.gcn : gpu.sm > 0 ? "sm" + std::to_string(gpu.sm) : "";
  const std::string link = gpu.pci >= 0 && gpu.pci < static_cast<int>(machine_.pci.size())
                               ? link_text(machine_.pci[static_cast<size_t>(gpu.pci)].link)
                               : "";
  canvas.text(x + 8, y + 18, inner, "GPU " + std::to_string(gpu.index), {13, kGpuInk, true});
  double at = y + 21;
  const std::string name = gpu.name.empty() ? arch : short_name(gpu.name);
  for (const auto& line :
       {name, memory_text(gpu.memory_bytes), short_bus(gpu.bus_id), link.empty() ? "" : "PCI " + link}) {
    if (!line.empty()) canvas.text(x + 8, at += 13.5, inner, line, {10, line == name ? kInk : kSoftInk});
  }
  draw_mark(canvas, tile, doctor::gpu_subject(machine_, static_cast<size_t>(index)));
  gpu_tiles_[index] = tile;
}

void MachinePicture::draw_nic(SvgCanvas& canvas, double x, double y, const std::vector<int>& adapter) const {
  const Nic& first = machine_.nics[static_cast<size_t>(adapter.front())];
  const Box tile{x, y, kTileWidth, nic_height(adapter)};
  canvas.rect(tile, {kNicFill, kNicEdge, 7, 1, "nic"});
  const double inner = tile.width - 16;
  canvas.text(x + 8, y + 16, inner, adapter_text(machine_, adapter), {9.5, kNicInk, true});
  double at = y + kNicHeader + 11;
  for (size_t i = 0; i < std::min(adapter.size(), kPortsMax); ++i) {
    const Nic& nic = machine_.nics[static_cast<size_t>(adapter[i])];
    std::string text = nic.name;
    if (i + 1 == kPortsMax && adapter.size() > kPortsMax) {
      text = "… and " + std::to_string(adapter.size() - i) + " more ports";
    }
    canvas.text(x + 8, at, inner, text, {10, kInk});
    at += kNicLine;
  }
  const std::string link = first.pci >= 0 && first.pci < static_cast<int>(machine_.pci.size())
                               ? link_text(machine_.pci[static_cast<size_t>(first.pci)].link)
                               : "";
  canvas.text(x + 8, at, inner, short_bus(first.bus_id), {9.5, kSoftInk});
  canvas.text(x + 8, at + kNicLine, inner, link.empty() ? "" : "PCI " + link, {9.5, kSoftInk});
  for (const int nic : adapter) draw_mark(canvas, tile, doctor::nic_subject(machine_, static_cast<size_t>(nic)));
}

double MachinePicture::draw_links(SvgCanvas& canvas, double y) const {
  const LinkSummary links = summarise_links(machine_);
  if (links.sentences.empty() || gpu_tiles_.empty()) return y;
  double left = 1e9, right = 0;
  for (const auto& [gpu, tile] : gpu_tiles_) {
    left = std::min(left, tile.x);
    right = std::max(right, tile.right());
  }
  double bottom = y;
  if (!links.to_switch.empty()) {
    const Box bar{left, y + 34, right - left, 30};
    for (const auto& [gpu, count] : links.to_switch) {
      const auto tile = gpu_tiles_.find(gpu);
      if (tile == gpu_tiles_.end()) continue;
      const double middle = tile->second.x + tile->second.width / 2;
      canvas.line(middle, tile->second.bottom(), middle, bar.y, kLinkEdge, 4);
      canvas.text(middle + 7, y + 24, kTileWidth / 2 - 7, std::to_string(count) + " ×", {10, kLinkInk, true});
    }
    canvas.rect(bar, {kLinkFill, kLinkEdge, 8, 1.4, "nvswitch"});
    std::string name = links.switches.size() > 1 ? std::to_string(links.switches.size()) + " NVSwitches" : "NVSwitch";
    const char* between = "   ";
    for (const std::string& bus_id : links.switches) {
      if (bus_id.find("ffff:ff:ff") == std::string::npos) name += std::exchange(between, " · ") + short_bus(bus_id);
    }
    canvas.text(bar.x + bar.width / 2, bar.y + 19, bar.width - 16, name, {11, kLinkInk, true, Anchor::middle});
    bottom = y + 70;
  } else if (!links.pairs.empty() && links.pairs.size() <= kArcsMax && !stacked_) {
    draw_arcs(canvas, y, links);
    bottom = y + arcs_height(links);
  }
  for (const std::string& sentence : links.sentences) {
    bottom += 16;
    canvas.text(left, bottom - 2, size_.width - (left - 28), sentence, {11, kLinkInk});
  }
  return bottom + 12;
}

/// Neighbours hang shallow, far ones deep; the ends fan out, the nearest outermost, so that arcs do not cross there.
void MachinePicture::draw_arcs(SvgCanvas& canvas, double y, const LinkSummary& links) const {
  const std::map<int, int> place = places();
  const double count = static_cast<double>(place.size());
  const double fan = (kTileWidth / 2 - 22) / std::max(1., count - 2);
  for (const auto& pair : links.pairs) {
    int a = pair.a, b = pair.b;
    if (place.at(a) > place.at(b)) std::swap(a, b);
    const int distance = place.at(b) - place.at(a);
    const Box &from = gpu_tiles_.at(a), &to = gpu_tiles_.at(b);
    const double depth = y - from.bottom() + 8 + distance * kArcStep;
    canvas.hanging_curve(from.right() - 16 - fan * (distance - 1), to.x + 16 + fan * (distance - 1), from.bottom() + 1,
                         depth, kLinkEdge, std::min(1. + 0.4 * pair.count, 3.));
  }
}

std::map<int, int> MachinePicture::places() const {
  std::vector<std::pair<double, int>> order;
  for (const auto& [gpu, tile] : gpu_tiles_) order.push_back({tile.x, gpu});
  std::sort(order.begin(), order.end());
  std::map<int, int> place;
  for (size_t i = 0; i < order.size(); ++i) place[order[i].second] = static_cast<int>(i);
  return place;
}

void MachinePicture::draw_mark(SvgCanvas& canvas, const Box& tile, const std::string& subject) const {
  const auto mark = marks_.find(subject);
  if (mark == marks_.end()) return;
  const Box badge{tile.right() - 22, tile.y + 5, 17, 17};
  canvas.rect(badge, {severity_colour(mark->second.severity), "none", 8.5, 1, "mark"});
  canvas.text(badge.x + badge.width / 2, badge.y + 12.5, badge.width, std::to_string(mark->second.number),
              {10, kWhite, true, Anchor::middle});
}

void MachinePicture::draw_findings(SvgCanvas& canvas, double x, double y) const {
  double top = y + 18;
  for (size_t i = 0; i < std::min(findings_.size(), kFindingsMax); ++i) {
    const Finding& finding = findings_[i];
    const std::string colour = severity_colour(finding.severity);
    canvas.rect({x, top, 17, 17}, {colour, "none", 8.5, 1, "mark"});
    canvas.text(x + 8.5, top + 12.5, 17, std::to_string(i + 1), {10, kWhite, true, Anchor::middle});
    canvas.text(x + 26, top + 11, size_.width - 26,
                std::string(to_string(finding.severity)) + " · " + finding.code + " · " + finding.subject,
                {11, colour, true});
    canvas.text(x + 26, top + 24, size_.width - 26, finding.message, {10.5, kSoftInk});
    top += 2 * kFindingLine;
  }
  if (findings_.size() <= kFindingsMax) return;
  canvas.text(x + 26, top + 11, size_.width - 26,
              "… and " + std::to_string(findings_.size() - kFindingsMax) + " more: mdslaunch doctor", {11, kSoftInk});
}

}  // namespace mds::topology::picture
