// A task of linear: its rows in the u8 domain, tiles of rows by panels, their output.
#include "engines/native/linear_task.h"

#include <algorithm>

#include "core/round_up.h"

namespace tae::native {

using kernels::ByteFinish;
using kernels::EpilogueTile;
using kernels::FloatFinish;
using kernels::kPanelColumns;

// Rows [begin, end) of the input as it lies in memory; empty if they are not one piece.
Span NativeLinear::input_span(const Call& call, int64_t begin, int64_t end) const {
  if (call.in_place || call.args.input_stride != weight_.k() || begin >= end) return {};
  const int64_t bytes = weight_.k() * static_cast<int64_t>(size_of(input_dtype_));
  return {static_cast<const int8_t*>(call.args.input) + begin * bytes, (end - begin) * bytes};
}

// Where the kernel finds the rows from r0 on.
QuantizedRows NativeLinear::place_rows(const Call& call, const Scratch& scratch, int64_t r0) const {
  if (call.in_place) {
    scratch.params[0] = input_.static_params(call.args);
    const uint8_t* data = static_cast<const uint8_t*>(call.args.input);
    return {data + r0 * call.args.input_stride, call.args.input_stride, scratch.params, 0};
  }
  return {scratch.rows, row_bytes(), scratch.params, 1};
}

// Rows [begin, end) of those from r0 on.
void NativeLinear::quantize_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t begin,
                                 int64_t end) const {
  if (call.in_place) return;
  input_.quantize(call.rows, r0 + begin, end - begin, scratch.rows + begin * row_bytes(), row_bytes(),
                  scratch.params + begin);
}

// Output of rows [row, row + rows) and panels [p0, p1) from their accumulators.
void NativeLinear::finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row, int64_t rows,
                          int64_t p0, int64_t p1, const int32_t* raw, int64_t raw_stride) const {
  const int64_t n = weight_.n();
  const int64_t n0 = p0 * kPanelColumns;
  const int64_t n1 = p1 * kPanelColumns < n ? p1 * kPanelColumns : n;
  EpilogueTile t;
  t.raw = raw;
  t.raw_stride = raw_stride;
  t.rows = rows;
  t.cols = n1 - n0;
  t.n0 = n0;
  t.row = a.params + a_row * a.step;
  t.row_step = a.step;
  output_.place(call.args, row * n + n0, n, &t);
  epilogue_(call.epilogue, t);
}

// Bytes of later weights that one block of several row tiles may fetch: more would
// fill the queue of misses and hold up the block's own loads. A single tile waits for
// nothing but the next panel and fetches all of it (16x4096x4096: 730 -> 493 us).
constexpr int64_t kMostFetched = 8192;

void NativeLinear::multiply_row(const Call& call, const Scratch& scratch, int64_t row, int64_t p0,
                                int64_t p1) const {
  const QuantizedRows a = place_rows(call, scratch, row);
  quantize_rows(call, scratch, row, 0, 1);
  for (int64_t p = p0; p < p1; p += kGemvPanels) {
    const int64_t end = p + kGemvPanels < p1 ? p + kGemvPanels : p1;
    call.gemm.gemv({.a = a.data,
                    .b = weight_.panel(p),
                    .panel_bytes = weight_.panel_bytes(),
                    .quads = call.blocks.quads,
                    .panels = end - p,
                    .c = scratch.tile});
    finish(call, a, 0, row, 1, p, end, scratch.tile, 0);
  }
}

