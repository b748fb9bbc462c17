// The floating-point environment that the numeric rules assume: round to nearest
// even, denormals kept, exceptions masked. A caller may have changed it
// (fesetround, torch.set_flush_denormal); results must not depend on that.
#pragma once

#include <xmmintrin.h>

namespace tae::kernels {
namespace {

// Use in a thin entry function that calls a [[gnu::noinline]] body: the compiler
// does not know that arithmetic depends on MXCSR and could move it across.
class DefaultFloatEnv {
 public:
  [[gnu::always_inline]] inline DefaultFloatEnv() : saved_(_mm_getcsr()) {
    // ldmxcsr costs tens of cycles; the usual case only reads.
    if (changed()) _mm_setcsr(kDefault);
    __asm__ volatile("" ::: "memory");
  }
  [[gnu::always_inline]] inline ~DefaultFloatEnv() {
    __asm__ volatile("" ::: "memory");
    if (changed()) _mm_setcsr(saved_);
  }
  DefaultFloatEnv(const DefaultFloatEnv&) = delete;
  DefaultFloatEnv& operator=(const DefaultFloatEnv&) = delete;

 private:
  static constexpr unsigned kDefault = 0x1f80;
  static constexpr unsigned kStickyFlags = 0x3f;

  [[gnu::always_inline]] inline bool changed() const { return (saved_ & ~kStickyFlags) != kDefault; }

  unsigned saved_;
};

}  // namespace
}  // namespace tae::kernels
