// The picture of a run's training and validation loss over its steps, as an SVG document.
#pragma once

#include <string>

#include "launcher/metrics.hpp"

namespace mds::launcher {

/// Empty where there are not at least two finite values. Pure: equal history, equal text. `unit` is a loss's.
std::string loss_svg(const MetricsHistory& history, const std::string& title,
                     const std::string& unit = "nats per token");

}  // namespace mds::launcher
