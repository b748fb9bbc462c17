// Shared by the kernel tests: buffers between unmapped pages, levels to run, bit
// comparison, a changed floating-point environment.
#pragma once

#include <sys/mman.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include "core/cpu_features.h"

namespace tae::test {

// count elements that begin right after an unmapped page (kStart) or end right
// before one (kEnd), so that a step outside faults.
enum class Edge { kStart, kEnd };

template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t count, Edge edge = Edge::kEnd) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    const size_t inner = (bytes + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    // qemu 7.2 reads the masked-off lanes of vpmaskmov: there the pages must stay open.
    if (std::getenv("TAE_TEST_NO_GUARD_PAGES") != nullptr) mprotect(base_, mapped_, PROT_READ | PROT_WRITE);
    if (inner != 0 && mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>(base_ + page + (edge == Edge::kEnd ? inner - bytes : 0));
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  int64_t size() const { return count_; }
  T& operator[](int64_t i) { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }

 private:
  int64_t count_;
  size_t mapped_ = 0;
  char* base_ = nullptr;
  T* data_ = nullptr;
};

// Levels with code of their own in rows, epilogue and quantize that may run here.
inline std::vector<Isa> kernel_levels() {
  std::vector<Isa> levels;
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
    if (usable(isa)) levels.push_back(isa);
  return levels;
}

// Equal bits; any NaN equals any NaN (which one comes out is not specified).
inline bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

inline uint16_t to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rounding upward, denormals flushed on input and output, as a caller may have it.
class HostileFloatEnv {
 public:
  HostileFloatEnv() : saved_(_mm_getcsr()) {
    std::fesetround(FE_UPWARD);
    _mm_setcsr(_mm_getcsr() | 0x8040);
  }
  ~HostileFloatEnv() {
    std::fesetround(FE_TONEAREST);
    _mm_setcsr(saved_);
  }
  // The control bits (not the sticky flags) are what the constructor set.
  bool intact() const { return (_mm_getcsr() & 0xffc0) == ((saved_ & 0x1f80) | 0x4000 | 0x8040); }

 private:
  unsigned saved_;
};

inline float random_bits(std::mt19937& rng) { return std::bit_cast<float>(static_cast<uint32_t>(rng())); }

inline int random_int(std::mt19937& rng, int lo, int hi) {
  return std::uniform_int_distribution<int>(lo, hi)(rng);
}

inline float random_float(std::mt19937& rng, float lo, float hi) {
  return std::uniform_real_distribution<float>(lo, hi)(rng);
}

}  // namespace tae::test
