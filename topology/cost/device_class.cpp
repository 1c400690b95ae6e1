#include "topology/cost/device_class.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace mds::topology::cost {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9;
constexpr uint64_t kGiB = uint64_t{1} << 30;
// Between two kernels that depend on each other the first one's tail drains and the second one's head fills the device:
// 4 to 5 us from trace to trace, CUDA and ROCm alike, with launches queued ahead.
constexpr double kGap = 4.5e-6;

struct Row {
  std::string_view word;  ///< in the device's name
  int sm;                 ///< stands for this compute capability where no name fits; 0: does not
  std::string_view gcn;
  DeviceClass rates;
};

// Sources. H200: measured on one (attention 620/540 and, with heads of 64, 460/423; copy 4.3 TB/s; host link 55 GB/s).
// Matrix products reach 737 at best there, in bursts of milliseconds; a run of minutes is at the power limit, and every
// layout of llama-8b in docs/performance.md says 10 % less, so 670; the same is taken off other makers' best figures.
// Peaks, bandwidths and memory of the others: the vendors' data sheets. Their products: A100 from a layer's times in
// arXiv 2205.05198, table 4 (82 % of its peak; 87 % at best in Bekman, "Machine Learning Engineering", whose maximum
// achievable FLOPS also give MI300X 60 % and B200 77 %), H100 as the H200, V100 and older 80 %. Attention: Dao,
// "FlashAttention-2" (arXiv 2307.08691, A100), Shah et al., "FlashAttention-3" (arXiv 2407.08608, H100), the vendors'
// own figures for MI300X and B200. Copies: 85-90 % of the data sheet, which is what STREAM-like kernels reach. FP32 is
// FP32 throughout, never TF32 (the trainer's products are exact): three quarters of the data sheet's vector peak.
const auto& rows() {
  static const std::array<Row, 15> table{{
      {"B200", 100, "", {"B200", 2250 * kTera, 1570 * kTera, 3200 * kTera, 60 * kTera, 1250 * kTera, 950 * kTera, 0.8,
                         6.9e12, 55 * kGiga, 180 * kGiB, 721, 148, kGap}},
      {"B300", 103, "", {"B300", 2250 * kTera, 1570 * kTera, 3200 * kTera, 60 * kTera, 1250 * kTera, 950 * kTera, 0.8,
                         6.9e12, 110 * kGiga, 268 * kGiB, 721, 148, kGap}},
      {"GH200", 0, "", {"GH200", 989 * kTera, 670 * kTera, 1350 * kTera, 50 * kTera, 600 * kTera, 520 * kTera, 0.76,
                        3.5e12, 350 * kGiga, 95 * kGiB, 370, 132, kGap}},
      {"H200", 0, "", {"H200", 989 * kTera, 670 * kTera, 1350 * kTera, 50 * kTera, 620 * kTera, 540 * kTera, 0.76,
                       4.3e12, 55 * kGiga, 140 * kGiB, 370, 132, kGap}},
      {"H800", 0, "", {"H800", 989 * kTera, 670 * kTera, 1350 * kTera, 50 * kTera, 600 * kTera, 520 * kTera, 0.76,
                       2.95e12, 55 * kGiga, 80 * kGiB, 165, 132, kGap}},
      {"H20", 0, "", {"H20", 148 * kTera, 137 * kTera, 270 * kTera, 33 * kTera, 125 * kTera, 115 * kTera, 0.85, 3.5e12,
                      55 * kGiga, 95 * kGiB, 370, 78, kGap}},
      {"H100", 90, "", {"H100", 989 * kTera, 670 * kTera, 1350 * kTera, 50 * kTera, 600 * kTera, 520 * kTera, 0.76,
                        2.95e12, 55 * kGiga, 80 * kGiB, 370, 132, kGap}},
      {"A800", 0, "", {"A800", 312 * kTera, 255 * kTera, 0, 17 * kTera, 200 * kTera, 170 * kTera, 0.85, 1.75e12,
                       25 * kGiga, 80 * kGiB, 160, 108, kGap}},
      {"A100", 80, "", {"A100", 312 * kTera, 255 * kTera, 0, 17 * kTera, 200 * kTera, 170 * kTera, 0.85, 1.75e12,
                        25 * kGiga, 80 * kGiB, 240, 108, kGap}},
      {"V100", 70, "", {"V100", 125 * kTera, 100 * kTera, 0, 14 * kTera, 60 * kTera, 50 * kTera, 0.9, 0.79e12,
                        12 * kGiga, 32 * kGiB, 120, 80, kGap}},
      {"P100", 60, "", {"P100", 21.2 * kTera, 17 * kTera, 0, 9 * kTera, 8 * kTera, 7 * kTera, 1.0, 0.55e12,
                        12 * kGiga, 16 * kGiB, 72, 56, kGap}},
      {"T4", 75, "", {"T4", 65 * kTera, 30 * kTera, 0, 6 * kTera, 18 * kTera, 15 * kTera, 1.0, 0.24e12, 12 * kGiga,
                      15 * kGiB, 0, 40, kGap}},
      {"L40", 89, "", {"L40S", 362 * kTera, 260 * kTera, 450 * kTera, 60 * kTera, 170 * kTera, 140 * kTera, 0.9,
                       0.74e12, 25 * kGiga, 45 * kGiB, 0, 142, kGap}},
      {"MI300X", 0, "gfx942", {"MI300X", 1307 * kTera, 700 * kTera, 1200 * kTera, 100 * kTera, 480 * kTera, 350 * kTera,
                               0.8, 4.1e12, 55 * kGiga, 192 * kGiB, 330, 304, kGap}},
      {"MI250", 0, "gfx90a", {"MI250X (half)", 191 * kTera, 140 * kTera, 0, 35 * kTera, 80 * kTera, 65 * kTera, 0.9,
                              1.35e12, 25 * kGiga, 64 * kGiB, 150, 110, kGap}},
  }};
  return table;
}

