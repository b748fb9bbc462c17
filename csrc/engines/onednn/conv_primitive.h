// oneDNN's convolution and deconvolution primitives, and a cache of them.
//
// The epilogue follows the rule of engines/linear.h to the bit: one f32 product of the
// accumulator, one f32 sum with the bias, clamps, a product and a sum for `affine`, a true division (a
// post-op of the user's: oneDNN's own output scale multiplies by a reciprocal), rounding before the output's
// zero point is added.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/post_ops.h"
#include "engines/conv.h"

struct dnnl_memory_desc;
struct dnnl_primitive;

namespace tae::onednn {

struct ArgumentDesc;

// Everything that makes a primitive.
struct ConvSpec {
  ConvGeometry geometry;
  int64_t n = 0;
  DType input_dtype = DType::qu8;
  DType output_dtype = DType::s32;  // s32: accumulators, without what follows
  bool input_zero_point = false;
  bool bias = false;
  PostOps post_ops;  // relu, clamp and affine
  int threads = 1;

  bool deep = false;  // three spatial dimensions; else axis 0 has size 1
  int64_t batch = 1;
  int64_t input_size[3] = {1, 1, 1};
  int64_t output_size[3] = {1, 1, 1};

  std::vector<int64_t> key() const;
};

// A weights layout of oneDNN's choice.
class WeightLayout {
 public:
  explicit WeightLayout(const dnnl_memory_desc* desc);
  ~WeightLayout();
  WeightLayout(const WeightLayout&) = delete;
  WeightLayout& operator=(const WeightLayout&) = delete;

  const dnnl_memory_desc* desc() const { return desc_; }
  size_t bytes() const;
  void add_to(std::vector<int64_t>* key) const;
  // weight [n][tap][channel of the group] into zeroed memory of bytes(), with the sums that
  // oneDNN keeps behind it. oneDNN's own reorder does 0.1 GB/s.
  void pack(const ConvSpec& spec, const int8_t* weight, uint8_t* packed) const;

 private:
  dnnl_memory_desc* desc_ = nullptr;
};
using WeightLayoutPtr = std::shared_ptr<const WeightLayout>;

// Where the operands of one call are.
struct ConvOperands {
  const void* input = nullptr;
  const void* weight = nullptr;
  const float* bias = nullptr;
  const float* scale = nullptr;  // [n]: s_x * s_w
  const int32_t* input_zero_point = nullptr;
  const float* affine_weight = nullptr;  // [n], with the post-op affine, as the next
  const float* affine_bias = nullptr;
  const float* output_scale = nullptr;
  const int32_t* output_zero_point = nullptr;
  void* output = nullptr;
  void* scratchpad = nullptr;  // scratchpad_bytes(), 64-byte aligned
};

class ConvPrimitive {
 public:
  // layout null: oneDNN's choice.
  ConvPrimitive(const ConvSpec& spec, const WeightLayout* layout);
  ~ConvPrimitive();
  ConvPrimitive(const ConvPrimitive&) = delete;
  ConvPrimitive& operator=(const ConvPrimitive&) = delete;

  // Empty, or why it must not be used: creation failed, or oneDNN fell back to loops (10
  // to 1000 times slower) or to products that saturate in int16.
  const std::string& error() const { return error_; }
  bool out_of_memory() const { return out_of_memory_; }
  const std::string& implementation() const { return implementation_; }
  size_t scratchpad_bytes() const { return scratchpad_bytes_; }
  // Null with an error().
  const WeightLayoutPtr& layout() const { return layout_; }

  // Thread-safe.
  void run(const ConvOperands& operands) const;

 private:
  struct Builder;
  void build(const ConvSpec& spec, const WeightLayout* layout);
  uint64_t id_;
  dnnl_primitive* primitive_ = nullptr;
  std::vector<ArgumentDesc> arguments_;  // owned
  WeightLayoutPtr layout_;
  size_t scratchpad_bytes_ = 0;
  std::string implementation_, error_;
  int divisor_arg_ = -1, factor_arg_ = -1, shift_arg_ = -1;
  bool out_of_memory_ = false;
};
using ConvPrimitivePtr = std::shared_ptr<const ConvPrimitive>;

// From a process-wide cache with bounded size, least recently used out first. The layout
// is one that a primitive of the same weight chose. Throws std::bad_alloc.
ConvPrimitivePtr cached_conv(const ConvSpec& spec, const WeightLayout* layout);

}  // namespace tae::onednn
