// Matrices of bytes and floats, transposed: [channels, pixels] <-> [pixels, channels]. Single-threaded;
// SSE2, the x86-64 baseline, moves a byte in 0.4 instructions, which is less than its way from L2.
#pragma once

#include <cstdint>

namespace tae::kernels {

// Rows of `stride` bytes, one after the other.
struct ByteRows {
  const uint8_t* data;
  int64_t rows, stride;
};

// Where the columns go, one after the other. Up to 15 bytes behind each may be written too, none at
// `end` and behind it: the caller writes what is there later.
struct ByteColumns {
  uint8_t* data;
  int64_t stride;
  uint8_t* end;
};

// Columns [begin, end) of src become rows of dst.
void transpose_bytes(const ByteRows& src, int64_t begin, int64_t end, const ByteColumns& dst);

// Row c of dst, each dst_stride from the one before, is column c of src: `rows` rows of `columns`.
void transpose_floats(const float* src, int64_t rows, int64_t columns, float* dst, int64_t dst_stride);

}  // namespace tae::kernels
