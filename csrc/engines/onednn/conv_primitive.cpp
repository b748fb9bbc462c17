#include "engines/onednn/conv_primitive.h"

#include <oneapi/dnnl/dnnl.h>

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "core/fork.h"
#include "engines/onednn/runtime.h"
#include "engines/onednn/thread_args.h"

namespace tae::onednn {
namespace {

dnnl_data_type_t type_of(DType dtype) {
  switch (dtype) {
    case DType::qu8:
      return dnnl_u8;
    case DType::qs8:
      return dnnl_s8;
    case DType::f32:
      return dnnl_f32;
    default:
      return dnnl_s32;
  }
}

// Code that is written for the shape ("gemm" and "ref" are loops), with dot products that
// do not saturate. oneDNN goes on to kernels of lower levels when the weights do not have
// the layout that its best one wants.
bool is_fast_and_exact(const std::string& implementation) {
  const auto has = [&](const char* word) { return implementation.find(word) != std::string::npos; };
  return (has("brg") || has("brdgmm") || has("jit")) && !has("gemm") && !has("ref") &&
         (has("vnni") || has("amx"));
}

}  // namespace

// Calls of oneDNN's constructors, as long as all goes well.
struct ConvPrimitive::Builder {
  const ConvSpec& spec;
  dnnl_status_t status = dnnl_success;
  dnnl_primitive_attr_t attr = nullptr;
  dnnl_primitive_desc_t primitive_desc = nullptr;
  std::vector<dnnl_memory_desc_t> owned;

  explicit Builder(const ConvSpec& s) : spec(s) { add(dnnl_primitive_attr_create(&attr)); }
  ~Builder() {
    for (dnnl_memory_desc_t d : owned) dnnl_memory_desc_destroy(d);
    dnnl_primitive_desc_destroy(primitive_desc);
    dnnl_primitive_attr_destroy(attr);
  }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  void add(dnnl_status_t result) {
    if (status == dnnl_success) status = result;
  }
  int spatial() const { return spec.deep ? 3 : 2; }
  const int64_t* tail(const int64_t* values) const { return values + 3 - spatial(); }

  dnnl_memory_desc_t desc(const std::vector<int64_t>& dims, dnnl_data_type_t type, dnnl_format_tag_t tag) {
    dnnl_memory_desc_t d = nullptr;
    dnnl_dims_t sizes{};
    std::copy(dims.begin(), dims.end(), sizes);
    if (status == dnnl_success)
      add(dnnl_memory_desc_create_with_tag(&d, static_cast<int>(dims.size()), sizes, type, tag));
    if (d != nullptr) owned.push_back(d);
    return d;
  }
  dnnl_memory_desc_t image(int64_t channels, const int64_t* size, DType type) {
    std::vector<int64_t> dims = {spec.batch, channels};
    dims.insert(dims.end(), tail(size), tail(size) + spatial());
    return desc(dims, type_of(type), spatial() == 3 ? dnnl_ndhwc : dnnl_nhwc);
  }
  dnnl_memory_desc_t vector(int64_t count, dnnl_data_type_t type) { return desc({count}, type, dnnl_a); }
  // One number, or one for each channel, for all pixels.
  dnnl_memory_desc_t numbers(int64_t channels) {
    std::vector<int64_t> dims(static_cast<size_t>(spatial() + 2), 1);
    dims[1] = channels;
    return desc(dims, dnnl_f32, spatial() == 3 ? dnnl_ndhwc : dnnl_nhwc);
  }
  dnnl_memory_desc_t any_weight() {
    const ConvGeometry& g = spec.geometry;
    std::vector<int64_t> dims;
    if (g.groups > 1) dims.push_back(g.groups);
    dims.push_back(spec.n / g.groups);
    dims.push_back(g.group_channels());
    dims.insert(dims.end(), tail(g.kernel), tail(g.kernel) + spatial());
    return desc(dims, dnnl_s8, dnnl_format_tag_any);
  }

