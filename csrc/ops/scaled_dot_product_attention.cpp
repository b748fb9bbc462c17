// scaled_dot_product_attention: y = softmax(scale * query key^T + attn_mask) value, float rows
//
// torch's operator of this name for inference. Steps and rounding in kernels/scaled_dot_product_attention.h;
// bfloat16 is computed in f32. With heads, `[*, H, L, E]`, the result lies in memory as
// `[*, L, H, E]`, which the transpose behind attention makes contiguous.
#include "kernels/scaled_dot_product_attention.h"

#include <cstring>

#include "core/autograd.h"
#include "core/fork.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "ops/matrix_offsets.h"
#include "ops/quantize_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<Tensor>;

struct Sizes {
  std::vector<int64_t> leading;  // batch and heads
  int64_t queries = 0, keys = 0, depth = 0, value_depth = 0;
};

Sizes check_sizes(const char* op, const Tensor& query, const Tensor& key, const Tensor& value) {
  const Arg q{op, "query"}, k{op, "key"}, v{op, "value"};
  for (const auto& [arg, t] : {std::pair{q, &query}, {k, &key}, {v, &value}}) {
    check_tensor(arg, *t, {at::kFloat, at::kBFloat16});
    check_min_rank(arg, *t, 2);
    check_storage(arg, *t);
  }
  const int64_t rank = query.dim();
  for (const auto& [arg, t] : {std::pair{k, &key}, {v, &value}}) {
    check_rank(arg, *t, rank);
    for (int64_t d = 0; d < rank - 2; ++d) check_size(arg, *t, d, query.size(d), "query's");
  }
  check_size(k, key, rank - 1, query.size(-1), "query.size(-1)");
  check_size(v, value, rank - 2, key.size(-2), "key.size(-2)");
  Sizes s;
  s.leading.assign(query.sizes().begin(), query.sizes().end() - 2);
  s.queries = query.size(-2);
  s.keys = key.size(-2);
  s.depth = query.size(-1);
  s.value_depth = value.size(-1);
  return s;
}

// The output, and where row q of matrix m starts in it.
struct Output {
  Tensor result;
  Tensor memory;  // contiguous: [*, queries, heads, value_depth] of four and more dimensions
  int64_t heads = 1;
};

Output make_output(const Arg& arg, const Sizes& s) {
  Output out;
  std::vector<int64_t> sizes = s.leading;
  if (sizes.size() < 2) {
    sizes.insert(sizes.end(), {s.queries, s.value_depth});
    check_numel(arg, sizes, sizeof(float));
    out.memory = out.result = empty_output(arg, sizes, at::kFloat);
    return out;
  }
  out.heads = sizes.back();
  sizes.back() = s.queries;
  sizes.insert(sizes.end(), {out.heads, s.value_depth});
  check_numel(arg, sizes, sizeof(float));
  out.memory = empty_output(arg, sizes, at::kFloat);
  out.result = out.memory.transpose(-3, -2);
  return out;
}

// f32 with channels side by side.
Tensor real_rows(const Arg& arg, const Tensor& t) {
  const bool side_by_side = t.size(-1) <= 1 || t.stride(-1) == 1;
  if (t.scalar_type() == at::kFloat && side_by_side && is_aligned(t)) return t;
  SerialAfterFork serial;  // the copy is torch's and may be parallel
  return allocate(arg, t.sizes(), [&] {
    const Tensor real = t.scalar_type() == at::kFloat ? t : t.to(at::kFloat);
    return real.stride(-1) == 1 && is_aligned(real) ? real : real.clone(at::MemoryFormat::Contiguous);
  });
}

// Whether a mask in one piece changes nothing: what models pass when no sentence is padded.
bool changes_nothing(const Tensor& mask) {
  if (!mask.is_non_overlapping_and_dense() || mask.numel() == 0) return false;
  const void* data = mask.const_data_ptr();
  const auto count = static_cast<size_t>(mask.numel());
  if (mask.scalar_type() == at::kBool) return std::memchr(data, 0, count) == nullptr;
  const float* m = static_cast<const float*>(data);
  return std::all_of(m, m + count, [](float x) { return x == 0.f; });
}

// The mask expanded to [*, queries, keys], undefined when there is none.
Tensor check_mask(const char* op, const OptTensor& mask, bool is_causal, const Sizes& s) {
  if (!present(mask)) return {};
  const Arg arg{op, "attn_mask"};
  check_tensor(arg, *mask, {at::kBool, at::kFloat, at::kBFloat16});
  TAE_CHECK_VALUE(!is_causal, arg, "be None when is_causal", c10::str("sizes ", mask->sizes()));
  std::vector<int64_t> wanted = s.leading;
  wanted.insert(wanted.end(), {s.queries, s.keys});
  TAE_CHECK_VALUE(expands(mask->sizes(), wanted), arg,
                  c10::str("have sizes that expand to ", at::IntArrayRef(wanted)),
                  c10::str("sizes ", mask->sizes()));
  check_storage(arg, *mask);
  Tensor t = *mask;
  if (t.scalar_type() == at::kBFloat16 || !is_aligned(t)) {
    SerialAfterFork serial;
    t = allocate(arg, t.sizes(), [&] {
      return t.scalar_type() == at::kBFloat16 ? t.to(at::kFloat) : t.clone(at::MemoryFormat::Contiguous);
    });
  }
  if (changes_nothing(t)) return {};
  return t.expand(wanted);
}

