// What the XNNPACK engine's op families share.
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

namespace tae::xnnpack {

// Upstream revision, for `info`.
const char* xnnpack_version();

// Empty once XNNPACK is usable, else the reason why it is not.
std::string init_error();

const char* status_name(xnn_status status);

// Rows of one GEMM tile and the name of the kernels that XNNPACK selects
// (src/configs/gemm-config.c); it works in whole tiles of rows.
struct GemmShape {
  int64_t rows;
  const char* kernel;
};
GemmShape qs8_gemm_shape();
GemmShape qd8_gemm_shape();

// Memory for one operator's packed weights, given to XNNPACK as its weights cache:
// the first operator packs, each later one with this cache uses the same bytes.
class PackedWeights {
 public:
  PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  xnn_weights_cache_t cache() { return &provider_; }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  xnn_weights_cache_provider provider_;
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

}  // namespace tae::xnnpack