  // The padding behind the input. Both directions allow what a step would leave over.
  int64_t right(int axis) const {
    const ConvGeometry& g = spec.geometry;
    const int64_t reach = (g.kernel[axis] - 1) * g.dilation[axis];
    const int64_t in = spec.input_size[axis], out = spec.output_size[axis];
    const int64_t least = g.transposed ? (in - 1) * g.stride[axis] + reach + 1 - out - g.padding[axis]
                                       : (out - 1) * g.stride[axis] + reach + 1 - in - g.padding[axis];
    return least >= 0 ? least : std::min<int64_t>(0, least + g.stride[axis] - 1);
  }

  // Indices among the post-ops of what has an operand, -1: none.
  struct WithOperand {
    int product = -1, division = -1;  // the sum of affine follows its product
  };
  WithOperand post_ops() {
    WithOperand found;
    dnnl_post_ops_t ops = nullptr;
    add(dnnl_post_ops_create(&ops));
    if (status != dnnl_success) return found;
    for (const PostOp& op : spec.post_ops) {
      if (op.kind == PostOp::Kind::relu) {
        add(dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, 0.f, 0.f));
      } else if (op.kind == PostOp::Kind::clamp) {
        add(dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_clip, op.alpha, op.beta));
      } else {
        found.product = dnnl_post_ops_len(ops);
        add(dnnl_post_ops_append_binary(ops, dnnl_binary_mul, numbers(spec.n)));
        add(dnnl_post_ops_append_binary(ops, dnnl_binary_add, numbers(spec.n)));
      }
    }
    if (is_quantized(spec.output_dtype)) {
      found.division = dnnl_post_ops_len(ops);
      add(dnnl_post_ops_append_binary(ops, dnnl_binary_div, numbers(1)));
      add(dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_round, 0.f, 0.f));
    }
    add(dnnl_primitive_attr_set_post_ops(attr, ops));
    dnnl_post_ops_destroy(ops);
    return found;
  }
};

ConvPrimitive::ConvPrimitive(const ConvSpec& spec, const WeightLayout* layout) : id_(next_primitive_id()) {
  try {
    build(spec, layout);
  } catch (const std::bad_alloc&) {
    error_ = "out of memory";
    out_of_memory_ = true;
  }
}

