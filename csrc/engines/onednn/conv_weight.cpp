// The packer behind WeightLayout: any blocked layout, because each dimension adds its own
// part to the place of an element.
#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/runtime.h"

namespace tae::onednn {
namespace {

constexpr int64_t kPackGrain = 64 << 10;  // bytes of weight that a thread packs at least

// dims: [group][n of the group][channel of the group][taps ...], without the group when
// there is one.
struct Blocks {
  int ndims = 0;
  dnnl_dims_t padded{}, strides{};
  int inner = 0;
  dnnl_dims_t inner_size{}, inner_dim{};

  explicit Blocks(const dnnl_memory_desc* desc) {
    const auto dims = [&](dnnl_query_t what, dnnl_dims_t& into, int count) {
      const dnnl_dims_t* values = nullptr;
      check(dnnl_memory_desc_query(desc, what, &values), "dnnl_memory_desc_query");
      std::copy_n(*values, count, into);
    };
    check(dnnl_memory_desc_query(desc, dnnl_query_ndims_s32, &ndims), "dnnl_memory_desc_query");
    check(dnnl_memory_desc_query(desc, dnnl_query_inner_nblks_s32, &inner), "dnnl_memory_desc_query");
    dims(dnnl_query_padded_dims, padded, ndims);
    dims(dnnl_query_strides, strides, ndims);
    dims(dnnl_query_inner_blks, inner_size, inner);
    dims(dnnl_query_inner_idxs, inner_dim, inner);
  }

  int64_t data_bytes() const {
    int64_t bytes = 1;
    for (int d = 0; d < ndims; ++d) bytes *= padded[d];
    return bytes;
  }

  // What position `at` of dimension `dim` adds to the place of an element.
  int64_t place(int dim, int64_t at) const {
    int64_t offset = 0, stride = 1;
    for (int i = inner - 1; i >= 0; --i) {
      if (inner_dim[i] == dim) {
        offset += at % inner_size[i] * stride;
        at /= inner_size[i];
      }
      stride *= inner_size[i];
    }
    return offset + at * strides[dim];
  }
  std::vector<int64_t> places(int dim, int64_t count) const {
    std::vector<int64_t> all(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) all[static_cast<size_t>(i)] = place(dim, i);
    return all;
  }
};

}  // namespace

WeightLayout::WeightLayout(const dnnl_memory_desc* desc) {
  check(dnnl_memory_desc_clone(&desc_, desc), "dnnl_memory_desc_clone");
}

WeightLayout::~WeightLayout() { dnnl_memory_desc_destroy(desc_); }

size_t WeightLayout::bytes() const { return dnnl_memory_desc_get_size(desc_); }

void WeightLayout::add_to(std::vector<int64_t>* key) const {
  const Blocks blocks(desc_);
  key->push_back(static_cast<int64_t>(bytes()));
  key->insert(key->end(), blocks.strides, blocks.strides + blocks.ndims);
  key->insert(key->end(), blocks.inner_size, blocks.inner_size + blocks.inner);
  key->insert(key->end(), blocks.inner_dim, blocks.inner_dim + blocks.inner);
}

void WeightLayout::pack(const ConvSpec& spec, const int8_t* weight, uint8_t* packed) const {
  const Blocks blocks(desc_);
  const ConvGeometry& g = spec.geometry;
  const bool grouped = g.groups > 1;
  const int first = grouped ? 1 : 0;
  const int64_t group_n = spec.n / g.groups, channels = g.group_channels();
  const std::vector<int64_t> at_n = blocks.places(first, group_n);
  const std::vector<int64_t> at_c = blocks.places(first + 1, channels);
  std::vector<int64_t> at_tap;
  const int axis0 = spec.deep ? 0 : 1;
  for (int64_t i = 0; i < (axis0 == 0 ? g.kernel[0] : 1); ++i)
    for (int64_t j = 0; j < g.kernel[1]; ++j)
      for (int64_t k = 0; k < g.kernel[2]; ++k) {
        const int64_t tap[3] = {i, j, k};
        int64_t at = 0;
        for (int axis = axis0; axis < 3; ++axis) at += blocks.place(first + 2 + axis - axis0, tap[axis]);
        at_tap.push_back(at);
      }

  // Behind the data, one sum for each column of the padded layout: first, for signed input
  // on CPUs that multiply unsigned by signed, -128 times the sum of its weights; then, for
  // an input zero point, -1 times it.
  const int64_t data = blocks.data_bytes();
  const int64_t columns = blocks.padded[first] * (grouped ? blocks.padded[0] : 1);
  const auto sums = (static_cast<int64_t>(bytes()) - data) / (4 * columns);
  const bool shifted = sums > (spec.input_zero_point ? 1 : 0);
  int32_t* const extra = reinterpret_cast<int32_t*>(packed + data);

  const int64_t k = static_cast<int64_t>(at_tap.size()) * channels;
  parallel_for(spec.n, std::max<int64_t>(1, kPackGrain / k), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t group = n / group_n, column = n % group_n;
      const int8_t* w = weight + n * k;
      const int64_t start = at_n[static_cast<size_t>(column)] + (grouped ? blocks.place(0, group) : 0);
      int32_t sum = 0;
      for (const int64_t tap : at_tap)
        for (const int64_t c : at_c) {
          sum += *w;
          packed[start + tap + c] = static_cast<uint8_t>(*w++);
        }
      int32_t* to = extra + group * blocks.padded[first] + column;
      if (shifted) {
        *to = -128 * sum;
        to += columns;
      }
      if (spec.input_zero_point && sums > 0) *to = -sum;
    }
  });
}

}  // namespace tae::onednn
