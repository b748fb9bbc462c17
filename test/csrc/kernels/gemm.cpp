// Raw accumulators of every GEMM kernel this CPU can run, against int64 sums.
#include "kernels/gemm.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/requantize.h"

using namespace tae;
using namespace tae::kernels;

namespace {

// Every level that this CPU has; under a cap (ctest runs once per level) that one.
std::vector<Isa> levels() {
  if (std::getenv("TORCH_AO_EXT_MAX_ISA") != nullptr) return {best_isa()};
  std::vector<Isa> all;
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx_vnni, Isa::avx512, Isa::avx512_vnni, Isa::amx})
    if (cpu_has(isa)) all.push_back(isa);
  return all;
}

enum class Fill { random, largest, alternating };

// u8 rows [m][stride] and weights [n][k] with values that reach the ends of
// their ranges; the bytes of a row behind k are random, as padding may be.
struct Case {
  int64_t m, n, k, stride;
  std::vector<uint8_t> a;
  std::vector<int8_t> w;

  Case(std::mt19937& rng, int64_t m_, int64_t n_, int64_t k_, int64_t stride_, Fill fill)
      : m(m_),
        n(n_),
        k(k_),
        stride(stride_),
        a(static_cast<size_t>(m_ * stride_)),
        w(static_cast<size_t>(n_ * k_)) {
    for (uint8_t& v : a) v = static_cast<uint8_t>(rng());
    for (int8_t& v : w) v = static_cast<int8_t>(rng());
    if (fill == Fill::largest) {
      std::fill(a.begin(), a.end(), uint8_t{255});
      std::fill(w.begin(), w.end(), int8_t{-128});
    }
    if (fill == Fill::alternating) {
      for (size_t i = 0; i < a.size(); ++i) a[i] = i % 2 ? 255 : 0;
      for (size_t i = 0; i < w.size(); ++i) w[i] = i % 2 ? 127 : -128;
    }
  }

  int64_t expected(int64_t row, int64_t column) const {
    int64_t sum = 0;
    for (int64_t i = 0; i < k; ++i)
      sum += int64_t{a[static_cast<size_t>(row * stride + i)]} * w[static_cast<size_t>(column * k + i)];
    return sum;
  }
};

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t columns_that_count(const Case& c, int64_t panel) {
  return std::min(kPanelColumns, c.n - panel * kPanelColumns);
}

// The same with k in two or more lines that lie apart in memory, the kernel going through them.
int64_t mismatches_in_lines(const GemmKernels& gemm, const Case& c, const PackedWeight& packed,
                            std::vector<int32_t>* tile) {
  const int64_t quads = round_up(round_up(c.k, 4) / 4, gemm.quad_multiple);
  int64_t wrong = 0;
  for (const int64_t lines : {2, 3, 7}) {
    if (!gemm.takes_lines || quads == 0 || quads % lines != 0) continue;
    const int64_t part = quads / lines, gap = 4 * part + 36;
    std::vector<uint8_t> apart(static_cast<size_t>(c.m * lines * gap + 64), 99);
    for (int64_t r = 0; r < c.m; ++r)
      for (int64_t i = 0; i < 4 * quads; ++i)
        apart[static_cast<size_t>((i / (4 * part)) * c.m * gap + r * gap + i % (4 * part))] =
            c.a[static_cast<size_t>(r * c.stride + i)];
    for (int64_t p = 0; p < packed.panels(); ++p) {
      GemmBlock g;
      g.a = apart.data();
      g.a_stride = gap;
      g.b = packed.panel(p);
      g.quads = part;
      g.lines = lines;
      g.line_stride = c.m * gap;
      g.c = tile->data();
      g.rows = c.m;
      if (lines != 3) g.columns = columns_that_count(c, p);
      gemm.block(g);
      for (int64_t r = 0; r < c.m; ++r)
        for (int64_t j = 0; j < g.columns; ++j) {
          const int64_t column = p * kPanelColumns + j;
          const int64_t want = column < c.n ? c.expected(r, column) : 0;
          wrong += (*tile)[static_cast<size_t>(r * kPanelColumns + j)] != want;
        }
    }
  }
  return wrong;
}

