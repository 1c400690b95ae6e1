// Fused kernels for what memory traffic rules: each reads its inputs once, in 16-byte vectors where alignment allows,
// and keeps everything between in registers.
#include "trainer/cuda/kernels.hpp"

#include <algorithm>

#include <cuda_bf16.h>

namespace mds::trainer::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline void store(float& to, float v) { to = v; }
__device__ inline void store(__nv_bfloat16& to, float v) { to = __float2bfloat16_rn(v); }

/// V elements that are loaded and stored as one access.
template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T item[V];
};

template <typename T, int V>
__device__ inline void load(const T* from, float (&to)[V]) {
  const auto v = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(v.item[i]);
}

template <typename T, int V>
__device__ inline void save(T* to, const float (&from)[V]) {
  Vector<T, V> v;
#pragma unroll
  for (int i = 0; i < V; ++i) store(v.item[i], from[i]);
  *reinterpret_cast<Vector<T, V>*>(to) = v;
}

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

/// The sum over the block, on every thread. Callers separate two uses by other work that ends in a barrier, or use the
/// barrier at its start: `shared` is read by all before it may be written again.
__device__ inline float block_sum(float v) {
  __shared__ float shared[kWarps];
  v = warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += shared[w];
  return total;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const T* x, const T* weight, T* y, float* rstd, int64_t n, float eps) {
  const T* row = x + blockIdx.x * n;
  T* out = y + blockIdx.x * n;
  float squares = 0;
  for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
    float v[V];
    load<T, V>(row + i, v);
#pragma unroll
    for (int j = 0; j < V; ++j) squares += v[j] * v[j];
  }
  const float r = rsqrtf(block_sum(squares) / static_cast<float>(n) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
  for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
    float v[V], w[V];
    load<T, V>(row + i, v);         // from the first-level cache: the row was just read
    load<T, V>(weight + i, w);
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = v[j] * r * w[j];
    save<T, V>(out + i, v);
  }
}

/// One block takes every gridDim-th row and sums the weight's gradient in shared memory; each thread owns its columns.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    rms_norm_backward_kernel(const T* dy, const T* x, const float* rstd, const T* weight, const T* add, T* dx,
                             float* scratch, int64_t rows, int64_t n) {
  extern __shared__ float weight_sum[];
  for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
#pragma unroll
    for (int j = 0; j < V; ++j) weight_sum[i + j] = 0;
  }
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t base = row * n;
    const float r = rstd[row];
    float dot = 0;
    for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
      float g[V], h[V], w[V];
      load<T, V>(dy + base + i, g);
      load<T, V>(x + base + i, h);
      load<T, V>(weight + i, w);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const float dy_h = g[j] * h[j] * r;
        weight_sum[i + j] += dy_h;
        dot += dy_h * w[j];
      }
    }
    const float mean = block_sum(dot) / static_cast<float>(n);
    for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
      float g[V], h[V], w[V], a[V] = {};
      load<T, V>(dy + base + i, g);
      load<T, V>(x + base + i, h);
      load<T, V>(weight + i, w);
      if (add != nullptr) load<T, V>(add + base + i, a);
#pragma unroll
      for (int j = 0; j < V; ++j) g[j] = r * (g[j] * w[j] - h[j] * r * mean) + a[j];
      save<T, V>(dx + base + i, g);
    }
  }
  for (int64_t i = threadIdx.x * V; i < n; i += kThreads * V) {
#pragma unroll
    for (int j = 0; j < V; ++j) scratch[blockIdx.x * n + i + j] = weight_sum[i + j];
  }
}

