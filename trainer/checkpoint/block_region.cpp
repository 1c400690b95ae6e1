#include "trainer/checkpoint/block_region.hpp"

namespace mds::trainer {

Result<Region> region_of(const TensorBlock& block) {
  Region region{block.offset, block.extent, block.flat_begin, block.flat_end};
  if (!block.data.defined()) return internal("block of tensor " + block.name + " has no data");
  if (region.extent.empty() && !block.global_shape.empty()) region.extent = block.data.sizes().vec();
  if (region.offset.empty()) region.offset.assign(region.extent.size(), 0);
  if (region.flat_end < 0) region.flat_end = product(region.extent);
  if (!fits(region, block.global_shape) || region.size() != block.data.numel()) {
    return internal("block of tensor " + block.name + " does not lie within the tensor, or its data has another size");
  }
  return region;
}

}  // namespace mds::trainer