// Whole words: "H20" must not find "H200".
bool names(std::string_view name, std::string_view word) {
  const size_t at = name.find(word);
  if (at == std::string_view::npos) return false;
  const size_t end = at + word.size();
  return end == name.size() || !std::isdigit(static_cast<unsigned char>(name[end]));
}

}  // namespace

std::optional<DeviceClass> device_class(const std::string& name) {
  for (const Row& row : rows()) {
    if (names(name, row.word)) return row.rates;
  }
  return std::nullopt;
}

std::optional<DeviceClass> device_class(const Gpu& gpu) {
  if (auto named = device_class(gpu.name)) return named;
  const Row* nearest = nullptr;  // sm86 counts as sm80, sm120 as sm103
  for (const Row& row : rows()) {
    if (!gpu.gcn.empty() && row.gcn == gpu.gcn) return row.rates;
    const bool below = gpu.sm > 0 && row.sm > 0 && row.sm <= gpu.sm;
    if (below && (!nearest || row.sm > nearest->sm)) nearest = &row;
  }
  if (!nearest) return std::nullopt;
  return nearest->rates;
}

// oneDNN and MKL with AVX2: about 60 GFLOP/s in fp32 a core, half as much in attention, and 10 GB/s of a socket's
// memory. 16-bit types gain nothing there.
DeviceClass cpu_class(int cores) {
  const double n = std::max(1, cores);
  DeviceClass out;
  out.name = "CPU";
  out.peak = out.gemm = out.gemm_fp32 = 60 * kGiga * n;
  out.attention_forward = out.attention_backward = 30 * kGiga * n;
  out.memory = 10 * kGiga * n;
  out.host_link = 10 * kGiga;
  out.processors = 1;
  out.launch_gap = 5e-6;
  return out;
}

uint64_t gpu_memory(const Gpu& gpu) {
  if (gpu.memory_bytes != 0) return gpu.memory_bytes;
  const auto known = device_class(gpu);
  return known ? known->memory_bytes : 0;
}

}  // namespace mds::topology::cost