/// sum[column] += scratch[0][column] + scratch[1][column] + ..., in that order within each of 8 row groups.
__global__ void __launch_bounds__(kThreads) column_sum_kernel(const float* scratch, float* sum, int blocks, int64_t n) {
  __shared__ float part[kWarps][33];
  const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
  const int64_t column = blockIdx.x * 32 + lane;
  float v = 0;
  if (column < n) {
    for (int b = group; b < blocks; b += kWarps) v += scratch[b * n + column];
  }
  part[group][lane] = v;
  __syncthreads();
  if (group == 0 && column < n) {
    float total = 0;
#pragma unroll
    for (int g = 0; g < kWarps; ++g) total += part[g][lane];
    sum[column] += total;
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(T* x, const float* cos, const float* sin, RopeShape shape, float sign, int64_t vectors) {
  const int64_t per_head = shape.half / V;
  for (int64_t v = blockIdx.x * int64_t{kThreads} + threadIdx.x; v < vectors; v += int64_t{gridDim.x} * kThreads) {
    const int64_t i = v % per_head * V;
    const int64_t head = v / per_head % shape.heads;
    const int64_t batch = v / per_head / shape.heads % shape.batch;
    const int64_t position = v / per_head / shape.heads / shape.batch;
    T* first = x + position * shape.stride_seq + batch * shape.stride_batch + head * shape.stride_head + i;
    T* second = first + shape.half;
    float a[V], b[V], c[V], s[V];
    load<T, V>(first, a);
    load<T, V>(second, b);
    load<float, V>(cos + position * shape.half + i, c);
    load<float, V>(sin + position * shape.half + i, s);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float rotated = a[j] * c[j] - sign * b[j] * s[j];
      b[j] = b[j] * c[j] + sign * a[j] * s[j];
      a[j] = rotated;
    }
    save<T, V>(first, a);
    save<T, V>(second, b);
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(const T* gate_up, T* y, int64_t n, int64_t vectors) {
  const int64_t per_row = n / V;
  for (int64_t v = blockIdx.x * int64_t{kThreads} + threadIdx.x; v < vectors; v += int64_t{gridDim.x} * kThreads) {
    const int64_t row = v / per_row, i = v % per_row * V;
    float gate[V], up[V];
    load<T, V>(gate_up + row * 2 * n + i, gate);
    load<T, V>(gate_up + row * 2 * n + n + i, up);
#pragma unroll
    for (int j = 0; j < V; ++j) up[j] *= gate[j] / (1.0f + expf(-gate[j]));
    save<T, V>(y + row * n + i, up);
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(const T* dy, const T* gate_up, T* grad, int64_t n, int64_t vectors) {
  const int64_t per_row = n / V;
  for (int64_t v = blockIdx.x * int64_t{kThreads} + threadIdx.x; v < vectors; v += int64_t{gridDim.x} * kThreads) {
    const int64_t row = v / per_row, i = v % per_row * V;
    float d[V], gate[V], up[V];
    load<T, V>(dy + row * n + i, d);
    load<T, V>(gate_up + row * 2 * n + i, gate);
    load<T, V>(gate_up + row * 2 * n + n + i, up);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float sigmoid = 1.0f / (1.0f + expf(-gate[j]));
      const float silu = gate[j] * sigmoid;
      gate[j] = d[j] * up[j] * (sigmoid + silu * (1.0f - sigmoid));
      up[j] = d[j] * silu;
    }
    save<T, V>(grad + row * 2 * n + i, gate);
    save<T, V>(grad + row * 2 * n + n + i, up);
  }
}

/// A maximum and the sum of exp(x - maximum): the pair of the online softmax (Milakov and Gimelshein, 2018).
struct SoftmaxSum {
  float max, sum;
};

__device__ inline SoftmaxSum merge(SoftmaxSum a, SoftmaxSum b) {
  const float max = fmaxf(a.max, b.max);
  if (max == -INFINITY) return {max, 0};
  return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_statistics_kernel(const T* logits, const int64_t* labels, float* statistics, int64_t rows,
                                    int64_t columns, int64_t first_column) {
  const int64_t row = blockIdx.x;
  const T* x = logits + row * columns;
  SoftmaxSum mine{-INFINITY, 0};
  for (int64_t i = threadIdx.x * V; i < columns; i += kThreads * V) {
    float v[V];
    load<T, V>(x + i, v);
    float max = v[0];
#pragma unroll
    for (int j = 1; j < V; ++j) max = fmaxf(max, v[j]);
    if (max > mine.max) {
      mine.sum *= expf(mine.max - max);
      mine.max = max;
    }
    if (mine.max == -INFINITY) continue;
#pragma unroll
    for (int j = 0; j < V; ++j) mine.sum += expf(v[j] - mine.max);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other_max = __shfl_xor_sync(0xffffffffu, mine.max, offset);
    mine = merge(mine, {other_max, __shfl_xor_sync(0xffffffffu, mine.sum, offset)});
  }
  __shared__ SoftmaxSum shared[kWarps];
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
  SoftmaxSum all = shared[0];
  for (int w = 1; w < kWarps; ++w) all = merge(all, shared[w]);
  const int64_t column = labels[row] - first_column;
  statistics[row] = all.max;
  statistics[rows + row] = all.sum;
  statistics[2 * rows + row] = column >= 0 && column < columns ? to_float(x[column]) : 0.0f;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_backward_kernel(T* logits, const int64_t* labels, const float* log_sum_exp, int64_t columns,
                                  int64_t first_column, float scale) {
  const int64_t row = blockIdx.x;
  T* x = logits + row * columns;
  const float row_scale = labels[row] < 0 ? 0.0f : scale;
  const float lse = log_sum_exp[row];
  const int64_t column = labels[row] - first_column;
  for (int64_t i = threadIdx.x * V; i < columns; i += kThreads * V) {
    float v[V];
    load<T, V>(x + i, v);
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] = row_scale * (expf(v[j] - lse) - (i + j == column ? 1.0f : 0.0f));
    save<T, V>(x + i, v);
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) adamw_kernel(float* master, float* exp_avg, float* exp_avg_sq,
                                                         const float* grad, T* value, int64_t n, AdamW s) {
  for (int64_t i = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * V; i < n; i += int64_t{gridDim.x} * kThreads * V) {
    float p[V], m[V], v[V], g[V];
    load<float, V>(master + i, p);
    load<float, V>(exp_avg + i, m);
    load<float, V>(exp_avg_sq + i, v);
    load<float, V>(grad + i, g);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float scaled = g[j] * s.grad_scale;
      m[j] = s.beta1 * m[j] + (1.0f - s.beta1) * scaled;
      v[j] = s.beta2 * v[j] + (1.0f - s.beta2) * scaled * scaled;
      p[j] = p[j] * (1.0f - s.lr * s.weight_decay) -
             s.lr / s.correction1 * m[j] / (sqrtf(v[j]) / s.sqrt_correction2 + s.eps);
    }
    save<float, V>(master + i, p);
    save<float, V>(exp_avg + i, m);
    save<float, V>(exp_avg_sq + i, v);
    if (value != nullptr) save<T, V>(value + i, p);
  }
}

bool aligned(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(),
                     [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}

/// Enough blocks to fill any device, few enough that a grid-stride loop amortises their start.
unsigned grid(int64_t vectors) {
  return static_cast<unsigned>(std::clamp<int64_t>((vectors + kThreads - 1) / kThreads, 1, 132 * 16));
}

/// Calls f(T*, vector width constant) for the element type; the width is 1 unless `wide`.
template <typename F>
void dispatch(Element type, bool wide, F&& f) {
  if (type == Element::bf16) {
    if (wide) f(static_cast<__nv_bfloat16*>(nullptr), std::integral_constant<int, 8>{});
    else f(static_cast<__nv_bfloat16*>(nullptr), std::integral_constant<int, 1>{});
  } else {
    if (wide) f(static_cast<float*>(nullptr), std::integral_constant<int, 4>{});
    else f(static_cast<float*>(nullptr), std::integral_constant<int, 1>{});
  }
}

int64_t width(Element type) { return type == Element::bf16 ? 8 : 4; }

}  // namespace

void rms_norm(Element type, const void* x, const void* weight, void* y, float* rstd, int64_t rows, int64_t n, float eps,
              cudaStream_t stream) {
  if (rows == 0 || n == 0) return;
  dispatch(type, n % width(type) == 0 && aligned({x, weight, y}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    rms_norm_kernel<T, v.value><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(y), rstd, n, eps);
  });
}

int rms_norm_backward_blocks(int64_t rows, int multiprocessors) {
  return static_cast<int>(std::min<int64_t>(rows, int64_t{multiprocessors} * 4));
}

void rms_norm_backward(Element type, const void* dy, const void* x, const float* rstd, const void* weight,
                       const void* add, void* dx, float* scratch, float* weight_grad, int64_t rows, int64_t n,
                       int blocks, cudaStream_t stream) {
  if (rows == 0 || n == 0) return;
  const size_t shared_bytes = sizeof(float) * static_cast<size_t>(n);
  dispatch(type, n % width(type) == 0 && aligned({dy, x, weight, add, dx}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    auto* kernel = rms_norm_backward_kernel<T, v.value>;
    if (shared_bytes > 48 * 1024) {
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    }
    kernel<<<blocks, kThreads, shared_bytes, stream>>>(static_cast<const T*>(dy), static_cast<const T*>(x), rstd,
                                                       static_cast<const T*>(weight), static_cast<const T*>(add),
                                                       static_cast<T*>(dx), scratch, rows, n);
  });
  column_sum_kernel<<<static_cast<unsigned>((n + 31) / 32), kThreads, 0, stream>>>(scratch, weight_grad, blocks, n);
}

void rope(Element type, void* x, const float* cos, const float* sin, const RopeShape& shape, bool inverse,
          cudaStream_t stream) {
  const int64_t pairs = shape.seq * shape.batch * shape.heads * shape.half;
  if (pairs == 0) return;
  const int64_t w = width(type);
  const bool wide = shape.half % w == 0 && shape.stride_seq % w == 0 && shape.stride_batch % w == 0 &&
                    shape.stride_head % w == 0 && aligned({x, cos, sin});
  dispatch(type, wide, [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t vectors = pairs / v.value;
    rope_kernel<T, v.value><<<grid(vectors), kThreads, 0, stream>>>(static_cast<T*>(x), cos, sin, shape,
                                                                    inverse ? -1.0f : 1.0f, vectors);
  });
}

void swiglu(Element type, const void* gate_up, void* y, int64_t rows, int64_t n, cudaStream_t stream) {
  if (rows == 0 || n == 0) return;
  dispatch(type, n % width(type) == 0 && aligned({gate_up, y}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t vectors = rows * n / v.value;
    swiglu_kernel<T, v.value><<<grid(vectors), kThreads, 0, stream>>>(static_cast<const T*>(gate_up),
                                                                      static_cast<T*>(y), n, vectors);
  });
}

void swiglu_backward(Element type, const void* dy, const void* gate_up, void* grad, int64_t rows, int64_t n,
                     cudaStream_t stream) {
  if (rows == 0 || n == 0) return;
  dispatch(type, n % width(type) == 0 && aligned({dy, gate_up, grad}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t vectors = rows * n / v.value;
    swiglu_backward_kernel<T, v.value><<<grid(vectors), kThreads, 0, stream>>>(
        static_cast<const T*>(dy), static_cast<const T*>(gate_up), static_cast<T*>(grad), n, vectors);
  });
}

void cross_entropy_statistics(Element type, const void* logits, const int64_t* labels, float* statistics, int64_t rows,
                              int64_t columns, int64_t first_column, cudaStream_t stream) {
  if (rows == 0) return;
  dispatch(type, columns % width(type) == 0 && aligned({logits}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    cross_entropy_statistics_kernel<T, v.value><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<const T*>(logits), labels, statistics, rows, columns, first_column);
  });
}

void cross_entropy_backward(Element type, void* logits, const int64_t* labels, const float* log_sum_exp, int64_t rows,
                            int64_t columns, int64_t first_column, float scale, cudaStream_t stream) {
  if (rows == 0) return;
  dispatch(type, columns % width(type) == 0 && aligned({logits}), [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    cross_entropy_backward_kernel<T, v.value><<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
        static_cast<T*>(logits), labels, log_sum_exp, columns, first_column, scale);
  });
}

void adamw(float* master, float* exp_avg, float* exp_avg_sq, const float* grad, Element value_type, void* value,
           int64_t n, const AdamW& step, cudaStream_t stream) {
  if (n == 0) return;
  const auto launch = [&](auto* t, auto v) {
    using T = std::remove_pointer_t<decltype(t)>;
    adamw_kernel<T, v.value><<<grid(n / v.value), kThreads, 0, stream>>>(master, exp_avg, exp_avg_sq, grad,
                                                                         static_cast<T*>(value), n, step);
  };
  // fp32 state moves in vectors of 4; a bf16 value then moves in 8 bytes.
  const bool wide = n % 4 == 0 && aligned({master, exp_avg, exp_avg_sq, grad, value});
  const auto width_constant = [&](auto* t) {
    if (wide) launch(t, std::integral_constant<int, 4>{});
    else launch(t, std::integral_constant<int, 1>{});
  };
  if (value_type == Element::bf16) width_constant(static_cast<__nv_bfloat16*>(nullptr));
  else width_constant(static_cast<float*>(nullptr));
}

}  // namespace mds::trainer::cuda
