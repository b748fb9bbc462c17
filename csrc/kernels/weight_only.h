// Steps of a product of float rows with 8-bit or 4-bit weights (engines/weight_only.h): groups
// of a row become bytes of a high plane and, where needed, of a low one; each plane meets the
// weights of its group, and its sums are added in f32. One table per ISA.
//
// 8-bit weights: the panels of gemm_block.h; bytes are w + 128 for kernels that have rows8.
// 4-bit weights, one block for each panel of 64 columns and group of k:
//   [group / 8][64][4] bytes, the low nibble of byte i is k = 8 * step + i, the high one
//   k = 8 * step + 4 + i, both as w + 8;  then [64] f32 scales
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

constexpr int64_t kStep4 = 256;  // bytes of 8 k and 64 columns
// Rows whose sums of one panel stay in L1.
constexpr int64_t kWeightOnlyRows = 36;

// What one plane of some rows has beside its bytes, of one group.
struct PlaneScales {
  float* scale = nullptr;    // of a step; NaN: the group is not finite
  int32_t* start = nullptr;  // of the sums: -offset * sum of the bytes, for w + offset in the place of w
};

// One row on its way to its planes. What belongs to group g lies g * `stride` elements behind
// that of the first, bytes of a plane g * stride * group.
struct PlaneRow {
  int64_t k = 0;
  int64_t group = 0;
  uint8_t flip = 0;    // 0x80: bytes as u8, with 128 added
  int32_t offset = 0;  // of the weights
  float two_planes_below = 0.f;
  int64_t stride = 0;
  uint8_t* high = nullptr;  // of this row
  PlaneScales high_scales;  // of this row
  // The low planes of the rows that have one, one behind the other: this row appends its own.
  uint8_t* low = nullptr;
  PlaneScales low_scales;
  uint8_t* low_row = nullptr;    // whose it is
  int32_t* low_count = nullptr;  // of group g: [g]
  uint8_t row = 0;
};

// One plane of some rows times the weights of one panel and group:
//   v[row[i]][64] += f32(start[i] + sum x[i] w) * scale[i] (* weight scale with 4 bits)
struct WeightOnlyGroup {
  const uint8_t* x = nullptr;  // s8
  int64_t x_stride = 0;
  int64_t rows = 0;
  const float* scale = nullptr;
  const int32_t* start = nullptr;
  const uint8_t* row = nullptr;
  const uint8_t* weight = nullptr;
  int64_t group = 0;
  bool fetch = false;  // the memory behind the weights is wanted next
  float* v = nullptr;
};

// One row times the weights of consecutive panels: v[64 * panels].
struct WeightOnlyRow {
  int64_t groups = 0;
  int64_t group = 0;
  const uint8_t* high = nullptr;  // s8, both planes
  const uint8_t* low = nullptr;
  PlaneScales high_scales;             // [groups]
  PlaneScales low_scales;              // [groups], where low_count is not 0
  const int32_t* low_count = nullptr;  // [groups]
  const uint8_t* weight = nullptr;
  int64_t panel_bytes = 0;
  int64_t panels = 0;
  float* v = nullptr;
};

struct WeightOnlyKernels {
  const char* name;
  // Return r of the row; scales are stored divided by it.
  float (*to_planes_f32)(const float* src, const PlaneRow& row);
  float (*to_planes_bf16)(const uint16_t* src, const PlaneRow& row);
  // 8 * steps values of k for 64 columns: [2 * steps][64][4] int8.
  void (*unpack4)(const uint8_t* packed, int64_t steps, int8_t* out);
  // v[64] += f32(c - 128 * column_sum) * scale * weight_scale; null: 1.
  void (*accumulate)(const int32_t* c, const int32_t* column_sum, float scale, const float* weight_scale,
                     float* v);
  // out[j] = v[j] * (row_scale * weight_scale[j]) + bias[j]; null: 1 and nothing.
  void (*finish_f32)(const float* v, float row_scale, const float* weight_scale, const float* bias,
                     int64_t count, float* out);
  void (*finish_bf16)(const float* v, float row_scale, const float* weight_scale, const float* bias,
                      int64_t count, uint16_t* out);
  // All four or none: the GEMM's way serves everything.
  void (*row8)(const WeightOnlyRow& row);
  void (*row4)(const WeightOnlyRow& row);
  void (*rows8)(const WeightOnlyGroup& g);
  void (*rows4)(const WeightOnlyGroup& g);
};

// The table of the best level <= isa that has one (portable, avx2, avx512, avx512_vnni).
const WeightOnlyKernels& weight_only_kernels(Isa isa);

}  // namespace tae::kernels
