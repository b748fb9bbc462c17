// The calls that a Python test hands to a program: torch.save of a list of
// (overload name, engine, arguments), written from the samples, so that a new op is covered.
#pragma once

#include <torch/csrc/jit/serialization/pickle.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/env.h"
#include "core/torch_api.h"

namespace op_calls {

using Stack = std::vector<c10::IValue>;

struct Call {
  std::string name;
  std::string engine;
  std::vector<c10::IValue> arguments;
};

inline std::vector<Call> read_calls(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<Call> calls;
  for (const c10::IValue& entry : torch::jit::pickle_load(bytes).toList()) {
    const auto& parts = entry.toTupleRef().elements();
    Call call;
    call.name = parts[0].toStringRef();
    call.engine = parts[1].toStringRef();
    for (const c10::IValue& a : parts[2].toList()) call.arguments.push_back(a);
    calls.push_back(std::move(call));
  }
  return calls;
}

inline c10::OperatorHandle find_op(const std::string& name) {
  const size_t dot = name.find('.');
  return c10::Dispatcher::singleton().findSchemaOrThrow(
      ("torch_ao::" + name.substr(0, dot)).c_str(),
      dot == std::string::npos ? "" : name.substr(dot + 1).c_str());
}

// Fresh tensors, so that nothing is packed for them; lists in the type of the schema.
inline Stack fresh(const c10::OperatorHandle& op, const Call& call) {
  Stack stack;
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const c10::IValue& a = call.arguments[i];
    if (a.isTensor()) {
      stack.push_back(a.toTensor().clone());
    } else if (a.isList()) {
      std::string type = op.schema().arguments()[i].type()->str();
      if (type.back() == '?') type.pop_back();
      c10::List<double> numbers;
      c10::List<int64_t> integers;
      c10::List<at::Tensor> tensors;
      for (const c10::IValue& v : a.toListRef()) {
        if (type == "int[]") {
          integers.push_back(v.toInt());
        } else if (type == "Tensor[]") {
          tensors.push_back(v.toTensor().clone());
        } else {
          numbers.push_back(v.isDouble() ? v.toDouble() : v.toInt());
        }
      }
      TORCH_CHECK(type == "int[]" || type == "float[]" || type == "Tensor[]", "no list of type ", type,
                  " yet");
      if (type == "int[]") {
        stack.push_back(integers);
      } else if (type == "Tensor[]") {
        stack.push_back(tensors);
      } else {
        stack.push_back(numbers);
      }
    } else {
      stack.push_back(a);
    }
  }
  return stack;
}

inline bool same(const Stack& a, const Stack& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i].isTensor()) continue;
    const at::Tensor x = a[i].toTensor().contiguous();
    const at::Tensor y = b[i].toTensor().contiguous();
    if (x.sizes() != y.sizes() || x.scalar_type() != y.scalar_type()) return false;
    if (x.numel() > 0 && std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) != 0) return false;
  }
  return true;
}

inline Stack run(const c10::OperatorHandle& op, Stack stack) {
  op.callBoxed(stack);
  return stack;
}

inline void use_engine(const std::string& name) {
  tae::Engine engine;
  TORCH_CHECK(tae::parse_engine(name, &engine), "no engine ", name);
  tae::set_engine(engine);
}

inline bool refused(const c10::OperatorHandle& op, const Call& call) {
  try {
    run(op, fresh(op, call));
  } catch (const c10::NotImplementedError&) {
    return true;
  }
  return false;
}

}  // namespace op_calls
