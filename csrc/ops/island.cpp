// island: the operators of a program one after the other, in C++.
//
// inputs and constants are the tensors that the program (island_program.h) names; constants
// are weights and their scales, given again at every call so that packed forms stay with
// them. The result are the tensors that the program returns; one that would share memory with
// an input or another result is copied, one with gaps becomes contiguous. Each step is the
// operator itself: same checks, same results, same engines; torch.profiler shows each by name.
#include <algorithm>

#include "core/autograd.h"
#include "core/checks.h"
#include "core/fork.h"
#include "core/result_memory.h"
#include "ops/island_program.h"

namespace tae {
namespace {

using at::Tensor;
using at::TensorList;
using ProgramPtr = std::shared_ptr<const IslandProgram>;

constexpr size_t kMostPrograms = 256;

// Parsed programs, the last used one last. No thread_local beside it: its destructor is registered
// with memory that may be missing, which ends the process.
class Programs {
 public:
  ProgramPtr find(std::string_view text) {
    const std::lock_guard lock(fork_safe_mutex(this));
    for (auto known = programs_.rbegin(); known != programs_.rend(); ++known) {
      if ((*known)->text != text) continue;
      std::swap(*known, programs_.back());
      return programs_.back();
    }
    return nullptr;
  }
  void add(const ProgramPtr& program) {
    const std::lock_guard lock(fork_safe_mutex(this));
    if (programs_.size() == kMostPrograms) programs_.erase(programs_.begin());
    programs_.push_back(program);
  }

