// lookup: y = table[x - min], one table of 256 entries for all values or one for each
// channel: any function of one 8-bit value, exact by construction.
//
// input uint8 or int8, min 0 or -128; table [256] or [input.size(axis), 256], uint8, int8,
// float32 or bfloat16, which is the output's dtype. The output has the input's memory order.
#include <cstring>

#include "core/autograd.h"
#include "ops/table.h"

namespace tae {

ByteTable requantize_table(const kernels::Operand& operand, const OutputFinish& out) {
  ByteTable values, table;
  for (int i = 0; i < 256; ++i) values[i] = static_cast<uint8_t>(i);
  kernels::Operand every = operand;
  every.data = values.data();
  kernels::elementwise_kernels(best_isa()).requantize(out.finish, every, 256, table.data());
  return table;
}

bool is_identity(const ByteTable& table) {
  for (int i = 0; i < 256; ++i)
    if (table[i] != i) return false;
  return true;
}

bool is_clamp(const ByteTable& table, DType dtype, int32_t* lo, int32_t* hi) {
  const auto value = [&](int byte) { return dtype == DType::qs8 ? static_cast<int8_t>(byte) : byte; };
  const auto result = [&](int v) { return value(table[v & 0xff]); };
  *lo = result(quant_min(dtype));
  *hi = result(quant_max(dtype));
  if (*lo > *hi) return false;
  for (int v = quant_min(dtype); v <= quant_max(dtype); ++v)
    if (result(v) != std::clamp(v, *lo, *hi)) return false;
  return true;
}

namespace {

using at::Tensor;

// Entry for byte u of the memory: entries are in the order of the values.
template <typename T>
void by_byte(const T* entries, bool is_signed, T* table) {
  for (int u = 0; u < 256; ++u) table[u] = entries[is_signed ? u ^ 0x80 : u];
}

template <typename T>
void look_up(const T* table, const uint8_t* src, int64_t count, T* dst) {
  if constexpr (sizeof(T) == 1) {
    kernels::lookup_bytes(best_isa())(table, src, count, dst);
  } else {
    for (int64_t i = 0; i < count; ++i) dst[i] = table[src[i]];
  }
}

// tables: [channels][256], or one for all when channels is 1.
template <typename T>
void run(const Arg& arg, const Elementwise& e, const ChannelView& v, const Tensor& tables, bool is_signed) {
  const int64_t count = tables.numel() / 256;
  std::vector<T> sorted = make_vector<T>(arg, tables.numel());
  const T* entries = static_cast<const T*>(tables.const_data_ptr());
  for (int64_t c = 0; c < count; ++c) by_byte(entries + c * 256, is_signed, sorted.data() + c * 256);
  T* dst = reinterpret_cast<T*>(e.dst);
  if (count == 1) {
    parallel_for(e.numel, kElementGrain, [&](int64_t begin, int64_t end) {
      look_up(sorted.data(), e.src + begin, end - begin, dst + begin);
    });
  } else if (v.inner > 1) {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / v.inner);
    parallel_for(v.outer * v.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        look_up(sorted.data() + r % v.channels * 256, e.src + r * v.inner, v.inner, dst + r * v.inner);
    });
  } else {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / v.channels);
    parallel_for(v.outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin * v.channels; r < end * v.channels; r += v.channels)
        for (int64_t c = 0; c < v.channels; ++c) dst[r + c] = sorted[c * 256 + e.src[r + c]];
    });
  }
}

Tensor lookup(const Tensor& input, const Tensor& table, int64_t axis) {
  const char* op = "lookup";
  const Arg arg{op, "input"}, table_arg{op, "table"};
  check_tensor(arg, input, kInt8Dtypes);
  check_tensor(table_arg, table, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  TAE_CHECK_VALUE(table.dim() == 1 || table.dim() == 2, table_arg, "have 1 or 2 dimensions",
                  c10::str("sizes ", table.sizes()));
  check_size(table_arg, table, -1, 256, "the number of 8-bit values");
  ChannelView v;
  const bool each = table.dim() == 2;
  if (each) {
    check_min_rank(arg, input, 1);
    axis = check_axis({op, "axis"}, axis, input.dim());
    check_size(table_arg, table, 0, input.size(axis), "input.size(axis)");
  }
  const Tensor tables = dense(table_arg, table);
  check_storage(table_arg, tables);
  const Elementwise e = elementwise(arg, input, table.scalar_type());
  if (e.numel == 0) return e.output;
  if (each) v = channel_view(e.input, axis);
  const bool is_signed = input.scalar_type() == at::kChar;
  switch (tables.element_size()) {
    case 1:
      run<uint8_t>(arg, e, v, tables, is_signed);
      break;
    case 2:
      run<uint16_t>(arg, e, v, tables, is_signed);
      break;
    default:
      run<uint32_t>(arg, e, v, tables, is_signed);
  }
  return e.output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) { m.def("lookup(Tensor input, Tensor table, int axis=1) -> Tensor"); }

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("lookup", TORCH_FN(lookup)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("lookup", TORCH_FN((InferenceOnly<"lookup", lookup>::call)));
}

}  // namespace tae
