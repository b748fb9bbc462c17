// Element types the engines know. Torch-free: kernels and engines must not
// depend on torch headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tae {

enum class DType : uint8_t { f32, bf16, qs8, qu8, s32 };

constexpr size_t size_of(DType d) {
  return d == DType::f32 || d == DType::s32 ? 4 : d == DType::bf16 ? 2 : 1;
}

constexpr bool is_quantized(DType d) { return d == DType::qs8 || d == DType::qu8; }

constexpr int32_t quant_min(DType d) { return d == DType::qs8 ? -128 : 0; }
constexpr int32_t quant_max(DType d) { return d == DType::qs8 ? 127 : 255; }

constexpr const char* name_of(DType d) {
  switch (d) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::qs8:
      return "qs8";
    case DType::qu8:
      return "qu8";
    case DType::s32:
      return "s32";
  }
  return "?";
}

}  // namespace tae
