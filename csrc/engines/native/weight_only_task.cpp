// A task of linear_weight_only: its rows as planes, and a panel of weights times them.
#include "engines/native/weight_only_task.h"

#include <algorithm>
#include <cstring>

namespace tae::native {
namespace {

// 0, 1, ...: the rows of high planes.
struct RowNumbers {
  uint8_t row[kWeightOnlyRows];
  constexpr RowNumbers() : row() {
    for (int64_t i = 0; i < kWeightOnlyRows; ++i) row[i] = static_cast<uint8_t>(i);
  }
};
constexpr RowNumbers kRowNumbers;

}  // namespace

// Rows m .. m + rows of x.
void NativeWeightOnly::to_planes(const WeightOnlyArgs& args, const Scratch& s, int64_t m,
                                 int64_t rows) const {
  const int64_t tiles = ceil_div(rows, s.tile_rows);
  std::memset(s.low_count, 0, static_cast<size_t>(tiles * groups_) * sizeof(int32_t));
  kernels::PlaneRow row;
  row.k = k_;
  row.group = group_;
  row.flip = own_rows() ? 0 : 0x80;
  row.offset = !own_rows() ? 0 : bits_ == 8 ? 128 : 8;
  row.two_planes_below = two_planes_below_;
  row.stride = s.tile_rows;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t tile = i / s.tile_rows, at = tile * groups_ * s.tile_rows, r = i % s.tile_rows;
    row.high = s.high + (at + r) * group_;
    row.high_scales = {s.high_scales.scale + at + r, s.high_scales.start + at + r};
    row.low = s.low + at * group_;
    row.low_scales = {s.low_scales.scale + at, s.low_scales.start + at};
    row.low_row = s.low_row + at;
    row.low_count = s.low_count + tile * groups_;
    row.row = static_cast<uint8_t>(r);
    const int64_t from = (m + i) * args.input_stride;
    s.row_scales[i] = dtype_ == DType::bf16
                          ? kernels_.to_planes_bf16(static_cast<const uint16_t*>(args.input) + from, row)
                          : kernels_.to_planes_f32(static_cast<const float*>(args.input) + from, row);
  }
}

void NativeWeightOnly::finish(const WeightOnlyArgs& args, float scale, const float* v, int64_t m, int64_t n0,
                              int64_t count) const {
  const float* weight_scale = weight_scale_.empty() ? nullptr : weight_scale_.data() + n0;
  const float* bias = bias_.empty() ? nullptr : bias_.data() + n0;
  if (dtype_ == DType::bf16)
    kernels_.finish_bf16(v, scale, weight_scale, bias, count,
                         static_cast<uint16_t*>(args.output) + m * n_ + n0);
  else
    kernels_.finish_f32(v, scale, weight_scale, bias, count, static_cast<float*>(args.output) + m * n_ + n0);
}

void NativeWeightOnly::run_row(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t p0,
                               int64_t p1) const {
  kernels::WeightOnlyRow row;
  row.groups = groups_;
  row.group = group_;
  row.high = s.high;
  row.low = s.low;
  row.high_scales = s.high_scales;
  row.low_scales = s.low_scales;
  row.low_count = s.low_count;
  row.weight = block(p0, 0);
  row.panel_bytes = panel_bytes();
  row.panels = p1 - p0;
  row.v = s.v;
  (bits_ == 8 ? kernels_.row8 : kernels_.row4)(row);
  const int64_t n0 = p0 * kPanelColumns;
  finish(args, s.row_scales[0], s.v, m, n0, std::min(p1 * kPanelColumns, n_) - n0);
}

