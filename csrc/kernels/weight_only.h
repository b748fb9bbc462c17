// Steps of a product of float rows with 8-bit or 4-bit weights (engines/weight_only.h):
// rows become u8 planes, the int8 GEMM (gemm.h) multiplies every plane, the sums come
// together again in f32. One table per ISA.
//
// A row x is q = round(x / s), |q| <= 32639 (two planes) or 127 (one). Planes hold
//   two: q + 32896 = 256 * high + low        one: q + 128 = high
// so that both are u8 as the GEMM reads them. Bytes behind k meet weights of 0.
//
// 4-bit weights, one block for each panel of 64 columns and group of k:
//   [group / 8][64][4] bytes, the low nibble of byte i is k = 8 * step + i, the high one
//   k = 8 * step + 4 + i, both as w + 8;  then [64] f32 scales
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

constexpr int64_t kStep4 = 256;  // bytes of 8 k and 64 columns

constexpr int32_t plane_limit(int planes) { return planes == 2 ? 32639 : 127; }
constexpr int32_t plane_offset(int planes) { return planes == 2 ? 32896 : 128; }

// The planes of one row, k_pad bytes each.
struct PlaneRow {
  int planes = 2;
  uint8_t flip = 0;  // 0x80: bytes as s8
  float inverse_scale = 0.f;
  int64_t k = 0;
  int64_t k_pad = 0;
  uint8_t* high = nullptr;
  uint8_t* low = nullptr;  // two planes only
};

// One row times the weights of consecutive panels, sums as the tables below make them.
struct WeightOnlyRow {
  int planes = 2;
  const uint8_t* high = nullptr;
  const uint8_t* low = nullptr;
  const uint8_t* weight = nullptr;
  int64_t panel_bytes = 0;
  int64_t panels = 0;
  int64_t k_pad = 0;
  int64_t group = 0;                    // 4 bit
  const int32_t* group_sums = nullptr;  // 4 bit: [k_pad / group]
  const int32_t* column_sum = nullptr;  // 8 bit: [64 * panels]
  float* v = nullptr;                   // [64 * panels]
};

// Some rows times one block of 4-bit weights: v[rows][64] += their terms of the group.
struct WeightOnlyGroup {
  int planes = 2;
  int64_t rows = 0;
  const uint8_t* x = nullptr;           // at the group's first k; the planes of a row, then the next row
  int64_t x_stride = 0;                 // from plane to plane
  const int32_t* group_sums = nullptr;  // of this group and the first row
  int64_t sums_stride = 0;              // from row to row
  const uint8_t* weight = nullptr;
  int64_t group = 0;
  bool fetch = false;  // the memory behind the block is wanted next
  float* v = nullptr;
};

struct WeightOnlyKernels {
  const char* name;
  void (*to_planes_f32)(const float* src, const PlaneRow& row);
  void (*to_planes_bf16)(const uint16_t* src, const PlaneRow& row);
  // 8 * steps values of k for 64 columns: [2 * steps][64][4] int8.
  void (*unpack4)(const uint8_t* packed, int64_t steps, int8_t* out);
  // v[64] = 256 * f32(high - 128 * column_sum) + f32(low - 128 * column_sum), or the
  // first term without the factor.
  void (*combine8)(int planes, const int32_t* high, const int32_t* low, const int32_t* column_sum, float* v);
  // v[64] += f32(256 * high + low - offset * column_sum) * scale, or high alone; exact
  // inside f32().
  void (*accumulate4)(int planes, const int32_t* high, const int32_t* low, const int32_t* column_sum,
                      const float* scale, float* v);
  // out[j] = v[j] * (row_scale * weight_scale[j]) + bias[j]; null: 1 and nothing.
  void (*finish_f32)(const float* v, float row_scale, const float* weight_scale, const float* bias,
                     int64_t count, float* out);
  void (*finish_bf16)(const float* v, float row_scale, const float* weight_scale, const float* bias,
                      int64_t count, uint16_t* out);
  // All four or none: the GEMM's way serves everything. 4 bit: planes with flip 0x80, and
  // group_sums the -8 * sum of q over each group, for w + 8 in the place of w.
  void (*row8)(const WeightOnlyRow& row);
  void (*row4)(const WeightOnlyRow& row);
  void (*rows4)(const WeightOnlyGroup& g);
  void (*sum_groups)(int planes, const uint8_t* high, const uint8_t* low, int64_t k_pad, int64_t group,
                     int32_t* sums);
};

// The table of the best level <= isa that has one (portable, avx2, avx512, avx512_vnni).
const WeightOnlyKernels& weight_only_kernels(Isa isa);

}  // namespace tae::kernels
