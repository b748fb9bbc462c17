// contiguous: the same values in new memory, in the order of the sizes. Convolutions and pools give
// channels last; this is the way back, by threads with pixels of their own on both sides.
#include <algorithm>
#include <cstring>

#include "core/autograd.h"
#include "core/fork.h"
#include "kernels/transpose.h"
#include "ops/channels_last.h"
#include "ops/memory_format.h"

namespace tae {
namespace {

constexpr int64_t kPixels = 64;  // of a block: whole cache lines of each channel, and L1 holds its input

at::Tensor contiguous_bytes(const at::Tensor& input) {
  const Formatted f("contiguous", input, input.scalar_type(), at::MemoryFormat::Contiguous);
  f.for_runs([](const Run& r) { std::memcpy(r.dst, r.src, static_cast<size_t>(r.count)); });
  return f.output();
}

// [N, *S, C] in memory to [N, C, *S].
void from_channels_last(const at::Tensor& from, const at::Tensor& to) {
  const int64_t channels = from.size(1), pixels = from.numel() / from.size(0) / channels;
  const float* src = static_cast<const float*>(from.const_data_ptr());
  float* dst = static_cast<float*>(to.mutable_data_ptr());
  const int64_t blocks = (pixels + kPixels - 1) / kPixels;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / channels / kPixels);
  parallel_for(from.size(0) * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * kPixels, sample = i / blocks * channels * pixels;
      kernels::transpose_floats(src + sample + first * channels, std::min(kPixels, pixels - first), channels,
                                dst + sample + first, pixels);
    }
  });
}

at::Tensor contiguous(const at::Tensor& input) {
  const Arg arg{"contiguous", "input"};
  check_tensor(arg, input, {at::kFloat, at::kBFloat16, at::kByte, at::kChar});
  if (input.element_size() == 1) return contiguous_bytes(input);
  check_storage(arg, input);
  const at::Tensor output = empty_output(arg, input.sizes(), input.scalar_type());
  if (input.scalar_type() == at::kFloat && input.dim() >= 3 && input.numel() > 0 &&
      lies_as(input, channels_last_strides(input.sizes()))) {
    from_channels_last(input, output);
    return output;
  }
  SerialAfterFork serial;  // the copy is torch's and may be parallel
  return output.copy_(input);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) { m.def("contiguous(Tensor input) -> Tensor"); }

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("contiguous", TORCH_FN(contiguous)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("contiguous", TORCH_FN((InferenceOnly<"contiguous", contiguous>::call)));
}

}  // namespace tae
