#include "ops/conv_input.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "kernels/rows.h"
#include "kernels/vec_float_env.h"
#include "ops/channels_last.h"

namespace tae {
namespace {

constexpr int64_t kBlock = 32768;  // elements that one thread reads at a time: about 3 us

struct Range {
  float min = 0.f;
  float max = 0.f;
};

// Opaque to the compiler, which would move arithmetic across DefaultFloatEnv.
[[gnu::noipa]] kernels::QParams apply_rule(const Range& r, const DynamicQuant& rule) {
  return rule.per_row ? kernels::row_qparams(r.min, r.max, rule.symmetric, rule.reduce_range)
                      : kernels::tensor_qparams(r.min, r.max, rule.symmetric, rule.reduce_range);
}
[[gnu::noipa]] float inverse_of(float scale) { return 1.f / scale; }

// Images as they lie in memory: `count` of `size` elements, one behind the other.
struct Images {
  const uint8_t* data = nullptr;
  bool bf16 = false;
  int64_t count = 0;
  int64_t size = 0;

  int64_t blocks() const { return (size + kBlock - 1) / kBlock; }
  const void* element(int64_t i) const { return data + i * (bf16 ? 2 : 4); }

  // Calls body(image, first element of the image, elements) for every block, in parallel.
  template <typename Body>
  void for_blocks(const Body& body) const {
    const int64_t each = blocks();
    const int64_t grain = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, size));
    parallel_for(count * each, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % each * kBlock;
        body(i / each, first, std::min(kBlock, size - first));
      }
    });
  }
};

std::vector<Range> ranges_of(const Arg& arg, const Images& images, const kernels::RowKernels& k) {
  // One slot a block, so that the result does not depend on the threads.
  std::vector<Range> parts = make_vector<Range>(arg, images.count * images.blocks());
  images.for_blocks([&](int64_t image, int64_t first, int64_t count) {
    Range& r = parts[static_cast<size_t>(image * images.blocks() + first / kBlock)];
    const void* src = images.element(image * images.size + first);
    if (images.bf16)
      k.min_max_bf16(static_cast<const uint16_t*>(src), count, &r.min, &r.max);
    else
      k.min_max_f32(static_cast<const float*>(src), count, &r.min, &r.max);
  });
  std::vector<Range> ranges = make_vector<Range>(arg, images.count);
  for (size_t i = 0; i < parts.size(); ++i) {
    Range& r = ranges[i / static_cast<size_t>(images.blocks())];
    if (std::isnan(r.min)) continue;  // and stays NaN
    r.min = std::isnan(parts[i].min) ? parts[i].min : std::min(r.min, parts[i].min);
    r.max = std::isnan(parts[i].max) ? parts[i].max : std::max(r.max, parts[i].max);
  }
  return ranges;
}

}  // namespace

QuantizedImages quantize_images(const Arg& arg, const at::Tensor& input, const DynamicQuant& rule) {
  check_storage(arg, input);
  // Any order inside an image is kept; the integers are permuted, not the floats.
  const Sizes last = channels_last_strides(input.sizes());
  const bool as_it_lies = input.strides() == at::IntArrayRef(last);
  const at::Tensor plain = as_it_lies ? input : dense(arg, input);
  QuantizedImages result;
  result.data = empty_strided(arg, plain.sizes(), plain.strides(), at::kByte);
  uint8_t* const dst = static_cast<uint8_t*>(result.data.mutable_data_ptr());

  Images images;
  images.data = static_cast<const uint8_t*>(plain.const_data_ptr());
  images.bf16 = plain.scalar_type() == at::kBFloat16;
  images.count = rule.per_row ? plain.size(0) : 1;
  images.size = plain.numel() / images.count;
  const kernels::RowKernels& k = kernels::row_kernels(best_isa());
  const std::vector<Range> ranges = ranges_of(arg, images, k);

  const kernels::QRange bounds = kernels::dynamic_range(rule.symmetric, rule.reduce_range);
  std::vector<float> inverse = make_vector<float>(arg, images.count);
  result.qparams = make_vector<kernels::QParams>(arg, images.count);
  {
    const kernels::DefaultFloatEnv env;
    for (size_t i = 0; i < ranges.size(); ++i) {
      kernels::QParams q = apply_rule(ranges[i], rule);
      q.zero_point += bounds.shift;
      if (!std::isfinite(q.scale)) q = {std::nanf(""), 0};
      inverse[i] = inverse_of(q.scale);
      result.qparams[i] = q;
    }
  }
  images.for_blocks([&](int64_t image, int64_t first, int64_t count) {
    const kernels::QParams& q = result.qparams[static_cast<size_t>(image)];
    const int64_t at = image * images.size + first;
    if (std::isnan(q.scale)) {
      std::memset(dst + at, 0, static_cast<size_t>(count));
      return;
    }
    const float scale = inverse[static_cast<size_t>(image)];
    const int32_t lo = bounds.lo + bounds.shift, hi = bounds.hi + bounds.shift;
    if (images.bf16)
      k.quantize_bf16(static_cast<const uint16_t*>(images.element(at)), count, scale, q.zero_point, lo, hi,
                      dst + at, count);
    else
      k.quantize_f32(static_cast<const float*>(images.element(at)), count, scale, q.zero_point, lo, hi,
                     dst + at, count);
  });
  return result;
}

}  // namespace tae