// Number of wrong accumulators when the case runs in blocks of k_block.
int64_t mismatches(const GemmKernels& gemm, const Case& c, int64_t k_block) {
  const PackedWeight packed(c.w.data(), c.n, c.k);
  const int64_t quads = round_up(round_up(c.k, 4) / 4, gemm.quad_multiple);
  const int64_t rows = round_up(c.m, gemm.row_multiple);
  std::vector<int32_t> tile(static_cast<size_t>(rows * kPanelColumns), 12345);
  int64_t wrong = 0;
  for (int64_t p = 0; p < packed.panels(); ++p) {
    int64_t q = 0;
    do {
      GemmBlock g;
      g.a = c.a.data() + 4 * q;
      g.a_stride = c.stride;
      g.b = packed.panel(p) + q * kQuadBytes;
      g.quads = std::min(quads - q, k_block / 4);
      g.c = tile.data();
      g.rows = c.m;
      g.columns = columns_that_count(c, p);
      g.accumulate = q != 0;
      gemm.block(g);
      q += k_block / 4;
    } while (q < quads);
    for (int64_t r = 0; r < c.m; ++r)
      for (int64_t j = 0; j < columns_that_count(c, p); ++j) {
        const int64_t column = p * kPanelColumns + j;
        const int64_t want = column < c.n ? c.expected(r, column) : 0;
        wrong += tile[static_cast<size_t>(r * kPanelColumns + j)] != want;
      }
  }
  wrong += mismatches_in_lines(gemm, c, packed, &tile);
  if (gemm.gemv != nullptr && c.m > 0) {
    std::vector<int32_t> row(static_cast<size_t>(packed.panels() * kPanelColumns), 12345);
    gemm.gemv({.a = c.a.data(),
               .b = packed.panel(0),
               .panel_bytes = packed.panel_bytes(),
               .quads = quads,
               .panels = packed.panels(),
               .c = row.data()});
    for (int64_t column = 0; column < packed.panels() * kPanelColumns; ++column)
      wrong += row[static_cast<size_t>(column)] != (column < c.n ? c.expected(0, column) : 0);
  }
  return wrong;
}

}  // namespace

TEST_CASE("packed weights hold every value once and zeros elsewhere", "[gemm]") {
  std::mt19937 rng(1);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1},
                             {1, 0},
                             {63, 17},
                             {64, 64},
                             {65, 65},
                             {130, 259},
                             {64, 1024},
                             {200, 3}}) {
    std::vector<int8_t> w(static_cast<size_t>(n * k));
    for (int8_t& v : w) v = static_cast<int8_t>(rng());
    const PackedWeight packed(w.data(), n, k);
    REQUIRE(packed.k_pad() % kKMultiple == 0);
    REQUIRE(packed.k_pad() - k < kKMultiple);
    REQUIRE(packed.panels() == (n + 63) / 64);
    int64_t wrong = 0;
    for (int64_t c = 0; c < packed.panels() * kPanelColumns; ++c) {
      int64_t sum = 0;
      for (int64_t i = 0; i < packed.k_pad(); ++i) {
        const int8_t want = c < n && i < k ? w[static_cast<size_t>(c * k + i)] : int8_t{0};
        const int8_t got = packed.panel(c / 64)[i / 4 * kQuadBytes + c % 64 * 4 + i % 4];
        wrong += got != want;
        sum += want;
      }
      wrong += packed.column_sum()[c] != sum;
    }
    CHECK(wrong == 0);
    CHECK(reinterpret_cast<uintptr_t>(packed.panel(0)) % 64 == 0);
  }
  CHECK(PackedWeight(nullptr, 0, 5).panels() == 0);
}