// The planes of `rows` rows from m times one panel.
void NativeWeightOnly::run_panel(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                 int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  const auto run = bits_ == 8 ? kernels_.rows8 : kernels_.rows4;
  for (int64_t r = 0, at = 0; r < rows; r += s.tile_rows) {
    const int64_t count = std::min(s.tile_rows, rows - r);
    std::memset(s.v, 0, static_cast<size_t>(count * kPanelColumns) * sizeof(float));
    for (int64_t group = 0; group < groups_; ++group, at += s.tile_rows) {
      kernels::WeightOnlyGroup g;
      g.x = s.high + at * group_;
      g.x_stride = group_;
      g.rows = count;
      g.scale = s.high_scales.scale + at;
      g.start = s.high_scales.start + at;
      g.row = kRowNumbers.row;
      g.weight = block(p, group);
      g.group = group_;
      g.fetch = true;
      g.v = s.v;
      run(g);
      g.rows = s.low_count[at / s.tile_rows];
      if (g.rows == 0) continue;
      g.x = s.low + at * group_;
      g.scale = s.low_scales.scale + at;
      g.start = s.low_scales.start + at;
      g.row = s.low_row + at;
      g.fetch = false;
      run(g);
    }
    for (int64_t i = 0; i < count; ++i)
      finish(args, s.row_scales[r + i], s.v + i * kPanelColumns, m + r + i, n0, columns);
  }
}

// `block` is set but for the sums; scale [block->rows], v of the tile's first row.
void NativeWeightOnly::add_plane_gemm(const Scratch& s, GemmBlock* block, const uint8_t* row,
                                      const float* scale, const int32_t* column_sum,
                                      const float* weight_scale, float* v) const {
  block->c = s.c;
  gemm_.block(*block);
  for (int64_t i = 0; i < block->rows; ++i)
    kernels_.accumulate(s.c + i * kPanelColumns, column_sum, scale[i], weight_scale,
                        v + row[i] * kPanelColumns);
}

void NativeWeightOnly::run_panel_gemm(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                      int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  std::memset(s.v, 0, static_cast<size_t>(rows * kPanelColumns) * sizeof(float));
  for (int64_t group = 0; group < groups_; ++group) {
    const uint8_t* weight = block(p, group);
    const int32_t* column_sum = group_sums_.data() + (p * groups_ + group) * kPanelColumns;
    const float* weight_scale = nullptr;
    GemmBlock g;
    g.b = reinterpret_cast<const int8_t*>(weight);
    g.quads = group_ / 4;
    if (bits_ == 4) {
      kernels_.unpack4(weight, group_ / 8, s.unpacked);
      weight_scale = reinterpret_cast<const float*>(weight + weight4_.weight_bytes());
      g.b = s.unpacked;
      g.a = s.ones;
      g.a_stride = group_;
      g.rows = 1;
      g.c = s.ones_c;
      gemm_.block(g);
      column_sum = s.ones_c;
    }
    const bool last = group + 1 == groups_ && p + 1 == panels();
    g.next = reinterpret_cast<const int8_t*>(weight) + block_bytes();
    g.next_bytes = last ? 0 : block_bytes();
    for (int64_t r = 0, tile = 0; r < rows; r += s.tile_rows, ++tile) {
      const int64_t at = (tile * groups_ + group) * s.tile_rows;
      float* v = s.v + r * kPanelColumns;
      g.a = s.high + at * group_;
      g.a_stride = group_;
      g.rows = std::min(s.tile_rows, rows - r);
      add_plane_gemm(s, &g, kRowNumbers.row, s.high_scales.scale + at, column_sum, weight_scale, v);
      g.next_bytes = 0;
      g.rows = s.low_count[at / s.tile_rows];
      if (g.rows == 0) continue;
      g.a = s.low + at * group_;
      add_plane_gemm(s, &g, s.low_row + at, s.low_scales.scale + at, column_sum, weight_scale, v);
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    finish(args, s.row_scales[i], s.v + i * kPanelColumns, m + i, n0, columns);
}

void NativeWeightOnly::run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t r0, int64_t r1,
                                int64_t p0, int64_t p1) const {
  for (int64_t m = r0; m < r1; m += s.set_rows) {
    const int64_t rows = std::min(s.set_rows, r1 - m);
    to_planes(args, s, m, rows);
    if (by_row(args)) {
      run_row(args, s, m, p0, p1);
      continue;
    }
    for (int64_t p = p0; p < p1; ++p) {
      if (own_rows())
        run_panel(args, s, m, rows, p);
      else
        run_panel_gemm(args, s, m, rows, p);
    }
  }
}

}  // namespace tae::native
