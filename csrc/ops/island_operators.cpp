// Which operators an island may hold: this library's that return one tensor, and operators
// of ATen without side effects that stand between them.
#include <algorithm>

#include "ops/island_program.h"

namespace tae {
namespace {

constexpr const char* kAten[] = {
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

std::vector<std::string> find_operators() {
  std::vector<std::string> names(std::begin(kAten), std::end(kAten));
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (name.name.rfind("torch_ao::", 0) != 0) continue;
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (!op.has_value() || !fits(op->schema())) continue;
    names.push_back(name.overload_name.empty() ? name.name : name.name + "." + name.overload_name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

const std::vector<std::string>& island_operators() {
  static const std::vector<std::string> names = find_operators();
  return names;
}

}  // namespace tae
