// requantize: y = quantize(post_ops(dequantize(x)))
// add:        y = quantize(post_ops(dequantize(a) + dequantize(b)))
// mul:        y = quantize(post_ops(dequantize(a) * dequantize(b)))
//
// dequantize(q) = f32(q - zero_point) * scale, quantize as in quantize_per_tensor; every
// step one f32 operation, so that the results are those of the three operators one after
// the other. requantize takes floats as well: activations and quantize in one. Sizes broadcast as torch's do;
// the output has input's memory order when the sizes are equal, else it is contiguous. Float outputs leave
// the quantize out.
#include "core/autograd.h"
#include "core/fork.h"
#include "core/result_memory.h"
#include "ops/norm_common.h"
#include "ops/table.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using kernels::Operand;

// Above this many elements 8-bit results are looked up, not computed.
constexpr int64_t kTableElements = 4096;

bool transcendental(const PostOps& post_ops) {
  for (const PostOp& p : post_ops)
    if (p.kind == PostOp::Kind::silu || p.kind == PostOp::Kind::gelu_erf ||
        p.kind == PostOp::Kind::gelu_tanh || p.kind == PostOp::Kind::sigmoid || p.kind == PostOp::Kind::tanh)
      return true;
  return false;
}

Tensor requantize(const Tensor& input, double input_scale, int64_t input_zero_point, double output_scale,
                  int64_t output_zero_point, OptDtype output_dtype, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "requantize";
  const Arg arg{op, "input"};
  const kernels::RealRows real =
      check_real(arg, {op, "input_scale"}, {op, "input_zero_point"}, input, input_scale, input_zero_point);
  const Operand a{nullptr, real.dtype, real.scale, real.zero_point};
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, post_ops, post_op_args,
               &out);
  const Elementwise e = elementwise(arg, input, out.dtype);
  if (e.numel == 0) return e.output;
  const kernels::ElementwiseKernels& k = kernels::elementwise_kernels(best_isa());
  const kernels::LookupBytes look_up = kernels::lookup_bytes(best_isa());
  const bool pays = look_up != kernels::lookup_bytes(Isa::portable) || transcendental(out.post_ops);
  if (is_quantized(a.dtype) && is_quantized(out.finish.dtype) && e.numel >= kTableElements) {
    const ByteTable table = requantize_table(a, out);
    int32_t lo = 0, hi = 0;
    const bool clamps = a.dtype == out.finish.dtype && is_clamp(table, a.dtype, &lo, &hi);  // equal qparams
    if (clamps || pays) {
      parallel_for(e.numel, kElementGrain, [&](int64_t begin, int64_t end) {
        if (clamps)
          k.clamp(e.src + begin, a.dtype, lo, hi, end - begin, e.dst + begin);
        else
          look_up(table.data(), e.src + begin, end - begin, e.dst + begin);
      });
      return e.output;
    }
  }
  const int64_t width = static_cast<int64_t>(size_of(a.dtype));
  const int64_t step = size_of_element(e.output);
  out.finish.streams = streams(e.output);
  parallel_for(e.numel, kElementGrain, [&](int64_t begin, int64_t end) {
    Operand part = a;
    part.data = e.src + begin * width;
    k.requantize(out.finish, part, end - begin, e.dst + begin * step);
  });
  return e.output;
}

// `t` with these sizes and strides of memory: itself, or a copy.
Tensor arranged(const Arg& arg, const Tensor& t, at::IntArrayRef sizes, at::IntArrayRef strides) {
  check_storage(arg, t);
  bool fits = t.sizes() == sizes;
  for (int64_t d = 0; fits && d < t.dim(); ++d) fits = t.size(d) <= 1 || t.stride(d) == strides[d];
  if (fits) return t;
  SerialAfterFork serial;
  return allocate(arg, sizes, [&] {
    Tensor copy = new_tensor(sizes, strides, t.scalar_type());
    return copy.copy_(t.expand(sizes));
  });
}

using Binary = void (*)(const kernels::Finish&, const Operand&, const Operand&, int64_t, void*);

