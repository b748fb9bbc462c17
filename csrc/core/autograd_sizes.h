// InferenceOnly of an operator whose lists of numbers are sizes (SymInt[] in its schema).
#pragma once

#include <type_traits>

#include "core/autograd.h"

namespace tae {
namespace detail {

template <auto Kernel>
struct Symbolic;

// The kernel's type with symbolic sizes. InferenceOnly calls the dispatcher and never this pointer.
template <typename Result, typename... Args, Result (*Kernel)(Args...)>
struct Symbolic<Kernel> {
  template <typename T>
  using Of = std::conditional_t<std::is_same_v<T, at::IntArrayRef>, c10::SymIntArrayRef, T>;
  static constexpr Result (*kernel)(Of<Args>...) = nullptr;
};

}  // namespace detail

template <OpName Name, auto Kernel>
struct InferenceOnlyOfSizes : InferenceOnly<Name, detail::Symbolic<Kernel>::kernel> {};

}  // namespace tae