void NativeLinear::multiply_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t rows,
                                 int64_t p0, int64_t p1) const {
  const QuantizedRows a = place_rows(call, scratch, r0);
  const int64_t tiles = ceil_div(rows, call.blocks.tile_rows);
  if (!call.gemm.fetches_input) quantize_rows(call, scratch, r0, 0, rows);
  for (int64_t p = p0; p < p1; p += call.blocks.tile_panels) {
    const int64_t end = p + call.blocks.tile_panels < p1 ? p + call.blocks.tile_panels : p1;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t r = t * call.blocks.tile_rows;
      const int64_t count = rows - r < call.blocks.tile_rows ? rows - r : call.blocks.tile_rows;
      // Rows are quantized just before the first panels meet them: their input is then in
      // L2, fetched during the tile before (24 MiniLM layers of 1024x384x384: 2 % faster).
      Span ahead;
      if (call.gemm.fetches_input && p == p0) {
        quantize_rows(call, scratch, r0, r, r + count);
        ahead = input_span(call, r0 + r + count, r0 + std::min(rows, r + count + call.blocks.tile_rows));
      }
      // Each row tile fetches its share of the panels that come after these.
      const int64_t from = weight_.panel_bytes() * t / tiles;
      const int64_t to = weight_.panel_bytes() * (t + 1) / tiles;
      for (int64_t i = p; i < end; ++i) {
        const int64_t next = i + call.blocks.tile_panels;
        GemmBlock g;
        g.a = a.data + r * a.stride;
        g.a_stride = a.stride;
        g.c = scratch.tile + (i - p) * kPanelColumns;
        g.c_stride = call.blocks.tile_panels * kPanelColumns;
        g.rows = count;
        if (tiles > 1 && next < p1) {
          g.next = weight_.panel(next) + from;
          g.next_bytes = to - from;
        } else if (tiles == 1 && i + 1 < p1) {
          g.next = weight_.panel(i + 1);
          g.next_bytes = weight_.panel_bytes();
        }
        g.input_bytes = ceil_div(ahead.bytes, end - p);
        g.input = ahead.data + (i - p) * g.input_bytes;
        multiply_panel(call, g, a, r, r0 + r, i, tiles == 1 ? weight_.panel_bytes() : kMostFetched);
      }
      if (!call.floats && !call.bytes)
        finish(call, a, r, r0 + r, count, p, end, scratch.tile, call.blocks.tile_panels * kPanelColumns);
    }
  }
}

// Runs the block over one panel, k block by k block. a_row, row: of the block's first
// row among the quantized rows and in the output.
void NativeLinear::multiply_panel(const Call& call, GemmBlock& g, const QuantizedRows& rows, int64_t a_row,
                                  int64_t row, int64_t panel, int64_t most_fetched) const {
  const int64_t n = weight_.n();
  const int64_t n0 = panel * kPanelColumns;
  const int64_t columns = std::min(n - n0, kPanelColumns);
  const int64_t element_bytes = static_cast<int64_t>(size_of(output_.dtype()));
  const int64_t quads = call.blocks.quads;
  const uint8_t* a = g.a;
  g.columns = columns;
  FloatFinish f;
  ByteFinish bytes;
  if (call.bytes) {
    bytes = bytes_.finish(panel);
    bytes.out = static_cast<uint8_t*>(call.args.output) + row * n + n0;
    bytes.out_stride = n;
    bytes.cols = columns;
    if (call.args.other != nullptr)
      bytes.addend = {static_cast<const uint8_t*>(call.args.other) + row * n + n0, n,
                      call.args.other_zero_point, call.args.other_scale, call.args.other_dtype == DType::qs8};
  }
  if (call.floats) {
    const EpilogueParams& e = call.epilogue;
    f.row = rows.params + a_row * rows.step;
    f.row_step = rows.step;
    f.column_sum = e.column_sum + n0;
    f.weight_scale = e.weight_scale + n0 * e.weight_scale_stride;
    f.weight_scale_stride = e.weight_scale_stride;
    if (e.bias != nullptr) f.bias = e.bias + n0;
    f.out = static_cast<float*>(call.args.output) + row * n + n0;
    f.out_stride = n;
    f.cols = columns;
  }
  // Each k block fetches its share.
  const auto share = [&](int64_t bytes) {
    return quads <= call.blocks.k_quads ? bytes : bytes * call.blocks.k_quads / quads;
  };
  const int64_t fetch = share(g.next_bytes), input_fetch = share(g.input_bytes);
  int64_t q = 0;
  do {
    const int64_t left = quads - q;
    const bool last = left <= call.blocks.k_quads;
    g.a = a + 4 * q;
    g.b = weight_.panel(panel) + q * kernels::kQuadBytes;
    g.quads = last ? left : call.blocks.k_quads;
    g.accumulate = q != 0;
    g.next_bytes = std::min(fetch, most_fetched);
    g.input_bytes = input_fetch;
    if (last) {
      g.out = static_cast<const uint8_t*>(call.args.output) + (row * n + n0) * element_bytes;
      g.out_stride = n * element_bytes;
      g.out_bytes = columns * element_bytes;
      if (call.floats) g.finish = &f;
      if (call.bytes) g.finish_bytes = &bytes;
    }
    call.gemm.block(g);
    g.next += fetch;
    g.input += input_fetch;
    q += call.blocks.k_quads;
  } while (q < quads);
}

void NativeLinear::run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1, int64_t p0,
                            int64_t p1) const {
  for (int64_t r = r0; r < r1; r += call.blocks.rows) {
    const int64_t rows = r1 - r < call.blocks.rows ? r1 - r : call.blocks.rows;
    if (rows == 1 && call.gemm.gemv != nullptr)
      multiply_row(call, scratch, r, p0, p1);
    else
      multiply_rows(call, scratch, r, rows, p0, p1);
  }
}

}  // namespace tae::native