 private:
  std::vector<ProgramPtr> programs_;
};

ProgramPtr program_of(std::string_view text) {
  static Programs* programs = new Programs;  // never destroyed: threads may outlive main
  ProgramPtr found = programs->find(text);
  if (found == nullptr) {
    found = parse_island(text);
    programs->add(found);
  }
  return found;
}

void check_count(const char* name, int64_t given, int wanted) {
  TAE_CHECK_VALUE(given == wanted, (Arg{"island", name}),
                  c10::str("hold ", wanted, " tensors, as the program says"), given);
}

ProgramPtr checked(int64_t inputs, int64_t constants, std::string_view text) {
  ProgramPtr program = program_of(text);
  check_count("inputs", inputs, program->inputs);
  check_count("constants", constants, program->constants);
  return program;
}

void check_tensors(const char* name, TensorList list) {
  for (const Tensor& t : list) {
    TAE_CHECK_TYPE(t.defined() && t.is_cpu() && t.layout() == at::kStrided, (Arg{"island", name}),
                   "hold dense CPU tensors",
                   t.defined() ? c10::str("layout ", t.layout(), " on ", t.device()) : std::string("None"));
    TAE_CHECK_TYPE(!t.is_quantized(), (Arg{"island", name}), "hold tensors of no quantized dtype",
                   dtype_name(t.scalar_type()));
    check_storage({"island", name}, t);  // operators of ATen do not look
  }
}

std::vector<Tensor> island(TensorList inputs, TensorList constants, std::string_view text) {
  const ProgramPtr program =
      checked(static_cast<int64_t>(inputs.size()), static_cast<int64_t>(constants.size()), text);
  check_tensors("inputs", inputs);
  check_tensors("constants", constants);
  return run_island(*program, inputs, constants);
}

// For fake kernels, which have no tensors to run with.
void check_island(int64_t inputs, int64_t constants, std::string_view text) {
  checked(inputs, constants, text);
}

std::vector<std::string> operators() { return island_operators(); }

// What a step raised, in the words of the contract, with its type.
[[noreturn]] void raise_from_step(const IslandStep& step, const c10::Error& error) {
  const Arg arg{"island", "inputs"};
  const std::string rule = "suit the operators of the program";
  const std::string got =
      c10::str("tensors of which step '", step.label, "' says: ", error.what_without_backtrace());
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr)
    TORCH_CHECK_WITH(OutOfMemoryError, false, TAE_MESSAGE(arg, rule, got));
  if (dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr)
    TORCH_CHECK_NOT_IMPLEMENTED(false, TAE_MESSAGE(arg, rule, got));
  TAE_CHECK_TYPE(dynamic_cast<const c10::TypeError*>(&error) == nullptr, arg, rule, got);
  TAE_CHECK_INDEX(dynamic_cast<const c10::IndexError*>(&error) == nullptr, arg, rule, got);
  TAE_CHECK_VALUE(false, arg, rule, got);
  TORCH_INTERNAL_ASSERT(false);
}

// Where the values lie that the step is the last to read, those that share memory with none other.
c10::SmallVector<const void*, 4> dying(const IslandStep& step, const std::vector<Tensor>& values) {
  c10::SmallVector<const void*, 4> starts;
  for (int v : step.last_uses) {
    const Tensor& t = values[v];
    if (t.defined() && t.use_count() == 1 && t.storage().use_count() == 1)
      starts.push_back(t.storage().data());
  }
  return starts;
}

// `memory` is null where it does not matter what dies.
std::vector<Tensor> run_steps(const IslandProgram& program, TensorList inputs, TensorList constants,
                              RunMemory* memory) {
  std::vector<Tensor> values(program.values);
  std::copy(inputs.begin(), inputs.end(), values.begin());
  torch::jit::Stack stack;
  int next = program.inputs;
  const auto tensor = [&](const IslandStep::Source& s) -> const Tensor& {
    return s.constant ? constants[s.index] : values[s.index];
  };
  for (const IslandStep& step : program.steps) {
    RECORD_USER_SCOPE(step.label);
    if (memory != nullptr) memory->set_dying(dying(step, values));
    stack.assign(step.arguments.begin(), step.arguments.end());
    for (const auto& s : step.tensors) stack[s.argument] = tensor(s);
    for (const auto& list : step.lists) {
      c10::List<Tensor> tensors;
      for (const auto& s : list.tensors) tensors.push_back(tensor(s));
      stack[list.argument] = std::move(tensors);
    }
    try {
      step.op.callBoxed(stack);
    } catch (const c10::Error& error) {
      raise_from_step(step, error);
    }
    values[next++] = std::move(stack[0]).toTensor();
    stack.clear();
    for (int v : step.last_uses) values[v] = Tensor();
  }
  std::vector<Tensor> results;
  for (int r : program.results) results.push_back(values[r]);
  return results;
}

Tensor copy_of(const Tensor& t) {
  const Arg arg{"island", "inputs"};
  if (!t.is_non_overlapping_and_dense()) return empty_output(arg, t.sizes(), t.scalar_type()).copy_(t);
  return allocate(arg, t.sizes(), [&] { return at::empty_like(t); }).copy_(t);
}

// A result shares memory with nothing that the caller has.
void separate(std::vector<Tensor>* results, TensorList inputs, TensorList constants) {
  for (size_t i = 0; i < results->size(); ++i) {
    Tensor& result = (*results)[i];
    const auto shares = [&](const Tensor& t) { return t.is_alias_of(result); };
    if (std::any_of(inputs.begin(), inputs.end(), shares) ||
        std::any_of(constants.begin(), constants.end(), shares) ||
        std::any_of(results->begin(), results->begin() + static_cast<int64_t>(i), shares) ||
        !result.is_non_overlapping_and_dense())
      result = copy_of(result);
  }
}

std::vector<Tensor> run(const IslandProgram& program, TensorList inputs, TensorList constants) {
  const MemoryPlans::Key key = MemoryPlans::key_of(inputs);
  const MemoryPlans::Choice choice = program.plans.choose(key);
  if (choice.plain) return run_steps(program, inputs, constants, nullptr);
  RunMemory memory(choice.plan);
  std::vector<Tensor> results;
  {
    const ResultAllocator scope(memory.allocator());
    results = run_steps(program, inputs, constants, memory.asks_for_dying() ? &memory : nullptr);
  }
  if (choice.plan == nullptr)
    program.plans.keep(key, memory.noted());
  else if (!memory.followed())
    program.plans.drop(key);
  return results;
}

std::vector<std::vector<int64_t>> plans_of(std::string_view text) {
  std::vector<std::vector<int64_t>> rows;
  for (const auto& plan : program_of(text)->plans.all())
    rows.push_back({static_cast<int64_t>(plan->block_bytes), static_cast<int64_t>(plan->separate_bytes),
                    static_cast<int64_t>(plan->places.size()), plan->in_place});
  return rows;
}

}  // namespace

std::vector<Tensor> run_island(const IslandProgram& program, TensorList inputs, TensorList constants) {
  const SerialAfterFork serial;
  const at::AutoDispatchBelowADInplaceOrView guard;
  std::vector<Tensor> results = run(program, inputs, constants);
  separate(&results, inputs, constants);
  return results;
}

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def("island(Tensor[] inputs, Tensor[] constants, str program) -> Tensor[]");
  m.def("_check_island(int inputs, int constants, str program) -> ()", TORCH_FN(check_island));
  m.def("_island_plans(str program) -> int[][]", TORCH_FN(plans_of));
  m.def("_island_operators() -> str[]", TORCH_FN(operators));
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("island", TORCH_FN(island)); }
TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("island", TORCH_FN((InferenceOnly<"island", island>::call)));
}

}  // namespace tae
