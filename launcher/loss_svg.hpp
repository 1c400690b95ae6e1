// The picture of a run's training and validation loss over its steps, as an SVG document.
#pragma once

#include <string>

#include "launcher/metrics.hpp"

namespace mds::launcher {

/// Empty where there are not at least two finite values. A pure function: equal history, equal text.
std::string loss_svg(const MetricsHistory& history, const std::string& title);

}  // namespace mds::launcher