// Every block of queries of every head, over the threads.
void run_blocks(const char* op, const Sizes& s, float scale, bool is_causal, const Tensor& q, const Tensor& k,
                const Tensor& v, const Tensor& mask, const Output& out) {
  const kernels::SdpaKernels& kernel = kernels::sdpa_kernels(best_isa());
  const int64_t heads_and_batch = out.memory.numel() / (s.queries * s.value_depth);
  kernels::SdpaBlock shared;
  shared.query_stride = s.queries > 1 ? q.stride(-2) : 0;
  shared.key_stride = s.keys > 1 ? k.stride(-2) : 0;
  shared.value_stride = s.keys > 1 ? v.stride(-2) : 0;
  shared.keys = s.keys;
  shared.depth = s.depth;
  shared.value_depth = s.value_depth;
  shared.scale = scale;
  shared.causal = is_causal;
  shared.output_stride = out.heads * s.value_depth;
  const auto offsets = [&](const char* name, const Tensor& t) {
    return matrix_offsets({op, name}, t, s.leading, heads_and_batch);
  };
  const std::vector<int64_t> q_offsets = offsets("query", q), k_offsets = offsets("key", k),
                             v_offsets = offsets("value", v);
  std::vector<int64_t> mask_offsets;
  size_t mask_bytes = 0;
  if (mask.defined()) {
    mask_offsets = offsets("attn_mask", mask);
    shared.mask_kind = mask.scalar_type() == at::kBool ? kernels::MaskKind::boolean : kernels::MaskKind::f32;
    shared.mask_query_stride = mask.stride(-2);
    shared.mask_key_stride = mask.stride(-1);
    mask_bytes = mask.element_size();
  }
  const float *queries = q.const_data_ptr<float>(), *keys = k.const_data_ptr<float>(),
              *values = v.const_data_ptr<float>();
  float* const output = out.memory.mutable_data_ptr<float>();
  const int64_t blocks = ceil_div(s.queries, kernel.queries);
  const auto scratch_floats =
      static_cast<size_t>(kernels::sdpa_scratch(kernel.queries, s.depth, s.value_depth));
  parallel_for(heads_and_batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const ScratchMemory scratch(scratch_floats * sizeof(float));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t m = i / blocks;
      kernels::SdpaBlock b = shared;
      b.first_query = i % blocks * kernel.queries;
      b.queries = std::min(kernel.queries, s.queries - b.first_query);
      b.query = queries + q_offsets[m] + b.first_query * b.query_stride;
      b.key = keys + k_offsets[m];
      b.value = values + v_offsets[m];
      if (mask.defined())
        b.mask = static_cast<const uint8_t*>(mask.const_data_ptr()) +
                 static_cast<size_t>(mask_offsets[m] + b.first_query * b.mask_query_stride) * mask_bytes;
      const int64_t row = (m / out.heads * s.queries + b.first_query) * out.heads + m % out.heads;
      b.output = output + row * s.value_depth;
      kernel.block(b, reinterpret_cast<float*>(scratch.data()));
    }
  });
}

Tensor scaled_dot_product_attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                    const OptTensor& attn_mask, bool is_causal, std::optional<double> scale) {
  const char* op = "scaled_dot_product_attention";
  const Arg arg{op, "query"};
  const Sizes s = check_sizes(op, query, key, value);
  const Tensor mask = check_mask(op, attn_mask, is_causal, s);
  const double usual = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(s.depth, 1)));
  const float factor = check_scale({op, "scale"}, scale.value_or(usual));
  Output out = make_output(arg, s);
  if (out.memory.numel() > 0) {
    const Tensor q = real_rows(arg, query), k = real_rows({op, "key"}, key),
                 v = real_rows({op, "value"}, value);
    try {
      run_blocks(op, s, factor, is_causal, q, k, v, mask, out);
    } catch (const std::bad_alloc&) {
      raise_out_of_memory(arg, query.sizes());
    }
  }
  if (query.scalar_type() == at::kFloat) return out.result;
  SerialAfterFork serial;
  return allocate(arg, out.result.sizes(), [&] { return out.result.to(at::kBFloat16); });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, "
      "bool is_causal=False, float? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("scaled_dot_product_attention", TORCH_FN(scaled_dot_product_attention));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("scaled_dot_product_attention",
         TORCH_FN((InferenceOnly<"scaled_dot_product_attention", scaled_dot_product_attention>::call)));
}

}  // namespace tae
