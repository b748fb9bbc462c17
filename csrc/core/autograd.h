// Inference only: the forward of every op runs with inputs that require grad, its
// backward raises. Registered at the Autograd key beside the kernel itself, unboxed:
// torch's own fallback for this boxes each call (about 2 us).
#pragma once

#include <algorithm>

#include "core/torch_api.h"

namespace tae {

// "linear" or "linear.tensor" as a template argument.
template <size_t N>
struct OpName {
  char text[N];
  constexpr OpName(const char (&t)[N]) { std::copy_n(t, N, text); }
  const char* c_str() const { return text; }
};

namespace detail {

struct TensorScan {
  c10::SmallVector<at::Tensor, 4> requires_grad;
  const at::Tensor* tangent = nullptr;  // carries a forward-mode gradient

  void see(const at::Tensor& t) {
    if (!t.defined()) return;
    if (t.requires_grad()) requires_grad.push_back(t);
    if (t._fw_grad(/*level=*/0).defined()) tangent = &t;
  }
  void see(const std::optional<at::Tensor>& t) {
    if (t.has_value()) see(*t);
  }
  void see(at::TensorList list) {
    for (const at::Tensor& t : list) see(t);
  }
  template <typename T>
  void see(const T&) {}
};

// Quick test without a copy of anything: no tensor has autograd metadata.
inline bool plain(const at::Tensor& t) {
  return !t.defined() || t.unsafeGetTensorImpl()->autograd_meta() == nullptr;
}
inline bool plain(const std::optional<at::Tensor>& t) { return !t.has_value() || plain(*t); }
inline bool plain(at::TensorList list) {
  return std::all_of(list.begin(), list.end(), [](const at::Tensor& t) { return plain(t); });
}
template <typename T>
bool plain(const T&) {
  return true;
}

[[noreturn]] void raise_forward_mode(const char* op);
// Makes `output` depend on the inputs through a node that raises in backward. Integer
// outputs stay as they are: nothing can flow back through them.
void attach_raising_node(const char* op, const TensorScan& inputs, const at::Tensor& output);

template <typename... Outputs>
void attach_all(const char* op, const TensorScan& inputs, const std::tuple<Outputs...>& outputs) {
  std::apply([&](const auto&... o) { (attach_raising_node(op, inputs, o), ...); }, outputs);
}
inline void attach_all(const char* op, const TensorScan& inputs, const at::Tensor& output) {
  attach_raising_node(op, inputs, output);
}
inline void attach_all(const char* op, const TensorScan& inputs, const std::vector<at::Tensor>& outputs) {
  for (const at::Tensor& o : outputs) attach_raising_node(op, inputs, o);
}

c10::OperatorHandle find_op(const char* name_and_overload);

}  // namespace detail

// The Autograd kernel of torch_ao::<Name>, whose own kernel is `Kernel`:
//   m.impl("linear", TORCH_FN((InferenceOnly<"linear", linear>::call)));
template <OpName Name, auto Kernel>
struct InferenceOnly;

template <OpName Name, typename Result, typename... Args, Result (*Kernel)(Args...)>
struct InferenceOnly<Name, Kernel> {
  static Result call(c10::DispatchKeySet keys, Args... args) {
    static const auto op = detail::find_op(Name.c_str()).template typed<Result(Args...)>();
    const c10::DispatchKeySet below = keys & c10::after_ADInplaceOrView_keyset;
    if ((detail::plain(args) && ...)) return op.redispatch(below, args...);

    detail::TensorScan scan;
    (scan.see(args), ...);
    if (scan.tangent != nullptr) detail::raise_forward_mode(Name.c_str());
    const bool record = at::GradMode::is_enabled() && !scan.requires_grad.empty();
    if constexpr (std::is_void_v<Result>) {
      at::AutoDispatchBelowADInplaceOrView guard;
      op.redispatch(below, args...);
    } else {
      Result result = [&] {
        at::AutoDispatchBelowADInplaceOrView guard;
        return op.redispatch(below, args...);
      }();
      if (record) detail::attach_all(Name.c_str(), scan, result);
      return result;
    }
  }
};

}  // namespace tae
