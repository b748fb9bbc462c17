// Kernels of an operator whose lists of numbers are sizes (SymInt[] in its schema).
#pragma once

#include <type_traits>

#include "core/autograd.h"

namespace tae {
namespace detail {

// torch's own conversion takes numbers below -2^62 for symbols.
struct Numbers {
  c10::SmallVector<int64_t, 6> values;
  operator at::IntArrayRef() const { return values; }
};

inline Numbers concrete(c10::SymIntArrayRef sizes) {
  Numbers numbers;
  for (const c10::SymInt& size : sizes) numbers.values.push_back(size.expect_int());
  return numbers;
}
template <typename T>
const T& concrete(const T& other) {
  return other;
}

template <auto Kernel>
struct Symbolic;

// The kernel's type with symbolic sizes. InferenceOnly calls the dispatcher and never this pointer.
template <typename Result, typename... Args, Result (*Kernel)(Args...)>
struct Symbolic<Kernel> {
  template <typename T>
  using Of = std::conditional_t<std::is_same_v<T, at::IntArrayRef>, c10::SymIntArrayRef, T>;
  static constexpr Result (*kernel)(Of<Args>...) = nullptr;

  static Result call(Of<Args>... args) { return Kernel(concrete(args)...); }
};

}  // namespace detail

// The kernel of tensors with data.
template <auto Kernel>
struct OfSizes {
  static constexpr auto call = detail::Symbolic<Kernel>::call;
};

template <OpName Name, auto Kernel>
struct InferenceOnlyOfSizes : InferenceOnly<Name, detail::Symbolic<Kernel>::kernel> {};

}  // namespace tae
