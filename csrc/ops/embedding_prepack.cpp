// Float tables to fused rows and back.
//   embedding_prepack   8 bits: bias = min, scale = (max - min) / 255, code = round_half_even((x - bias) *
//                       255 / (max - min + 1e-8)); 4 and 2 bits: bias = f16(min), scale = f16((max - bias) /
//                       (2^bits - 1)), code = clamp(round_half_even((x - bias) * (1 / scale)))
//   embedding_unpack    x = scale * code + bias
//
// The bytes are those of torch's row-wise prepack operators (Source:
// aten/src/ATen/native/quantized/cpu/qembeddingbag_prepack.cpp), so tables go both ways.
#include "core/autograd.h"
#include "core/cpu_features.h"
#include "core/parallel.h"
#include "engines/native/embedding.h"
#include "kernels/half.h"
#include "kernels/quantize.h"
#include "kernels/vec_float_env.h"
#include "ops/embedding_common.h"

namespace tae {
namespace {

using at::Tensor;

constexpr int64_t kElementGrain = 32768;

struct RowCode {
  float low, inverse;  // of the quantization
  uint8_t tail[8];     // scale and bias as stored
  bool fits;           // in f16
};

// Opaque to the compiler, which would move arithmetic across DefaultFloatEnv.
[[gnu::noipa]] RowCode row_code(float low, float high, int bits) {
  RowCode r;
  if (bits == 8) {
    const float range = high - low;
    const float stored[2] = {range / 255.f, low};
    std::memcpy(r.tail, stored, sizeof stored);
    r.low = low;
    r.inverse = 255.f / (range + 1e-8f);
    r.fits = true;
    return r;
  }
  uint16_t stored[2];
  stored[1] = kernels::float_to_half(low);
  r.low = kernels::half_to_float(stored[1]);
  const float range = high - r.low;
  float scale = range == 0.f ? 1.f : range / static_cast<float>((1 << bits) - 1);
  scale = kernels::half_to_float(kernels::float_to_half(scale));
  if (scale == 0.f) scale = 1.f;  // the range is below what f16 has
  r.inverse = 1.f / scale;
  if (std::isinf(r.inverse)) scale = r.inverse = 1.f;
  stored[0] = kernels::float_to_half(scale);
  std::memcpy(r.tail, stored, sizeof stored);
  r.fits = std::isfinite(r.low) && std::isfinite(scale);
  return r;
}

Tensor embedding_prepack(const Tensor& weight, int64_t bits) {
  const char* op = "embedding_prepack";
  const Arg arg{op, "weight"};
  check_tensor(arg, weight, kEmbeddingDtypes);
  check_rank(arg, weight, 2);
  const int b = check_bits(op, bits);
  const int64_t rows = weight.size(0), dim = weight.size(1);
  const int64_t code_bytes = kernels::embedding_code_bytes(dim, b);
  const int64_t row_bytes = kernels::embedding_row_bytes(dim, b);
  const int64_t sizes[] = {rows, row_bytes};
  const int64_t bytes = check_numel(arg, sizes, 1);
  Tensor output = empty_output(arg, sizes, at::kByte);
  if (rows == 0) return output;
  advise_huge_pages(output.const_data_ptr(), bytes, /*now=*/false);

  const RowView view = rows_of(arg, weight);
  const kernels::QuantizeKernels& range = kernels::quantize_kernels(best_isa());
  const kernels::EmbeddingKernels& k = kernels::embedding_kernels(best_isa());
  const bool f32 = weight.scalar_type() == at::kFloat;
  uint8_t* const out = output_bytes(output).begin();
  parallel_for(rows, std::max<int64_t>(1, kElementGrain / (dim + 1)), [&](int64_t begin, int64_t end) {
    const kernels::DefaultFloatEnv env;
    for (int64_t r = begin; r < end; ++r) {
      const float* const src_f32 = static_cast<const float*>(view.data) + r * view.stride;
      const uint16_t* const src_bf16 = static_cast<const uint16_t*>(view.data) + r * view.stride;
      float low = 0.f, high = 0.f;
      if (dim > 0)
        f32 ? range.min_max_f32(src_f32, dim, &low, &high) : range.min_max_bf16(src_bf16, dim, &low, &high);
      TAE_CHECK_VALUE(std::isfinite(high - low), arg, "hold finite values less than 3.4e38 apart",
                      c10::str("values from ", low, " to ", high, " in row ", r));
      const RowCode code = row_code(low, high, b);
      TAE_CHECK_VALUE(code.fits, arg, c10::str("hold values that float16 has (bits is ", bits, ")"),
                      c10::str("values from ", low, " to ", high, " in row ", r));
      uint8_t* const to = out + r * row_bytes;
      f32 ? k.quantize_f32(src_f32, dim, b, code.low, code.inverse, to)
          : k.quantize_bf16(src_bf16, dim, b, code.low, code.inverse, to);
      std::memcpy(to + code_bytes, code.tail, static_cast<size_t>(row_bytes - code_bytes));
    }
  });
  return output;
}

Tensor embedding_unpack(const Tensor& weight, int64_t bits, std::optional<int64_t> embedding_dim,
                        std::optional<at::ScalarType> output_dtype) {
  const char* op = "embedding_unpack";
  const CheckedTable t = check_table(op, weight, bits, embedding_dim);
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kEmbeddingDtypes);
  const int64_t sizes[] = {weight.size(0), t.table.dim};
  // No product overflows: at most 16 bytes for each byte of a table that is in memory.
  Tensor output = empty_output({op, "weight"}, sizes, dtype);
  if (output.numel() == 0) return output;
  std::vector<int64_t> all = make_vector<int64_t>({op, "weight"}, t.table.count);
  for (int64_t r = 0; r < t.table.count; ++r) all[r] = r;
  native::LookupProblem p;
  p.table = t.table;
  p.indices.data = all.data();
  p.count = t.table.count;
  p.output_dtype = dtype_of(dtype);
  p.output = output_bytes(output).begin();
  const int64_t bad = native::run_lookup(kernels::embedding_kernels(best_isa()), p);
  TORCH_INTERNAL_ASSERT(bad < 0);
  return output;
}

void prepack_embedding(const Tensor& weight) {
  const Arg arg{"_prepack_embedding", "weight"};
  check_tensor(arg, weight, {at::kByte});
  check_rank(arg, weight, 2);
  if (weight.numel() == 0) return;
  check_storage(arg, weight);
  if (!weight.is_contiguous()) return;
  const Span<const uint8_t> bytes = bytes_of(arg, weight);
  advise_huge_pages(bytes.begin(), bytes.size(), /*now=*/true);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def("embedding_prepack(Tensor weight, int bits=8) -> Tensor");
  m.def(
      "embedding_unpack(Tensor weight, int bits=8, int? embedding_dim=None, "
      "ScalarType? output_dtype=None) -> Tensor");
  m.def("_prepack_embedding(Tensor weight) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("embedding_prepack", TORCH_FN(embedding_prepack));
  m.impl("embedding_unpack", TORCH_FN(embedding_unpack));
  m.impl("_prepack_embedding", TORCH_FN(prepack_embedding));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("embedding_prepack", TORCH_FN((InferenceOnly<"embedding_prepack", embedding_prepack>::call)));
  m.impl("embedding_unpack", TORCH_FN((InferenceOnly<"embedding_unpack", embedding_unpack>::call)));
  m.impl("_prepack_embedding", TORCH_FN((InferenceOnly<"_prepack_embedding", prepack_embedding>::call)));
}

}  // namespace tae
