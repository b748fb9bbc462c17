// The windows of pooling over 1 to 3 spatial dimensions, and the loop over them.
#pragma once

#include <array>

#include "ops/channels_last.h"
#include "ops/elementwise_common.h"

namespace tae {

// The numbers of a schema, one value for each spatial dimension.
struct PoolNumbers {
  int rank = 2;
  at::IntArrayRef kernel;
  at::IntArrayRef stride;
  at::IntArrayRef padding;
  at::IntArrayRef dilation;
  bool ceil_mode = false;
};

using kernels::PoolWindow;

// The windows along one axis; kernel 0 is adaptive: they share the input out evenly.
struct PoolAxis {
  int64_t input = 1, size = 1;
  int64_t kernel = 1, stride = 1, padding = 0, step = 1;

  PoolWindow window(int64_t o) const;
  int64_t most() const;  // positions in a window
};

struct PoolPlan {
  std::array<PoolAxis, 3> axes;
  Sizes sizes;  // [N, C, *S'] of the output
};

// Windows of max_pool and avg_pool as torch.nn.functional places them.
PoolPlan plan_windows(const char* op, const at::Tensor& input, const PoolNumbers& numbers);
// Windows of adaptive_avg_pool.
PoolPlan plan_adaptive(const char* op, const at::Tensor& input, int rank, at::IntArrayRef output_size);

// The windows of every output position along one axis.
std::vector<PoolWindow> windows_of(const Arg& arg, const PoolAxis& axis);

// Neighbouring output positions whose windows have one size: the rows of channels inside the input,
// `count` for each position, and the size of the window with padding.
using PoolBody = void (*)(const void* context, const void* const* rows, int64_t count, int64_t outputs,
                          int64_t padded, void* output);

// Calls body for all output positions, in threads.
at::Tensor run_pool(const char* op, const at::Tensor& input, const PoolPlan& plan, at::ScalarType dtype,
                    PoolBody body, const void* context);

}  // namespace tae
