// DeviceClass: what kinds of processors reach in practice, for step times. Figures are for one device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "topology/cluster.hpp"

namespace mds::topology::cost {

/// Rates in FLOP/s and bytes/s, as measured or published for large problems; device_class.cpp has the sources.
struct DeviceClass {
  std::string name;                    ///< "H200"
  double peak = 0;                     ///< 16-bit, dense, data sheet: what an MFU refers to
  double gemm = 0;                     ///< 16-bit matrix products, large ones
  double gemm_fp8 = 0;                 ///< 0: has none
  double gemm_fp32 = 0;
  double attention_forward = 0;        ///< fused, causal (masked half not counted), heads of 128
  double attention_backward = 0;
  double attention_head64 = 1;         ///< the factor for heads of 64 or less
  double memory = 0;                   ///< copy bandwidth, read plus write
  double host_link = 0;                ///< to pinned host memory, one direction
  uint64_t memory_bytes = 0;           ///< where a recording has none; 0 unknown
  double nvlink = 0;                   ///< GB/s one way over all links, where a recording says nothing; 0: none
  int processors = 0;                  ///< SMs or CUs: matrix products come in waves of so many tiles
  double launch_gap = 0;               ///< seconds between dependent kernels: drain, launch, ramp
};

/// Nothing for a device that we know no rates of.
std::optional<DeviceClass> device_class(const Gpu& gpu);
/// By name alone: "A100", "NVIDIA H200", "MI300X".
std::optional<DeviceClass> device_class(const std::string& name);

/// A rank on `cores` CPU cores.
DeviceClass cpu_class(int cores);

/// The memory of the recording, or else of the class; 0 unknown.
uint64_t gpu_memory(const Gpu& gpu);

}  // namespace mds::topology::cost
