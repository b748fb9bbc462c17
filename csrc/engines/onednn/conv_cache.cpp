// The cache of convolution primitives and its key.
#include <cstring>
#include <new>
#include <utility>

#include "core/fork.h"
#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/lru_cache.h"

namespace tae::onednn {

std::vector<int64_t> ConvSpec::key() const {
  const ConvGeometry& g = geometry;
  std::vector<int64_t> key = {
      deep,     g.transposed,
      g.groups, g.in_channels,
      n,        batch,
      threads,  input_zero_point,
      bias,     static_cast<int64_t>(input_dtype) << 8 | static_cast<int64_t>(output_dtype)};
  for (int axis = 0; axis < 3; ++axis)
    for (const int64_t v : {g.kernel[axis], g.stride[axis], g.padding[axis], g.dilation[axis],
                            input_size[axis], output_size[axis]})
      key.push_back(v);
  for (const PostOp& op : post_ops) {
    uint32_t alpha, beta;
    static_assert(sizeof alpha == sizeof op.alpha);
    std::memcpy(&alpha, &op.alpha, 4);
    std::memcpy(&beta, &op.beta, 4);
    key.push_back(static_cast<int64_t>(op.kind));
    key.push_back(int64_t{alpha} << 32 | beta);
  }
  return key;
}

namespace {

// A network has some 50 convolutions; each size of its input makes one a weight shape.
constexpr size_t kMaxEntries = 512;
using ConvCache = LruCache<std::vector<int64_t>, ConvPrimitivePtr, kMaxEntries>;

ConvCache& cache() {
  const DelayFork delay;
  static ConvCache* instance = new ConvCache;
  return *instance;
}

}  // namespace

ConvPrimitivePtr cached_conv(const ConvSpec& spec, const WeightLayout* layout) {
  std::vector<int64_t> key = spec.key();
  if (layout != nullptr) layout->add_to(&key);
  if (ConvPrimitivePtr found = cache().find(key)) return found;
  // Code generation outside the lock; of two threads that race, one result stays.
  auto made = std::make_shared<const ConvPrimitive>(spec, layout);
  // Not an answer about this shape, so not one to keep.
  if (made->out_of_memory()) throw std::bad_alloc();
  return cache().insert(key, std::move(made));
}

}  // namespace tae::onednn
