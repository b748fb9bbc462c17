#include "engines/xnnpack/xnnpack.h"

#include <cpuinfo.h>

#include "core/fork.h"

namespace tae::xnnpack {

const char* xnnpack_version() { return "2024-11-08 4ea82e5"; }

const char* status_name(xnn_status status) {
  switch (status) {
    case xnn_status_success:
      return "success";
    case xnn_status_uninitialized:
      return "uninitialized";
    case xnn_status_invalid_parameter:
      return "invalid parameter";
    case xnn_status_invalid_state:
      return "invalid state";
    case xnn_status_unsupported_parameter:
      return "unsupported parameter";
    case xnn_status_unsupported_hardware:
      return "unsupported hardware";
    case xnn_status_out_of_memory:
      return "out of memory";
    case xnn_status_reallocation_required:
      return "reallocation required";
    default:
      return "unknown status";
  }
}

std::string init_error() {
  const DelayFork delay;
  // The null allocator is the default one; the first call fixes the kernels.
  static const xnn_status status = xnn_initialize(nullptr);
  if (status == xnn_status_success) return {};
  return std::string("xnn_initialize: ") + status_name(status);
}

GemmShape qs8_gemm_shape() {
  const cpuinfo_x86_isa& isa = cpuinfo_isa;
  if (isa.avx512vnni) return {7, "7x16c8 avx512vnni"};
  if (isa.avxvnni) return {5, "5x8c8 avxvnni"};
  if (isa.avx512bw) return {7, "7x16c8 avx512skx"};
  if (isa.avx2) return {3, "3x8c8 avx2"};
  if (isa.sse4_1) return {3, "3x4c8 sse41"};
  return {3, "3x4c8 sse2"};
}

GemmShape qd8_gemm_shape() {
  const cpuinfo_x86_isa& isa = cpuinfo_isa;
  if (isa.avx512vnni) return {10, "10x16c8 avx512vnni"};
  if (isa.avxvnni) return {5, "5x8c8 avxvnni"};
  if (isa.avx512bw) return {8, "8x16c8 avx512skx"};
  if (isa.avx2) return {4, "4x8c8 avx2"};
  if (isa.sse4_1) return {4, "4x4c8 sse41"};
  return {4, "4x4c8 sse2"};
}

namespace {

// Pieces of xnn_weights_cache_provider; context is the PackedWeights' data slot.
// One entry only, so keys and offsets carry no information.
constexpr size_t kNotFound = SIZE_MAX;

}  // namespace

PackedWeights::PackedWeights() {
  provider_.context = this;
  provider_.look_up = [](void* self, const xnn_weights_cache_look_up_key*) {
    return static_cast<PackedWeights*>(self)->data_ ? size_t{0} : kNotFound;
  };
  provider_.reserve_space = [](void* self, size_t bytes) -> void* {
    auto* weights = static_cast<PackedWeights*>(self);
    void* data = nullptr;
    if (posix_memalign(&data, 64, bytes) != 0) return nullptr;
    weights->data_.reset(data);
    weights->bytes_ = bytes;
    return data;
  };
  provider_.look_up_or_insert = [](void*, const xnn_weights_cache_look_up_key*, void*, size_t) {
    return size_t{0};
  };
  provider_.is_finalized = [](void*) { return true; };
  provider_.offset_to_addr = [](void* self, size_t) {
    return static_cast<PackedWeights*>(self)->data_.get();
  };
  provider_.delete_cache = [](void*) { return xnn_status_success; };
}

}  // namespace tae::xnnpack
