// softmax: y = quantize(softmax(x)) along one dimension,
//   x = (input - input_zero_point) * input_scale + attn_mask   quantized input
//   x = input * input_scale + attn_mask                        float input: scores of attention
//
// The output is contiguous. Steps and rounding in kernels/softmax.h: a quantized result is
// within one step of that of f64. Float outputs leave the quantize out.
#include "kernels/softmax.h"

#include "core/autograd.h"
#include "core/fork.h"
#include "engines/input_rows.h"
#include "ops/elementwise_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptTensor = std::optional<Tensor>;

// Elements a thread takes at least: about 5 us of work.
constexpr int64_t kSoftmaxGrain = 8192;

kernels::SoftmaxParams check_params(const char* op, const Tensor& input, double input_scale,
                                    int64_t input_zero_point, double output_scale, int64_t output_zero_point,
                                    at::ScalarType dtype) {
  const Arg scale_arg{op, "input_scale"}, zero_point_arg{op, "input_zero_point"};
  check_tensor({op, "input"}, input, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  check_dtype({op, "output_dtype"}, dtype, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  kernels::SoftmaxParams p;
  p.input_dtype = dtype_of(input.scalar_type());
  p.input_scale = check_scale(scale_arg, input_scale);
  if (is_quantized(p.input_dtype)) {
    p.input_zero_point = check_zero_point(zero_point_arg, input_zero_point, quant_min(p.input_dtype),
                                          quant_max(p.input_dtype));
  } else {
    TAE_CHECK_VALUE(input_zero_point == 0, zero_point_arg, "be 0 for a float input", input_zero_point);
  }
  p.output_dtype = dtype_of(dtype);
  p.output_zero_point = check_output_qparams(op, p.output_dtype, output_scale, output_zero_point).zero_point;
  if (is_quantized(p.output_dtype)) p.inverse_scale = inverse_of(output_scale);
  return p;
}

// The mask, its last dimension along the memory, with the strides that expanding to
// `sizes` gives it (0 where it repeats).
struct Mask {
  Tensor owner;
  const float* data = nullptr;
  std::vector<int64_t> strides;
};

Mask check_mask(const char* op, const OptTensor& mask, const Tensor& input, int64_t dim) {
  Mask result;
  if (!present(mask)) return result;
  const Arg arg{op, "attn_mask"};
  check_tensor(arg, *mask, {at::kFloat});
  TAE_CHECK_VALUE(expands(mask->sizes(), input.sizes()), arg,
                  c10::str("have sizes that expand to input's ", input.sizes()),
                  c10::str("sizes ", mask->sizes()));
  if (input.numel() == 0) return result;
  check_storage(arg, *mask);
  Tensor t = mask->expand(input.sizes()).movedim(dim, -1);
  if (t.size(-1) > 1 && t.stride(-1) != 1) {
    SerialAfterFork serial;  // the copy is torch's and may be parallel
    t = allocate(arg, t.sizes(), [&] { return t.contiguous(); });
  }
  result.data = static_cast<const float*>(t.const_data_ptr());
  result.strides.assign(t.strides().begin(), t.strides().end() - 1);
  result.owner = std::move(t);
  return result;
}

// Walks the mask's rows in order, from any row on.
class MaskRows {
 public:
  MaskRows(const Mask& mask, at::IntArrayRef sizes, int64_t row) : mask_(mask), sizes_(sizes) {
    if (mask.data == nullptr) return;
    at_.resize(mask.strides.size());
    for (size_t d = at_.size(); d-- > 0; row /= sizes[d]) {
      at_[d] = row % sizes[d];
      offset_ += at_[d] * mask.strides[d];
    }
  }
  const float* row() const { return mask_.data == nullptr ? nullptr : mask_.data + offset_; }
  void next() {
    for (size_t d = at_.size(); d-- > 0;) {
      offset_ += mask_.strides[d];
      if (++at_[d] < sizes_[d]) return;
      offset_ -= sizes_[d] * mask_.strides[d];
      at_[d] = 0;
    }
  }

 private:
  const Mask& mask_;
  const at::IntArrayRef sizes_;
  std::vector<int64_t> at_;
  int64_t offset_ = 0;
};

// Rows of x, whose last dimension is the one of the softmax, to a contiguous y.
void run_rows(const Arg& arg, const kernels::SoftmaxParams& p, const Tensor& x, const Mask& mask,
              const Tensor& y) {
  const RowView rows = rows_of(arg, x);
  const int64_t count = x.size(-1);
  const int64_t in_bytes = size_of_element(x), out_bytes = size_of_element(y);
  const uint8_t* src = static_cast<const uint8_t*>(rows.data);
  uint8_t* dst = static_cast<uint8_t*>(y.mutable_data_ptr());
  const kernels::SoftmaxKernels& k = kernels::softmax_kernels(best_isa());
  try {
    parallel_for(rows.rows, 1 + kSoftmaxGrain / count, [&](int64_t begin, int64_t end) {
      const ScratchMemory scratch(static_cast<size_t>(count) * sizeof(float));
      MaskRows masks(mask, x.sizes(), begin);
      for (int64_t r = begin; r < end; ++r, masks.next())
        k.row(p, src + r * rows.stride * in_bytes, masks.row(), count,
              reinterpret_cast<float*>(scratch.data()), dst + r * count * out_bytes);
    });
  } catch (const std::bad_alloc&) {
    raise_out_of_memory(arg, x.sizes());
  }
}

Tensor softmax(const Tensor& input, int64_t dim, double input_scale, int64_t input_zero_point,
               double output_scale, int64_t output_zero_point, OptDtype output_dtype, const OptTensor& mask) {
  const char* op = "softmax";
  const Arg arg{op, "input"};
  const at::ScalarType dtype =
      output_dtype.value_or(input.defined() ? input.scalar_type() : at::ScalarType::Undefined);
  const kernels::SoftmaxParams p =
      check_params(op, input, input_scale, input_zero_point, output_scale, output_zero_point, dtype);
  check_min_rank(arg, input, 1);
  const int64_t axis = check_axis({op, "dim"}, dim, input.dim());
  const Mask masks = check_mask(op, mask, input, axis);
  check_numel(arg, input.sizes(), c10::elementSize(dtype));
  const Tensor output = empty_output(arg, input.sizes(), dtype);
  if (output.numel() == 0) return output;
  if (axis == input.dim() - 1) {
    run_rows(arg, p, input, masks, output);
    return output;
  }
  check_storage(arg, input);
  const Tensor x = input.movedim(axis, -1);
  const Tensor y = empty_output(arg, x.sizes(), dtype);
  run_rows(arg, p, x, masks, y);
  SerialAfterFork serial;  // the copy is torch's and may be parallel
  output.copy_(y.movedim(-1, axis));
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "softmax(Tensor input, int dim, float input_scale=1., int input_zero_point=0, float output_scale=1., "
      "int output_zero_point=0, ScalarType? output_dtype=None, Tensor? attn_mask=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("softmax", TORCH_FN(softmax)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("softmax", TORCH_FN((InferenceOnly<"softmax", softmax>::call)));
}

}  // namespace tae
