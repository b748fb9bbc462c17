// GEMM on AMX tiles. 32 rows by 32 columns: four tiles accumulate, two hold
// input (16 rows by 64 k) and two weights (16 k-quads by 16 columns), so that
// four tile loads feed four TDPBUSD of 16 cycles each.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// Palette 1: every tile 16 rows by 64 bytes. Layout: Intel SDM volume 1, 18.3.
struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t bytes_per_row[16];
  uint8_t rows[16];
};
constexpr TileConfig kFullTiles = {.palette = 1,
                                   .start_row = 0,
                                   .reserved = {},
                                   .bytes_per_row = {64, 64, 64, 64, 64, 64, 64, 64},
                                   .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

// Columns of a panel are kQuadBytes apart from one k-quad to the next.
constexpr int64_t kStep = 16 * kQuadBytes;  // 64 values of k

// Prefetches for one register tile, a share with every step of 64 k: in one go
// they would keep the tile loads waiting.
struct Fetch {
  const uint8_t* out = nullptr;
  int64_t out_stride = 0;
  int64_t out_bytes = 0;
  int64_t out_rows = 0;  // left to fetch
  int64_t out_share = 0;
  const int8_t* next = nullptr;
  int64_t next_bytes = 0;  // left to fetch
  int64_t next_share = 0;

  inline __attribute__((always_inline)) void step() {
    for (int64_t i = 0; i < out_share && out_rows > 0; ++i) {
      for (int64_t j = 0; j < out_bytes; j += 64) fetch_for_write(out + j);
      out += out_stride;
      --out_rows;
    }
    const int64_t bytes = next_share < next_bytes ? next_share : next_bytes;
    for (int64_t i = 0; i < bytes; i += 64) fetch_to_l2(next + i);
    next += bytes;
    next_bytes -= bytes;
  }
};

// The fetches of rows [r, end) and the i-th of `parts` parts of the width.
Fetch share(const GemmBlock& g, int64_t steps, int64_t r, int64_t end, int64_t i, int64_t parts) {
  Fetch f;
  if (steps == 0) return f;
  if (g.out_bytes != 0) {
    const int64_t width = (g.out_bytes + parts - 1) / parts;
    f.out = g.out + r * g.out_stride + i * width;
    f.out_stride = g.out_stride;
    f.out_bytes = width;
    f.out_rows = end - r;
    f.out_share = (f.out_rows + steps - 1) / steps;
  }
  // Every register tile gets the part of `next` that its area is of the block.
  const int64_t begin = g.next_bytes * (r * parts + i * (end - r)) / (g.rows * parts) / 64 * 64;
  const int64_t limit = g.next_bytes * (r * parts + (i + 1) * (end - r)) / (g.rows * parts) / 64 * 64;
  f.next = g.next + begin;
  f.next_bytes = limit - begin;
  f.next_share = (f.next_bytes / 64 + steps - 1) / steps * 64;
  return f;
}

// Tiles 0..3 accumulate [row half][column half], 4 and 5 input, 6 and 7 weights.
void tile_32x32(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t steps, int32_t* c,
                int64_t c_bytes, bool accumulate, Fetch fetch) {
  uint8_t* const c0 = reinterpret_cast<uint8_t*>(c);
  uint8_t* const c1 = c0 + 16 * c_bytes;
  if (accumulate) {
    _tile_loadd(0, c0, c_bytes);
    _tile_loadd(1, c0 + 64, c_bytes);
    _tile_loadd(2, c1, c_bytes);
    _tile_loadd(3, c1 + 64, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint8_t* a1 = a + 16 * a_stride;
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(6, b, kQuadBytes);
    _tile_loadd(4, a, a_stride);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(7, b + 64, kQuadBytes);
    _tile_dpbusd(1, 4, 7);
    _tile_loadd(5, a1, a_stride);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
    fetch.step();
    a += 64;
    a1 += 64;
    b += kStep;
  }
  _tile_stored(0, c0, c_bytes);
  _tile_stored(1, c0 + 64, c_bytes);
  _tile_stored(2, c1, c_bytes);
  _tile_stored(3, c1 + 64, c_bytes);
}

// The last 16 rows: the whole width of the panel, tile 4 input, 5..7 weights.
void tile_16x64(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t steps, int32_t* c,
                int64_t c_bytes, bool accumulate, Fetch fetch) {
  uint8_t* const c0 = reinterpret_cast<uint8_t*>(c);
  if (accumulate) {
    _tile_loadd(0, c0, c_bytes);
    _tile_loadd(1, c0 + 64, c_bytes);
    _tile_loadd(2, c0 + 128, c_bytes);
    _tile_loadd(3, c0 + 192, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, a, a_stride);
    _tile_loadd(5, b, kQuadBytes);
    _tile_dpbusd(0, 4, 5);
    _tile_loadd(6, b + 64, kQuadBytes);
    _tile_dpbusd(1, 4, 6);
    _tile_loadd(7, b + 128, kQuadBytes);
    _tile_dpbusd(2, 4, 7);
    _tile_loadd(5, b + 192, kQuadBytes);
    _tile_dpbusd(3, 4, 5);
    fetch.step();
    a += 64;
    b += kStep;
  }
  _tile_stored(0, c0, c_bytes);
  _tile_stored(1, c0 + 64, c_bytes);
  _tile_stored(2, c0 + 128, c_bytes);
  _tile_stored(3, c0 + 192, c_bytes);
}

// Reads and writes up to 15 rows behind the last (row_multiple).
void block(const GemmBlock& g) {
  const int64_t steps = g.quads / 16;
  const int64_t c_bytes = g.c_stride * 4;
  int64_t r = 0;
  for (; r + 16 < g.rows; r += 32) {
    const int64_t end = r + 32 < g.rows ? r + 32 : g.rows;
    for (int64_t half = 0; half < 2; ++half)
      tile_32x32(g.a + r * g.a_stride, g.a_stride, g.b + 128 * half, steps, g.c + r * g.c_stride + 32 * half,
                 c_bytes, g.accumulate, share(g, steps, r, end, half, 2));
  }
  if (r < g.rows)
    tile_16x64(g.a + r * g.a_stride, g.a_stride, g.b, steps, g.c + r * g.c_stride, c_bytes, g.accumulate,
               share(g, steps, r, g.rows, 0, 1));
}

void begin() { _tile_loadconfig(&kFullTiles); }
void end() { _tile_release(); }

}  // namespace

extern const GemmKernels kGemmAmx;
const GemmKernels kGemmAmx = {.name = "32x32",
                              .row_multiple = 16,
                              .quad_multiple = 16,
                              .row_unit = 32,
                              .row_block = 32,
                              .tile_bytes = 32 << 10,
                              .k_block = 4096,
                              .block = block,
                              .begin = begin,
                              .end = end};

}  // namespace tae::kernels