// Broadcast sizes, ValueError in the words of the contract.
std::vector<int64_t> broadcast_sizes(const Arg& arg, at::IntArrayRef a, at::IntArrayRef b) {
  std::vector<int64_t> sizes(std::max(a.size(), b.size()));
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1, y = i < b.size() ? b[b.size() - 1 - i] : 1;
    TAE_CHECK_VALUE(x == y || x == 1 || y == 1, arg, c10::str("have sizes that broadcast with input's ", a),
                    c10::str("sizes ", b));
    sizes[sizes.size() - 1 - i] = x == 1 ? y : x;
  }
  return sizes;
}

Tensor run_binary(const char* op, Binary kernels::ElementwiseKernels::* member, const Tensor& input,
                  double input_scale, int64_t input_zero_point, const Tensor& other, double other_scale,
                  int64_t other_zero_point, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  const Arg arg{op, "input"}, other_arg{op, "other"};
  Operand a =
      check_operand(arg, {op, "input_scale"}, {op, "input_zero_point"}, input, input_scale, input_zero_point);
  Operand b = check_operand(other_arg, {op, "other_scale"}, {op, "other_zero_point"}, other, other_scale,
                            other_zero_point);
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, post_ops, post_op_args,
               &out);
  const std::vector<int64_t> sizes = broadcast_sizes(other_arg, input.sizes(), other.sizes());
  const int64_t numel = check_numel(arg, sizes, c10::elementSize(out.dtype));
  const bool keeps = input.sizes() == at::IntArrayRef(sizes) && input.is_non_overlapping_and_dense();
  // Operands in the output's order are read where the output is written.
  const bool same = keeps && other.sizes() == input.sizes() && other.strides() == input.strides();
  const Tensor output = allocate(arg, sizes, [&] {
    const MayOverwrite overwrites(same ? input : Tensor(), same ? other : Tensor());
    return keeps ? new_tensor(sizes, input.strides(), out.dtype) : new_tensor(sizes, out.dtype);
  });
  if (numel == 0) return output;
  const Tensor x = arranged(arg, input, sizes, output.strides());
  const Tensor y = arranged(other_arg, other, sizes, output.strides());
  const uint8_t* from_x = static_cast<const uint8_t*>(x.const_data_ptr());
  const uint8_t* from_y = static_cast<const uint8_t*>(y.const_data_ptr());
  uint8_t* to = static_cast<uint8_t*>(output.mutable_data_ptr());
  const int64_t step = size_of_element(output);
  const Binary kernel = kernels::elementwise_kernels(best_isa()).*member;
  out.finish.streams = streams(output);
  parallel_for(numel, kElementGrain, [&](int64_t begin, int64_t end) {
    Operand left = a, right = b;
    left.data = from_x + begin;
    right.data = from_y + begin;
    kernel(out.finish, left, right, end - begin, to + begin * step);
  });
  return output;
}

Tensor add(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& other,
           double other_scale, int64_t other_zero_point, double output_scale, int64_t output_zero_point,
           OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  return run_binary("add", &kernels::ElementwiseKernels::add, input, input_scale, input_zero_point, other,
                    other_scale, other_zero_point, output_scale, output_zero_point, output_dtype, post_ops,
                    post_op_args);
}

Tensor mul(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& other,
           double other_scale, int64_t other_zero_point, double output_scale, int64_t output_zero_point,
           OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  return run_binary("mul", &kernels::ElementwiseKernels::multiply, input, input_scale, input_zero_point,
                    other, other_scale, other_zero_point, output_scale, output_zero_point, output_dtype,
                    post_ops, post_op_args);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "requantize(Tensor input, float input_scale, int input_zero_point, float output_scale=1., "
      "int output_zero_point=0, ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) "
      "-> Tensor");
  m.def(
      "add(Tensor input, float input_scale, int input_zero_point, Tensor other, float other_scale, "
      "int other_zero_point, float output_scale=1., int output_zero_point=0, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "mul(Tensor input, float input_scale, int input_zero_point, Tensor other, float other_scale, "
      "int other_zero_point, float output_scale=1., int output_zero_point=0, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("requantize", TORCH_FN(requantize));
  m.impl("add", TORCH_FN(add));
  m.impl("mul", TORCH_FN(mul));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("requantize", TORCH_FN((InferenceOnly<"requantize", requantize>::call)));
  m.impl("add", TORCH_FN((InferenceOnly<"add", add>::call)));
  m.impl("mul", TORCH_FN((InferenceOnly<"mul", mul>::call)));
}

}  // namespace tae
