// libFuzzer target: operators whose tensors describe other memory, with bytes for contents.
//   fuzz_ops CORPUS [-max_total_time=60 ..]; test/fuzz/ops.py builds and runs it
// Block-sparse indices, rows of embedding tables, bags, counts of packed sequences, names of
// post-ops and programs of islands. A call may raise; anything the sanitizers report, any other exception,
// and a native result that is not the reference engine's is a finding. FUZZ_PLANTED=1 reads one byte too many
// behind four conditions: the control that must be found.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/env.h"
#include "core/torch_api.h"

namespace {

using Bytes = FuzzedDataProvider;
using Stack = std::vector<c10::IValue>;

const bool planted = std::getenv("FUZZ_PLANTED") != nullptr;

int64_t small(Bytes& b, int64_t most) { return b.ConsumeIntegralInRange<int64_t>(0, most); }

// Mostly valid: in [0, most], now and then any number.
int64_t number(Bytes& b, int64_t most) {
  return b.ConsumeProbability<float>() < 0.95f ? small(b, most) : b.ConsumeIntegral<int64_t>();
}

at::Tensor bytes(Bytes& b, at::IntArrayRef sizes, at::ScalarType dtype) {
  at::Tensor t = at::zeros(sizes, dtype);
  if (t.numel() > 0) b.ConsumeData(t.mutable_data_ptr(), static_cast<size_t>(t.numel()));
  return t;
}

at::Tensor floats(Bytes& b, at::IntArrayRef sizes) {
  return bytes(b, sizes, at::kChar).to(at::kFloat).mul(0.25);
}

at::Tensor integers(Bytes& b, int64_t count, int64_t most, at::ScalarType dtype, bool rising = false) {
  at::Tensor t = at::zeros({count}, at::kLong);
  int64_t* const values = t.mutable_data_ptr<int64_t>();
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    last = rising ? static_cast<int64_t>(static_cast<uint64_t>(last) + number(b, 3)) : number(b, most);
    values[i] = last;
  }
  return t.to(dtype);
}

std::optional<at::Tensor> maybe(Bytes& b, at::Tensor t) {
  return b.ConsumeBool() ? std::optional<at::Tensor>(std::move(t)) : std::nullopt;
}

at::Tensor scales(Bytes& b, int64_t count) { return floats(b, {count}).abs().add(0.125); }

c10::IValue output_dtype(Bytes& b) {
  return b.ConsumeBool() ? c10::IValue() : c10::IValue(static_cast<int64_t>(at::kFloat));
}

std::pair<const char*, Stack> sparse(Bytes& b) {
  const bool quads = b.ConsumeBool();
  const int64_t n = small(b, 20), k = small(b, 20), blocks = small(b, 12);
  const int64_t rows = quads ? n : (n + 7) / 8;
  const at::ScalarType index = b.ConsumeBool() ? at::kInt : at::kShort;
  at::Tensor offsets = integers(b, rows + (b.ConsumeProbability<float>() < 0.95f), blocks, at::kInt, true);
  if (offsets.numel() > 0 && b.ConsumeBool()) {  // as a right index begins and ends
    offsets[0] = 0;
    offsets[-1] = blocks;
  }
  at::Tensor columns = integers(b, blocks, quads ? k / 4 : k, index, b.ConsumeBool());
  at::Tensor weight = bytes(b, {blocks, quads ? 1 : 8, quads ? 4 : 1}, at::kChar);
  at::Tensor x = floats(b, {small(b, 3), k});
  return {"sparse_linear_dynamic",
          {x, weight, offsets, columns, c10::List<int64_t>({n, k}), scales(b, b.ConsumeBool() ? n : 1),
           maybe(b, floats(b, {n})), b.ConsumeBool(), false, false, output_dtype(b), "", c10::List<double>(),
           c10::IValue()}};
}

