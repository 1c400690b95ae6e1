// What all pictures share: their ink, and how large a part is.
#pragma once

#include <string>

namespace mds::topology::picture {

inline const std::string kInk = "#0f172a", kSoftInk = "#475569", kFaintInk = "#94a3b8";
inline const std::string kNodeFill = "#f1f5f9", kNodeEdge = "#cbd5e1", kPanelEdge = "#e2e8f0", kWhite = "#ffffff";

/// A part of the picture that is laid out before it is drawn.
struct Size {
  double width = 0, height = 0;
};

}  // namespace mds::topology::picture
