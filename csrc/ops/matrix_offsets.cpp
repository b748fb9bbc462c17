#include "ops/matrix_offsets.h"

namespace tae {

std::vector<int64_t> matrix_offsets(const Arg& arg, const at::Tensor& t, at::IntArrayRef batch,
                                    int64_t count) {
  std::vector<int64_t> offsets = make_vector<int64_t>(arg, count);
  int64_t filled = 1;
  offsets[0] = 0;
  // Innermost dimension first: each repeats what is there, shifted by its stride.
  for (int64_t i = 0; i < static_cast<int64_t>(batch.size()); ++i) {
    const int64_t size = batch[batch.size() - 1 - static_cast<size_t>(i)];
    const int64_t d = t.dim() - 3 - i;
    const int64_t stride = d < 0 || t.size(d) == 1 ? 0 : t.stride(d);
    for (int64_t j = 1; j < size; ++j)
      for (int64_t f = 0; f < filled; ++f) offsets[j * filled + f] = offsets[f] + j * stride;
    filled *= size;
  }
  return offsets;
}

}  // namespace tae