std::pair<const char*, Stack> bag(Bytes& b) {
  static constexpr int64_t kBits[] = {8, 4, 2};
  static constexpr const char* kModes[] = {"sum", "mean", "max"};
  const int64_t bits = b.PickValueInArray(kBits), rows = small(b, 9), count = small(b, 12);
  at::Tensor table = bytes(b, {rows, small(b, 40)}, at::kByte);
  const at::ScalarType index = b.ConsumeBool() ? at::kInt : at::kLong;
  const int64_t bags = small(b, 5), map = small(b, 6);
  const bool mapped = b.ConsumeBool();
  at::Tensor indices = integers(b, count, mapped ? map : rows, index);
  at::Tensor mapping = integers(b, map, rows, at::kLong).sub(1).to(at::kInt);
  return {"embedding_bag",
          {table, indices, integers(b, bags, count, index, true), bits, c10::IValue(),
           b.PickValueInArray(kModes), maybe(b, floats(b, {count})), b.ConsumeBool(),
           b.ConsumeBool() ? c10::IValue(number(b, 9)) : c10::IValue(),
           mapped ? c10::IValue(mapping) : c10::IValue(), output_dtype(b)}};
}

std::pair<const char*, Stack> unpack(Bytes& b) {
  static constexpr int64_t kBits[] = {8, 4, 2};
  at::Tensor table = bytes(b, {small(b, 5), small(b, 40)}, at::kByte);
  return {"embedding_unpack", {table, b.PickValueInArray(kBits), number(b, 100), output_dtype(b)}};
}

std::pair<const char*, Stack> sequence(Bytes& b) {
  const int64_t rows = small(b, 9), k = small(b, 5), h = small(b, 5), both = b.ConsumeBool();
  c10::List<at::Tensor> weights, weight_scales, biases;
  for (int64_t i = 0; i <= both; ++i) {
    weights.push_back(bytes(b, {3 * h, k}, at::kChar));
    weights.push_back(bytes(b, {3 * h, h}, at::kChar));
    for (int j = 0; j < 2; ++j) weight_scales.push_back(scales(b, b.ConsumeBool() ? 3 * h : 1));
    for (int j = 0; j < 2; ++j) biases.push_back(floats(b, {3 * h}));
  }
  at::Tensor counts = std::get<0>(integers(b, small(b, 5), 4, at::kLong).sort(0, /*descending=*/true));
  at::Tensor h0 = floats(b, {1 + both, counts.numel() > 0 ? number(b, 4) & 7 : 0, h});
  return {"gru", {floats(b, {rows, k}), counts, maybe(b, h0), weights, weight_scales, biases, 1, both != 0}};
}

std::pair<const char*, Stack> post_ops(Bytes& b) {
  static constexpr const char* kNames[] = {"relu",    "clamp",     "leaky_relu", "silu",
                                           "gelu",    "gelu_tanh", "hardswish",  "hardsigmoid",
                                           "sigmoid", "tanh",      "add",        ""};
  std::string names;
  for (int64_t i = small(b, 9); i > 0; --i)
    names +=
        (b.ConsumeBool() ? b.PickValueInArray(kNames) : b.ConsumeRandomLengthString(9)) + std::string(",");
  if (!names.empty() && b.ConsumeBool()) names.pop_back();
  c10::List<double> args;
  for (int64_t i = small(b, 5); i > 0; --i)
    args.push_back(b.ConsumeBool() ? b.ConsumeFloatingPoint<double>() : static_cast<double>(small(b, 3)));
  const int64_t n = 1 + small(b, 4), k = small(b, 6), m = small(b, 3);
  return {
      "linear_dynamic",
      {floats(b, {m, k}), bytes(b, {n, k}, at::kChar), scales(b, n), c10::IValue(), maybe(b, floats(b, {n})),
       true, false, false, c10::IValue(), names, args, maybe(b, floats(b, {m, n}))}};
}

