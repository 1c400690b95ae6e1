#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "trainer/model/model.hpp"

namespace mds::trainer {
namespace {

// FNV-1a: the generator of a tensor must not depend on the standard library's hash.
uint64_t hash_of(const std::string& name) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

at::Generator generator_on(at::Device device, uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(device).clone();
  generator.set_current_seed(seed);
  return generator;
}

// The whole logical tensor is drawn, in fp32 whatever the parameter's dtype, and this rank's block is cut out.
at::Tensor draw(const LogicalSlice& slice, const at::Tensor& target, const ModelConfig& model, uint64_t seed) {
  double deviation = model.init_std;
  if (slice.init == Init::scaled_normal) deviation /= std::sqrt(2.0 * static_cast<double>(model.num_layers));
  at::Tensor block = at::empty(slice.global_shape, target.options().dtype(at::kFloat));
  block.normal_(0.0, deviation, generator_on(target.device(), seed ^ hash_of(slice.name)));
  for (int64_t i = 0; i < target.dim(); ++i) block = block.narrow(i, slice.global_offset[i], target.size(i));
  return block;
}

}  // namespace

void initialize(const std::vector<Parameter*>& parameters, const ModelConfig& model, uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (Parameter* parameter : parameters) {
    for (const LogicalSlice& slice : parameter->slices) {
      at::Tensor target = parameter->value.narrow(0, slice.local_begin, slice.local_rows);
      switch (slice.init) {
        case Init::zeros:
          target.zero_();
          break;
        case Init::ones:
          target.fill_(1);
          break;
        case Init::normal:
        case Init::scaled_normal:
          target.copy_(draw(slice, target, model, seed));
          break;
      }
    }
  }
}

}  // namespace mds::trainer
