#include "ops/channels_last.h"

#include "core/fork.h"
#include "core/result_memory.h"

namespace tae {

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

at::Tensor channels_last(const Arg& arg, const at::Tensor& t) {
  check_storage(arg, t);
  const Sizes strides = channels_last_strides(t.sizes());
  bool fits = is_aligned(t);
  for (int64_t d = 0; d < t.dim(); ++d) fits = fits && (t.size(d) == 1 || t.stride(d) == strides[d]);
  if (fits) return t;
  at::Tensor copy = empty_strided(arg, t.sizes(), strides, t.scalar_type());
  SerialAfterFork serial;  // the copy is torch's and may be parallel
  copy.copy_(t);
  return copy;
}

}  // namespace tae