// Lines of words that programs have, in any order, and now and then other text.
std::pair<const char*, Stack> island(Bytes& b) {
  static constexpr const char* kOperators[] = {"torch_ao::quantize_per_tensor %0 f0.05 i128 i0 i255 duint8",
                                               "torch_ao::requantize %1 f0.05 i128 f0.1 i3 dint8 srelu F",
                                               "torch_ao::linear %1 f0.05 i128 @0 @1 n n f0.1 i3 duint8",
                                               "torch_ao::linear_dynamic %0 @0 @1",
                                               "aten::cat T%1,%1 i0",
                                               "aten::transpose.int %1 i0 i1",
                                               "aten::slice.Tensor %0 i1 i0 i2 i1",
                                               "aten::reshape %1 I-1",
                                               "aten::softmax.int %0 i1 n"};
  static constexpr const char* kWords[] = {"%0", "%1", "%2",     "@0",    "n",      "i-1",   "i0", "i9",
                                           "f0", "F",  "dint32", "I1,-1", "T%0,@1", "srelu", "b1", "# x"};
  std::string text = "torch_ao.island 1 inputs=1 constants=2\n";
  for (int64_t i = small(b, 4); i > 0; --i) {
    std::string line = b.PickValueInArray(kOperators);
    for (int64_t edits = small(b, 2); edits > 0; --edits) {
      const size_t from = line.find(' ', static_cast<size_t>(small(b, 40)));
      if (from == std::string::npos) break;
      const size_t to = line.find(' ', from + 1);
      line.replace(from + 1, to == std::string::npos ? to : to - from - 1, b.PickValueInArray(kWords));
    }
    text += line + "\n";
  }
  text += "return %" + std::to_string(small(b, 4)) + (b.ConsumeBool() ? " %0" : "");
  if (b.ConsumeProbability<float>() > 0.9f) text.insert(text.size() / 2, b.ConsumeRandomLengthString(6));
  const int64_t n = 1 + small(b, 4), k = 1 + small(b, 6);
  return {"island",
          {c10::List<at::Tensor>({floats(b, {small(b, 3), k})}),
           c10::List<at::Tensor>({bytes(b, {n, k}, at::kChar), scales(b, n)}), text}};
}

Stack fresh(const Stack& arguments) {
  Stack copy;
  for (const c10::IValue& a : arguments) copy.push_back(a.isTensor() ? a.toTensor().clone() : a.deepcopy());
  return copy;
}

// What the call raises, or ""; the results replace the arguments.
std::string call(const char* name, const char* engine, Stack* stack) {
  tae::Engine forced;
  TORCH_CHECK(tae::parse_engine(engine, &forced));
  tae::set_engine(forced);
  const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow((std::string("torch_ao::") + name).c_str(), "");
  const auto& declared = op.schema().arguments();
  while (stack->size() < declared.size()) stack->push_back(*declared[stack->size()].default_value());
  try {
    op.callBoxed(*stack);
  } catch (const c10::Error& error) {
    stack->clear();
    return error.what_without_backtrace();
  }
  return "";
}

std::vector<at::Tensor> tensors_of(const Stack& results) {
  if (results.size() == 1 && results[0].isTensorList()) return results[0].toTensorVector();
  std::vector<at::Tensor> tensors;
  for (const c10::IValue& r : results) tensors.push_back(r.toTensor());
  return tensors;
}

void compare(const char* name, const Stack& native, const Stack& reference) {
  const std::vector<at::Tensor> a = tensors_of(native), b = tensors_of(reference);
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor x = a[i].contiguous(), y = b[i].contiguous();
    if (x.sizes() == y.sizes() && (x.numel() == 0 || x.equal(y) || x.isnan().any().item<bool>())) continue;
    std::fprintf(stderr, "torch_ao::%s: native is not the reference\n", name);
    std::abort();
  }
}

// One byte too many: a table of two or more rows and a first index that is its last row.
void plant(const Stack& arguments) {
  const at::Tensor table = arguments[0].toTensor(), indices = arguments[1].toTensor();
  if (table.size(0) < 2 || table.size(1) < 5 || indices.numel() == 0) return;
  if (indices[0].item<int64_t>() != table.size(0) - 1) return;
  const std::vector<uint8_t> copy(static_cast<size_t>(table.numel()));
  const volatile uint8_t* const data = copy.data();
  if (data[table.numel()] == 1) std::puts("one");
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  at::set_num_threads(1);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes b(data, size);
  constexpr std::pair<const char*, Stack> (*kTargets[])(Bytes&) = {sparse,   bag,      unpack,
                                                                   sequence, post_ops, island};
  const size_t target = b.ConsumeIntegralInRange<size_t>(0, std::size(kTargets) - 1);
  auto [name, arguments] = kTargets[target](b);
  if (planted && kTargets[target] == bag) plant(arguments);
  Stack native = fresh(arguments), reference = fresh(arguments);
  const std::string error = call(name, "native", &native);
  if (error != call(name, "reference", &reference)) {
    std::fprintf(stderr, "torch_ao::%s: '%s' only once\n", name, error.c_str());
    std::abort();
  }
  if (error.empty()) compare(name, native, reference);
  return 0;
}