TEST_CASE("accumulators are exact on every ISA", "[gemm]") {
  for (const Isa isa : levels()) {
    DYNAMIC_SECTION(name_of(isa)) {
      const GemmKernels& gemm = gemm_kernels(isa);
      std::mt19937 rng(static_cast<unsigned>(isa) + 7);
      const auto pick = [&](int64_t lo, int64_t hi) {
        return lo + static_cast<int64_t>(rng() % static_cast<unsigned>(hi - lo + 1));
      };
      if (gemm.begin != nullptr) gemm.begin();
      int64_t wrong = 0;
      for (int i = 0; i < 600; ++i) {
        // Rows of `a` reach up to the next multiples, as the contract allows.
        const int64_t m = i % 7 == 0 ? pick(1, 2) : pick(1, 70);
        const int64_t k = i % 5 == 0 ? pick(0, 5) : pick(1, 700);
        const int64_t n = i % 3 == 0 ? pick(1, 3) : pick(1, 140);
        const Fill fill = i % 10 == 8 ? Fill::largest : i % 10 == 9 ? Fill::alternating : Fill::random;
        Case c(rng, round_up(m, gemm.row_multiple), n, k, round_up(k, 64) + 64 * pick(0, 2), fill);
        c.m = m;
        wrong += mismatches(gemm, c, i % 2 ? 256 : gemm.k_block);
      }
      // The largest sum the engine accepts: 255 * -128 * 65793 is just inside int32.
      Case big(rng, 16, 3, 65793, round_up(65793, 64), Fill::largest);
      big.m = 2;
      wrong += mismatches(gemm, big, gemm.k_block);
      if (gemm.end != nullptr) gemm.end();
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("gemm: bytes from the sums in registers", "[gemm]") {
  std::mt19937 rng(9);
  enum class Addend { none, u8, s8 };
  for (Isa isa : levels()) {
    const GemmKernels& gemm = gemm_kernels(isa);
    if (!gemm.finishes) continue;
    for (int64_t i = 0; i < 56; ++i)
      for (int64_t columns : {1, 8, 16, 17, 24, 32, 33, 63, 64})
        for (const Addend addend : {Addend::none, Addend::u8, Addend::s8}) {
          // Few and many steps of 4 k, of rows that fill tiles and of those that are left.
          const int64_t m = i < 20 ? i + 1 : 2 * i - 5;
          const int64_t k = 4 * (i < 20 ? m + columns % 5 : 1 + (i + columns) % 21);
          const Case c(rng, m, columns, k, k, Fill::random);
          const PackedWeight packed(c.w.data(), c.n, c.k);
          std::vector<int32_t> start(kPanelColumns);
          std::vector<float> scale(kPanelColumns), bias(kPanelColumns);
          for (size_t j = 0; j < kPanelColumns; ++j) {
            start[j] = static_cast<int32_t>(rng() % 20000) - 10000;
            scale[j] = static_cast<float>(rng() % 1000) * 1e-6f;
            bias[j] = static_cast<float>(rng() % 1000) * 0.01f - 5.f;
          }
          const EpilogueParams e{
              .output_dtype = DType::qu8, .output_scale = 0.0471f, .output_zero_point = 90};
          ByteFinish f;
          f.start = start.data();
          f.scale = scale.data();
          f.bias = bias.data();
          REQUIRE(make_byte_rule(e, &f.rule));
          const int64_t stride = columns + (m % 2 == 0 ? 3 : 0);  // odd: no gap between rows
          std::vector<uint8_t> out(static_cast<size_t>(m * stride + 64), 0xaa);
          f.out = out.data();
          f.out_stride = stride;
          f.cols = columns;
          // Exactly as long as it must be.
          const int64_t other_stride = columns + (i % 4 == 0 ? 5 : 0);
          std::vector<uint8_t> other(static_cast<size_t>((m - 1) * other_stride + columns));
          for (uint8_t& v : other) v = static_cast<uint8_t>(rng());
          const int32_t zero_point = static_cast<int32_t>(rng() % 256) - (addend == Addend::s8 ? 128 : 0);
          if (addend != Addend::none)
            f.addend = {.data = other.data(),
                        .stride = other_stride,
                        .zero_point = zero_point,
                        .scale = 0.0213f,
                        .is_signed = addend == Addend::s8};
          GemmBlock g{.a = c.a.data(), .a_stride = k, .b = packed.panel(0), .quads = k / 4, .rows = m};
          g.columns = columns;
          g.finish_bytes = &f;
          gemm.block(g);
          for (int64_t i = m * stride; i < m * stride + 64; ++i) REQUIRE(out[static_cast<size_t>(i)] == 0xaa);
          for (int64_t r = 0; r < m; ++r)
            for (int64_t j = 0; j < stride; ++j) {
              INFO("m " << m << " columns " << columns << " row " << r << " column " << j << " addend "
                        << static_cast<int>(addend));
              const int32_t byte = out[static_cast<size_t>(r * stride + j)];
              if (j >= columns) {
                REQUIRE(byte == 0xaa);
                continue;
              }
              const size_t at = static_cast<size_t>(j);
              const float sum = static_cast<float>(static_cast<int32_t>(c.expected(r, j)) + start[at]);
              float x = sum * scale[at] + bias[at];
              if (addend != Addend::none) {
                const uint8_t added = other[static_cast<size_t>(r * other_stride + j)];
                const int32_t value = addend == Addend::s8 ? static_cast<int8_t>(added) : added;
                x += static_cast<float>(value - zero_point) * 0.0213f;
              }
              const float q = std::nearbyint(x / e.output_scale) + 90.f;
              REQUIRE(byte == static_cast<int32_t>(std::clamp(q, 0.f, 255.f)));
            }
        }
  }
}
