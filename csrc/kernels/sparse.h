// Products of block-sparse int8 weights with a few dozen rows of u8 input. One table
// per ISA. The rows are turned so that one vector holds the same k of many rows:
//
//   quads  xt[k / 4][32 rows][4]         for 1x4 blocks: a block is one 4-byte weight
//   bytes  xt[k][64 rows], in the order  for 8x1 blocks: four lines of any four k are
//          byte 16 * lane + 4 * r + j =  zipped into quads of 16 rows by in-lane unpacks
//          row 16 * r + 4 * lane + j     (lane, r, j in 0..3)
//
// All accumulators are raw sums x_u8 * w, exact in int32 (engines/linear.h).
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

constexpr int64_t kQuadRows = 32;  // input rows of a tile of quads
constexpr int64_t kByteRows = 64;  // input rows of a tile of bytes
constexpr int64_t kQuadLine = 4 * kQuadRows;
constexpr int64_t kByteLine = kByteRows;

// A single row where bytes are gathered by loads: table[k][4] = x, x << 8, x << 16, x << 24,
// so that four bytes from anywhere become a quad by three ORs.
constexpr int64_t kTableLine = 16;

// Input columns whose bytes one permutation reaches.
constexpr int64_t kSegment = 256;

// A 1x4 weight is cut into parts of so many quads of columns: their lines (32 KB) stay in the
// first-level cache, and 16 bits say where one begins.
constexpr int64_t kPartQuads = 256;

// Four rows of a 1x4 weight side by side; `local` has their places among the rows of a chunk.
struct SparseGroup4 {
  int32_t steps;
  uint8_t local[4];
};

// Groups of one part, one after the other: values[step][row][4], offsets[step][row] = where the
// block's quad begins in the part's xt, in eights of bytes. Shorter rows end with zero values.
struct SparseRows4 {
  const int8_t* values;
  const uint16_t* offsets;
  const SparseGroup4* groups;
  int64_t count;
};

// Eight rows of an 8x1 weight: values[group / 2][row][group % 2][4], offsets[group][4] =
// k * kTableLine, spots[group / 2] = where gather() puts the bytes of two groups, in eights
// of bytes. Groups are filled up with zero values.
struct SparseRows8 {
  const int8_t* values;
  const uint32_t* offsets;
  const uint32_t* spots;
  int64_t groups;  // a multiple of 4
};

// The input bytes that some rows of blocks meet. A slot has up to kSlot of one segment,
// places[slot][kSlot] = k % kSegment; the slots of a run share the segment k / kSegment.
constexpr int64_t kSlot = 32;
struct SlotRun {
  uint16_t segment;
  uint16_t slots;
};
struct SparseGather {
  const uint8_t* places;
  const SlotRun* runs;
  int64_t count;
};

struct SparseKernels {
  const char* name;
  // x: `rows` rows of 4 * quads bytes. Rows up to the next multiple of 16 become 0.
  void (*to_quads)(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt);
  void (*to_bytes)(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt);
  // c[local * kQuadRows + row], rows filled to a multiple of 8 at least; added to what is there if `add`.
  void (*rows4)(const SparseRows4& w, const uint8_t* xt, int64_t rows, bool add, int32_t* c);
  // c[r * 64 + row], likewise, never added.
  void (*rows8)(const SparseRows8& w, const uint8_t* xt, int64_t rows, int32_t* c);
  // One input row, by a table (k is a multiple of 16) or gathered as quads[slot][kSlot] from
  // whole segments of x; the other one is null.
  void (*to_table)(const uint8_t* x, int64_t k, uint32_t* table);
  void (*gather)(const SparseGather& w, const uint8_t* x, uint8_t* quads);
  // c[rows][8] from the table or from gathered quads. w: of the first row of blocks; the others follow
  // it, with pairs[r] = groups / 2 of each (even); w.groups is not read.
  void (*gemv8)(const SparseRows8& w, const int32_t* pairs, int64_t rows, const void* input, int32_t* c);
  // dst[j][i] = src[i][j] for 16 by 16 values; strides in elements.
  void (*transpose16)(const int32_t* src, int64_t src_stride, int32_t* dst, int64_t dst_stride);
};

// The table of the best level <= isa that has one (portable, avx2, avx512, avx512_vnni).
const SparseKernels& sparse_kernels(Isa isa);

}  // namespace tae::kernels
