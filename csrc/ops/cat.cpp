// cat: y = the tensors, joined along dim, each brought to the output's scale and zero point:
// quantize(dequantize(x)) as requantize has it, a copy where the qparams are the output's.
//
// Sizes agree but for dim. The output is channels last where every tensor is (and not all
// are contiguous), else contiguous.
#include <cstring>

#include "core/autograd.h"
#include "ops/channels_last.h"
#include "ops/table.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;

bool lies_channels_last(const Tensor& t) {
  if (t.dim() < 3 || t.numel() == 0) return t.dim() >= 3;
  const Sizes strides = channels_last_strides(t.sizes());
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1 && t.stride(d) != strides[d]) return false;
  return true;
}

// One tensor: `run` values at a time into every `step` values of the output.
struct Part {
  Tensor owner;
  const uint8_t* src = nullptr;
  int64_t run = 0;
  int64_t offset = 0;
  kernels::Operand operand;
  ByteTable table;
  bool copies = false;
};

void check_sizes(const Arg& arg, at::TensorList tensors, int64_t dim) {
  const Tensor& first = tensors[0];
  for (const Tensor& t : tensors) {
    bool fits = t.dim() == first.dim();
    for (int64_t d = 0; fits && d < t.dim(); ++d) fits = d == dim || t.size(d) == first.size(d);
    TAE_CHECK_VALUE(fits, arg, c10::str("have the first one's sizes ", first.sizes(), " but for dim"),
                    c10::str("sizes ", t.sizes()));
  }
}

// Rows of the output that are written part by part: they stay in L1.
constexpr int64_t kBlockBytes = 8192;

struct Kernels {
  kernels::LookupRows look_up = kernels::lookup_rows(best_isa());
  const kernels::ElementwiseKernels& elements = kernels::elementwise_kernels(best_isa());
};

// Rows [begin, end) of a part.
void write(const Kernels& k, const Part& p, const OutputFinish& out, int64_t begin, int64_t end, int64_t step,
           uint8_t* dst) {
  const uint8_t* src = p.src + begin * p.run;
  const int64_t at = begin * step + p.offset;
  if (is_quantized(out.finish.dtype) && !p.copies) {
    k.look_up(p.table.data(), src, end - begin, p.run, dst + at, step);
    return;
  }
  const int64_t width = static_cast<int64_t>(size_of(out.finish.dtype));
  for (int64_t r = 0; r < end - begin; ++r) {
    uint8_t* to = dst + (at + r * step) * width;
    if (p.copies) {
      std::memcpy(to, src + r * p.run, static_cast<size_t>(p.run));
    } else {
      kernels::Operand part = p.operand;
      part.data = src + r * p.run;
      k.elements.requantize(out.finish, part, p.run, to);
    }
  }
}

Tensor cat(at::TensorList tensors, at::ArrayRef<double> scales, at::IntArrayRef zero_points, int64_t dim,
           double output_scale, int64_t output_zero_point, OptDtype output_dtype) {
  const char* op = "cat";
  const Arg arg{op, "tensors"}, scale_arg{op, "scales"}, zero_arg{op, "zero_points"};
  const size_t count = tensors.size();
  TAE_CHECK_VALUE(count >= 1, arg, "have at least 1 tensor", count);
  TAE_CHECK_VALUE(scales.size() == count, scale_arg, c10::str("have ", count, " values"), scales.size());
  TAE_CHECK_VALUE(zero_points.size() == count, zero_arg, c10::str("have ", count, " values"),
                  zero_points.size());
  std::vector<Part> parts(count);
  for (size_t i = 0; i < count; ++i)
    parts[i].operand = check_operand(arg, scale_arg, zero_arg, tensors[i], scales[i], zero_points[i]);
  check_min_rank(arg, tensors[0], 1);
  dim = check_axis({op, "dim"}, dim, tensors[0].dim());
  check_sizes(arg, tensors, dim);
  OutputFinish out;
  check_output(op, tensors[0].scalar_type(), output_scale, output_zero_point, output_dtype, "", {}, &out);

  std::vector<int64_t> sizes = tensors[0].sizes().vec();
  for (size_t i = 1; i < count; ++i)
    TAE_CHECK_VALUE(!__builtin_add_overflow(sizes[dim], tensors[i].size(dim), &sizes[dim]), arg,
                    "have fewer than 2^63 positions along dim", tensors[i].size(dim));
  const int64_t numel = check_numel(arg, sizes, c10::elementSize(out.dtype));
  bool last = true, plain = true;
  for (const Tensor& t : tensors) {
    last = last && lies_channels_last(t);
    plain = plain && t.is_contiguous();
  }
  last = last && !plain;
  const Tensor output = last ? empty_strided(arg, sizes, channels_last_strides(sizes), out.dtype)
                             : empty_output(arg, sizes, out.dtype);
  if (numel == 0) return output;
  int64_t outer = 1, inner = 1;  // around dim, in memory order
  for (int64_t d = 0; d < static_cast<int64_t>(sizes.size()); ++d) {
    if (d == dim) continue;
    const bool before = last ? dim == 1 || d == 0 || (d != 1 && d < dim) : d < dim;
    (before ? outer : inner) *= sizes[d];
  }
  int64_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    Part& p = parts[i];
    p.run = tensors[i].size(dim) * inner;
    p.offset = offset;
    offset += p.run;
    if (p.run == 0) continue;
    p.owner = last ? tensors[i] : dense(arg, tensors[i]);
    check_storage(arg, p.owner);
    p.src = static_cast<const uint8_t*>(p.owner.const_data_ptr());
    if (is_quantized(out.finish.dtype)) {
      p.table = requantize_table(p.operand, out);
      p.copies = is_identity(p.table);
    }
  }
  const Kernels k;
  uint8_t* dst = static_cast<uint8_t*>(output.mutable_data_ptr());
  if (outer == 1) {  // long runs: the threads share each
    const int64_t width = size_of_element(output);
    for (const Part& p : parts)
      parallel_for(p.run, kElementGrain, [&](int64_t begin, int64_t end) {
        Part piece = p;
        piece.src += begin;
        piece.run = end - begin;
        piece.offset = 0;
        write(k, piece, out, 0, 1, 0, dst + (p.offset + begin) * width);
      });
    return output;
  }
  const int64_t grain = std::max<int64_t>(1, kElementGrain / offset);
  const int64_t block = std::max<int64_t>(1, kBlockBytes / offset);
  parallel_for(outer, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += block)
      for (const Part& p : parts)
        if (p.run > 0) write(k, p, out, row, std::min(end, row + block), offset, dst);
  });
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "cat(Tensor[] tensors, float[] scales, int[] zero_points, int dim=0, float output_scale=1., "
      "int output_zero_point=0, ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("cat", TORCH_FN(cat)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) { m.impl("cat", TORCH_FN((InferenceOnly<"cat", cat>::call))); }

}  // namespace tae
