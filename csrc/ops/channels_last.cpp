#include "ops/channels_last.h"

#include <algorithm>

#include "core/fork.h"
#include "core/parallel.h"
#include "core/result_memory.h"
#include "kernels/transpose.h"

namespace tae {
namespace {

constexpr int64_t kGrain = 1 << 14;  // bytes worth a thread

// Bytes [N, C, *S], contiguous, to channels last.
void transpose(const at::Tensor& from, const at::Tensor& to) {
  const int64_t channels = from.size(1), pixels = from.numel() / from.size(0) / channels;
  const uint8_t* src = static_cast<const uint8_t*>(from.const_data_ptr());
  uint8_t* dst = static_cast<uint8_t*>(to.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(16, kGrain / channels);
  parallel_for(from.size(0) * pixels, grain, [&](int64_t begin, int64_t end) {
    uint8_t* const last = dst + end * channels;
    while (begin < end) {
      const int64_t sample = begin / pixels, first = begin % pixels;
      const int64_t count = std::min(end - begin, pixels - first);
      const kernels::ByteRows matrix = {src + sample * channels * pixels, channels, pixels};
      kernels::transpose_bytes(matrix, first, first + count, {dst + begin * channels, channels, last});
      begin += count;
    }
  });
}

}  // namespace

Sizes channels_last_strides(at::IntArrayRef sizes) {
  Sizes strides(sizes.size(), 1);
  uint64_t step = static_cast<uint64_t>(sizes[1]);  // of an empty tensor it may wrap
  for (size_t d = sizes.size() - 1; d >= 2; --d) {
    strides[d] = static_cast<int64_t>(step);
    step *= static_cast<uint64_t>(sizes[d]);
  }
  strides[0] = static_cast<int64_t>(step);
  return strides;
}

at::Tensor empty_strided(const Arg& arg, at::IntArrayRef sizes, at::IntArrayRef strides,
                         at::ScalarType dtype) {
  return allocate(arg, sizes, [&] { return new_tensor(sizes, strides, dtype); });
}

bool lies_as(const at::Tensor& t, at::IntArrayRef strides) {
  bool fits = is_aligned(t);
  for (int64_t d = 0; d < t.dim(); ++d) fits = fits && (t.size(d) == 1 || t.stride(d) == strides[d]);
  return fits;
}

at::Tensor copy_as(const Arg& arg, const at::Tensor& t, at::IntArrayRef strides) {
  at::Tensor copy = empty_strided(arg, t.sizes(), strides, t.scalar_type());
  SerialAfterFork serial;  // torch's copy may be parallel
  return copy.copy_(t);
}

at::Tensor channels_last(const Arg& arg, const at::Tensor& t) {
  check_storage(arg, t);
  const Sizes strides = channels_last_strides(t.sizes());
  if (lies_as(t, strides)) return t;
  if (t.element_size() != 1 || t.numel() == 0 || !t.is_contiguous()) return copy_as(arg, t, strides);
  const at::Tensor copy = empty_strided(arg, t.sizes(), strides, t.scalar_type());
  transpose(t, copy);
  return copy;
}

}  // namespace tae
