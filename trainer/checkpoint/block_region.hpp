// The region of its logical tensor that a TensorBlock stands for.
#pragma once

#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/region.hpp"

namespace mds::trainer {

/// An empty extent stands for the shape of the data. Errors: internal if the block contradicts itself.
Result<Region> region_of(const TensorBlock& block);

}  // namespace mds::trainer
