// The program of an island: operators of a lowered graph, run one after the other without
// Python or a graph interpreter between them.
//
//   torch_ao.island 1 inputs=1 constants=3
//   torch_ao::quantize_per_tensor %0 f0.1 i128 i0 i255 duint8 # stem
//   torch_ao::linear %1 f0.1 i128 @0 @1 n @2 f0.2 i3 duint8 # stem.fc
//   return %2
//
// Values are numbered: the inputs, then the result of each line. Arguments stand in schema
// order, trailing defaults may be left out: %value, @constant, n(one), i(nteger), f(loat),
// b0 or b1, s(tring), d(type), I1,2 and F1.5,2 lists of numbers, T%1,@2 a list of tensors.
// What follows " # " is for reports: the module's name, " macs=<count>" of a matmul, " float=<reason>" of a
// step that computes in floats. The text may come from a file: operators are those of a list, and every
// argument is held against the schema.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/torch_api.h"
#include "ops/island_memory.h"

namespace tae {

struct IslandStep {
  // Where a tensor of the call comes from.
  struct Source {
    int argument;   // index in the schema
    bool constant;  // else a value
    int index;
  };
  // A tensor list argument, its tensors in order.
  struct List {
    int argument;
    std::vector<Source> tensors;
  };

  c10::OperatorHandle op;
  std::vector<c10::IValue> arguments;  // tensors are None here
  std::vector<Source> tensors;
  std::vector<List> lists;
  std::vector<int> last_uses;  // values that nobody reads after this step
  std::string label;
};

struct IslandProgram {
  std::string text;
  int inputs = 0;
  int constants = 0;
  int values = 0;
  std::vector<IslandStep> steps;
  std::vector<int> results;
  mutable MemoryPlans plans;
};

// Names of the operators that may stand in a program, "space::name" or "space::name.overload".
std::vector<std::string> island_operators();

// Nothing for a name that is not among them.
std::optional<c10::OperatorHandle> find_island_operator(std::string_view name);

// Raises ValueError for argument 'program' of torch_ao::island.
std::shared_ptr<const IslandProgram> parse_island(std::string_view text);

std::vector<at::Tensor> run_island(const IslandProgram& program, at::TensorList inputs,
                                   at::TensorList constants);

}  // namespace tae
