// Which operators an island may hold: this library's that return one tensor, and operators
// of ATen without side effects that stand between them.
#include <algorithm>

#include "ops/island_program.h"

namespace tae {
namespace {

// Sorted.
constexpr std::string_view kAten[] = {
    "aten::add.Tensor",
    "aten::cat",
    "aten::channel_shuffle",
    "aten::clamp",
    "aten::constant_pad_nd",
    "aten::contiguous",
    "aten::flatten.using_ints",
    "aten::gelu",
    "aten::hardsigmoid",
    "aten::hardswish",
    "aten::layer_norm",
    "aten::mean.dim",
    "aten::mul.Tensor",
    "aten::permute",
    "aten::pixel_shuffle",
    "aten::pixel_unshuffle",
    "aten::relu",
    "aten::reshape",
    "aten::select.int",
    "aten::sigmoid",
    "aten::silu",
    "aten::slice.Tensor",
    "aten::softmax.int",
    "aten::squeeze",
    "aten::squeeze.dim",
    "aten::squeeze.dims",
    "aten::sub.Tensor",
    "aten::t",
    "aten::tanh",
    "aten::transpose.int",
    "aten::unflatten.int",
    "aten::unsqueeze",
};

// What belongs to training or is called by the front-ends alone starts with '_'.
bool fits(const c10::FunctionSchema& schema) {
  const std::string name = schema.operator_name().name.substr(std::string("torch_ao::").size());
  const auto& returns = schema.returns();
  return name[0] != '_' && name != "island" && returns.size() == 1 &&
         returns[0].type()->kind() == c10::TypeKind::TensorType;
}

}  // namespace

std::optional<c10::OperatorHandle> find_island_operator(std::string_view name) {
  const bool own = name.rfind("torch_ao::", 0) == 0;
  if (!own && !std::binary_search(std::begin(kAten), std::end(kAten), name)) return std::nullopt;
  const size_t dot = name.find('.');
  const std::string overload(dot == std::string_view::npos ? "" : name.substr(dot + 1));
  auto op = c10::Dispatcher::singleton().findSchema({std::string(name.substr(0, dot)), overload});
  return op.has_value() && (!own || fits(op->schema())) ? op : std::nullopt;
}

std::vector<std::string> island_operators() {
  std::vector<std::string> names(std::begin(kAten), std::end(kAten));
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames()) {
    const std::string name = op.overload_name.empty() ? op.name : op.name + "." + op.overload_name;
    if (name.rfind("torch_ao::", 0) == 0 && find_island_operator(name).has_value()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace tae
