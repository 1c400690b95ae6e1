#include "topology/picture/machine_svg.hpp"

#include <algorithm>

#include "topology/doctor/cluster_checks.hpp"
#include "topology/doctor/machine_checks.hpp"
#include "topology/picture/machine_picture.hpp"

namespace mds::topology {

std::string cluster_svg(const Cluster& cluster) {
  using namespace picture;
  constexpr size_t kKindsMax = 12, kPeerFindingsMax = 8;
  constexpr double kMargin = 28, kGap = 36, kWidthMax = 1544;

  const std::vector<MachineKind> kinds = machine_kinds(cluster);
  SvgCanvas page;
  double x = kMargin, y = kMargin, row_height = 0, width = 0;
  for (size_t i = 0; i < std::min(kinds.size(), kKindsMax); ++i) {
    MachinePicture machine(kinds[i]);
    const Size size = machine.size();
    if (x > kMargin && x + size.width > kMargin + kWidthMax) {
      x = kMargin;
      y += row_height + kGap;
      row_height = 0;
    }
    machine.draw(page, x, y);
    x += size.width + kGap;
    width = std::max(width, x - kGap);
    row_height = std::max(row_height, size.height);
  }
  y += row_height;
  width = std::max(width, 640.);
  if (kinds.size() > kKindsMax) {
    y += 24;
    page.text(kMargin, y, width - kMargin,
              "… and " + std::to_string(kinds.size() - kKindsMax) + " more kinds of machines", {13, kSoftInk});
  }
  std::vector<Finding> findings;
  doctor::check_peers(cluster, findings);
  for (size_t i = 0; i < std::min(findings.size(), kPeerFindingsMax); ++i) {
    const Finding& finding = findings[i];
    y += 20;
    page.text(kMargin, y, width - kMargin, finding.host + ": " + finding.message,
              {11, severity_colour(finding.severity)});
  }
  const std::string title =
      kinds.size() == 1 ? kinds.front().hosts.front() : doctor::amount(cluster.nodes.size(), "machine");
  return page.document(width + kMargin, y + kMargin, title);
}

}  // namespace mds::topology
