// quantize and dequantize whose result has another memory order than their input: each thread has
// pixels of its own on both sides, so that no core waits for what another one wrote.
#pragma once

#include "ops/quantize_common.h"

namespace tae {

// Bytes or floats, `count` elements that lie one after the other.
struct Run {
  const uint8_t* src;
  uint8_t* dst;
  int64_t count;
};

// An Elementwise whose output has the memory format, which may not be the input's. To channels last the
// results must be bytes to go there at once, from it the input; else a copy of the input is read.
class Formatted {
 public:
  // nullopt and preserve_format: the input's order. channels_last: [N, *S, C], of 3 to 5 dimensions.
  Formatted(const char* op, const at::Tensor& input, at::ScalarType dtype,
            std::optional<at::MemoryFormat> format);

  // body(run) for all elements, by threads.
  void for_runs(c10::function_ref<void(const Run&)> body) const;

  const at::Tensor& output() const { return e_.output; }

 private:
  enum class Move { none, to_channels_last, from_channels_last };

  void set_order(const Arg& arg, const at::Tensor& input, at::ScalarType dtype, at::MemoryFormat format);
  void to_channels_last(int64_t first, int64_t count, int64_t end,
                        c10::function_ref<void(const Run&)> body) const;
  void from_channels_last(int64_t first, int64_t count, c10::function_ref<void(const Run&)> body) const;

  Elementwise e_;
  Move move_ = Move::none;
  int64_t channels_ = 1, pixels_ = 1;    // of a sample, where it moves
  int64_t src_size_ = 1, dst_size_ = 1;  // bytes of an element
};

}  // namespace tae