void ConvPrimitive::build(const ConvSpec& spec, const WeightLayout* layout) {
  const DelayFork delay;  // oneDNN's own primitive cache has a lock
  const CreationThreads threads(spec.threads);
  const ConvGeometry& g = spec.geometry;
  const bool raw = spec.output_dtype == DType::s32;
  Builder b(spec);
  const dnnl_memory_desc_t src = b.image(g.in_channels, spec.input_size, spec.input_dtype);
  const dnnl_memory_desc_t dst = b.image(spec.n, spec.output_size, spec.output_dtype);
  const dnnl_memory_desc_t bias = spec.bias ? b.vector(spec.n, dnnl_f32) : nullptr;
  const const_dnnl_memory_desc_t weight = layout != nullptr ? layout->desc() : b.any_weight();
  // In library mode a scratchpad belongs to the primitive: no concurrent calls.
  b.add(dnnl_primitive_attr_set_scratchpad_mode(b.attr, dnnl_scratchpad_mode_user));
  if (!raw) b.add(dnnl_primitive_attr_set_scales_mask(b.attr, DNNL_ARG_WEIGHTS, g.groups > 1 ? 3 : 1));
  if (spec.input_zero_point) b.add(dnnl_primitive_attr_set_zero_points_mask(b.attr, DNNL_ARG_SRC, 0));
  if (is_quantized(spec.output_dtype))
    b.add(dnnl_primitive_attr_set_zero_points_mask(b.attr, DNNL_ARG_DST, 0));
  const Builder::WithOperand with_operand = raw ? Builder::WithOperand{} : b.post_ops();
  dnnl_dims_t strides{}, dilations{}, left{}, right{};
  for (int i = 0; i < b.spatial(); ++i) {
    const int axis = 3 - b.spatial() + i;
    strides[i] = g.stride[axis];
    dilations[i] = g.dilation[axis] - 1;
    left[i] = g.padding[axis];
    right[i] = b.right(axis);
  }
  dnnl_primitive_desc_t& desc = b.primitive_desc;
  if (b.status == dnnl_success)
    b.add(g.transposed ? dnnl_deconvolution_forward_primitive_desc_create(
                             &desc, engine_handle(), dnnl_forward_inference, dnnl_deconvolution_direct, src,
                             weight, bias, dst, strides, dilations, left, right, b.attr)
                       : dnnl_convolution_forward_primitive_desc_create(
                             &desc, engine_handle(), dnnl_forward_inference, dnnl_convolution_direct, src,
                             weight, bias, dst, strides, dilations, left, right, b.attr));
  if (b.status == dnnl_success) {
    const char* name = "";
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    implementation_ = name;
    if (!is_fast_and_exact(implementation_)) error_ = "oneDNN chose " + implementation_;
  }
  const auto argument = [&](int arg, const_dnnl_memory_desc_t d) {
    dnnl_memory_desc_t copy = nullptr;
    b.add(dnnl_memory_desc_clone(&copy, d));
    if (copy != nullptr) arguments_.push_back({arg, copy});
  };
  if (b.status == dnnl_success && error_.empty()) {
    const const_dnnl_memory_desc_t scratchpad =
        dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    const const_dnnl_memory_desc_t packed = dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    scratchpad_bytes_ = dnnl_memory_desc_get_size(scratchpad);
    layout_ = std::make_shared<const WeightLayout>(packed);
    // In the order of ConvOperands.
    argument(DNNL_ARG_SRC, src);
    argument(DNNL_ARG_WEIGHTS, packed);
    if (spec.bias) argument(DNNL_ARG_BIAS, bias);
    if (!raw) argument(DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, b.vector(spec.n, dnnl_f32));
    if (spec.input_zero_point) argument(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC, b.vector(1, dnnl_s32));
    const auto post_op_argument = [&](int index, int64_t count) {
      const int arg = DNNL_ARG_ATTR_MULTIPLE_POST_OP(index) | DNNL_ARG_SRC_1;
      argument(arg, b.numbers(count));
      return arg;
    };
    if (with_operand.product >= 0) {
      factor_arg_ = post_op_argument(with_operand.product, spec.n);
      shift_arg_ = post_op_argument(with_operand.product + 1, spec.n);
    }
    if (with_operand.division >= 0) {
      divisor_arg_ = post_op_argument(with_operand.division, 1);
      argument(DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST, b.vector(1, dnnl_s32));
    }
    argument(DNNL_ARG_DST, dst);
    argument(DNNL_ARG_SCRATCHPAD, scratchpad);
    if (b.status == dnnl_success) b.add(dnnl_primitive_create(&primitive_, desc));
  }
  if (b.status != dnnl_success) error_ = "oneDNN: status " + std::to_string(b.status);
  out_of_memory_ = b.status == dnnl_out_of_memory;
}

ConvPrimitive::~ConvPrimitive() {
  dnnl_primitive_destroy(primitive_);
  for (const ArgumentDesc& a : arguments_) dnnl_memory_desc_destroy(const_cast<dnnl_memory_desc_t>(a.desc));
}

void ConvPrimitive::run(const ConvOperands& o) const {
  const std::vector<dnnl_exec_arg_t>& args = thread_args(id_, arguments_.data(), arguments_.size());
  for (const dnnl_exec_arg_t& a : args) {
    const void* at = nullptr;
    if (a.arg == DNNL_ARG_SRC)
      at = o.input;
    else if (a.arg == DNNL_ARG_WEIGHTS)
      at = o.weight;
    else if (a.arg == DNNL_ARG_BIAS)
      at = o.bias;
    else if (a.arg == (DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS))
      at = o.scale;
    else if (a.arg == (DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_SRC))
      at = o.input_zero_point;
    else if (a.arg == factor_arg_)
      at = o.affine_weight;
    else if (a.arg == shift_arg_)
      at = o.affine_bias;
    else if (a.arg == divisor_arg_)
      at = o.output_scale;
    else if (a.arg == (DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST))
      at = o.output_zero_point;
    else if (a.arg == DNNL_ARG_DST)
      at = o.output;
    else
      at = o.scratchpad;
    check(dnnl_memory_set_data_handle(a.memory, const_cast<void*>(at)), "dnnl_memory_set_data_handle");
  }
  check(dnnl_primitive_execute(primitive_, thread_stream(), static_cast<int>(args.size()), args.data()),
        "dnnl_primitive_execute");
}

}  // namespace tae::onednn
