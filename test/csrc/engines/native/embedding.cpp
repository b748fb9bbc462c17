// Bags and lookups at every level and thread count against one plain formula, bit for bit.
#include "engines/native/embedding.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "core/torch_api.h"
#include "kernels/half.h"
#include "test/csrc/kernels/kernel_testing.h"

namespace tae {
namespace {

using namespace kernels;
using native::BagMode;
using native::BagProblem;
using test::Edge;
using test::Guarded;

struct Table {
  Table(std::mt19937& rng, int64_t rows, int64_t dim, int bits, int64_t gap, Edge edge)
      : bytes(rows == 0
                  ? 0
                  : (rows - 1) * (embedding_row_bytes(dim, bits) + gap) + embedding_row_bytes(dim, bits),
              edge) {
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(rng());
    t = {bytes.data(), embedding_row_bytes(dim, bits) + gap, rows, dim, bits};
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* tail = bytes.data() + r * t.stride + embedding_code_bytes(dim, bits);
      // Now and then anything at all: NaN, infinities, subnormal numbers.
      if (test::random_int(rng, 0, 40) == 0) continue;
      const float scale = test::random_float(rng, -0.1f, 0.1f), bias = test::random_float(rng, -3.f, 3.f);
      if (bits == 8) {
        std::memcpy(tail, &scale, 4);
        std::memcpy(tail + 4, &bias, 4);
      } else {
        const uint16_t halves[2] = {float_to_half(scale), float_to_half(bias)};
        std::memcpy(tail, halves, 4);
      }
    }
  }

  // What one row says, as the file format has it.
  void read(int64_t row, std::vector<float>* codes, float* scale, float* bias) const {
    const uint8_t* p = t.rows + row * t.stride;
    const uint8_t* tail = p + embedding_code_bytes(t.dim, t.bits);
    codes->resize(t.dim);
    for (int64_t d = 0; d < t.dim; ++d) {
      const int64_t bit = d * t.bits;
      (*codes)[d] = static_cast<float>((p[bit / 8] >> (bit % 8)) & ((1 << t.bits) - 1));
    }
    if (t.bits == 8) {
      std::memcpy(scale, tail, 4);
      std::memcpy(bias, tail + 4, 4);
    } else {
      uint16_t halves[2];
      std::memcpy(halves, tail, 4);
      *scale = half_to_float(halves[0]);
      *bias = half_to_float(halves[1]);
    }
  }

  Guarded<uint8_t> bytes;
  EmbeddingTable t;
};

// Row numbers: >= 0, or kPaddingRow, kPrunedRow.
std::vector<float> expected_bag(const Table& table, const std::vector<int64_t>& rows, const float* weights,
                                BagMode mode) {
  const int64_t dim = table.t.dim;
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> result(dim, mode == BagMode::max ? -infinity : 0.f), codes;
  int64_t counted = 0;
  for (size_t begin = 0; begin < rows.size(); begin += native::kRun) {
    const size_t end = std::min(rows.size(), begin + native::kRun);
    std::vector<float> run(dim, mode == BagMode::max ? -infinity : 0.f);
    float biases = 0.f;
    for (size_t i = begin; i < end; ++i) {
      if (rows[i] != kPaddingRow) ++counted;
      if (mode == BagMode::max) {
        for (int64_t d = 0; d < dim; ++d)
          if (rows[i] == kPrunedRow && run[d] < 0.f) run[d] = 0.f;
      }
      if (rows[i] >= 0) {
        float scale, bias;
        table.read(rows[i], &codes, &scale, &bias);
        if (weights != nullptr) {
          scale *= weights[i];
          bias *= weights[i];
        }
        biases += bias;
        for (int64_t d = 0; d < dim; ++d) {
          if (mode == BagMode::max) {
            const float value = std::fma(scale, codes[d], bias);
            if (value > run[d]) run[d] = value;
          } else {
            run[d] = std::fma(scale, codes[d], run[d]);
          }
        }
      }
      if (mode != BagMode::max && ((i - begin) % kBiasRows == kBiasRows - 1 || i + 1 == end)) {
        for (float& x : run) x += biases;
        biases = 0.f;
      }
    }
    for (int64_t d = 0; d < dim; ++d) {
      if (mode == BagMode::max) {
        if (run[d] > result[d]) result[d] = run[d];
      } else {
        result[d] = begin == 0 ? run[d] : result[d] + run[d];
      }
    }
  }
  if (counted == 0) return std::vector<float>(dim, 0.f);
  if (mode == BagMode::mean)
    for (float& x : result) x /= static_cast<float>(counted);
  return result;
}

int64_t random_dim(std::mt19937& rng) {
  constexpr int kEdges[] = {0,  1,  2,  3,  7,   8,   15,  16,  17,  31, 32,
                            33, 63, 64, 65, 128, 129, 255, 256, 300, 520};
  return test::random_int(rng, 0, 3) == 0 ? test::random_int(rng, 1, 600)
                                          : kEdges[test::random_int(rng, 0, 20)];
}

// One problem with everything it points to.
struct Case {
  explicit Case(std::mt19937& rng) : edge(rng() % 2 == 0 ? Edge::kStart : Edge::kEnd) {
    constexpr int kBits[] = {8, 4, 2};
    const int64_t rows = test::random_int(rng, 1, 30);
    table = std::make_unique<Table>(rng, rows, random_dim(rng), kBits[rng() % 3],
                                    rng() % 3 == 0 ? test::random_int(rng, 1, 70) : 0, edge);
    const bool mapped = rng() % 3 == 0;
    const int64_t limit = mapped ? test::random_int(rng, 1, 50) : rows;
    mapping = std::make_unique<Guarded<int32_t>>(mapped ? limit : 0, edge);
    for (int32_t& m : *mapping) m = test::random_int(rng, -1, static_cast<int>(rows) - 1);
    bags.push_back(0);
    const int count = test::random_int(rng, 1, rng() % 16 == 0 ? 200 : 12);  // many: several windows
    for (int b = 0; b < count; ++b) {
      const int kind = test::random_int(rng, 0, 60);
      const int length = kind == 0   ? test::random_int(rng, 500, 1700)
                         : kind < 12 ? 0
                                     : test::random_int(rng, 1, 30);
      bags.push_back(bags.back() + length);
    }
    wide = rng() % 2 == 0;
    const int64_t n = bags.back();
    i64 = std::make_unique<Guarded<int64_t>>(wide ? n : 0, edge);
    i32 = std::make_unique<Guarded<int32_t>>(wide ? 0 : n, edge);
    padding = rng() % 3 == 0 ? test::random_int(rng, 0, static_cast<int>(limit) - 1) : -1;
    for (int64_t i = 0; i < n; ++i) {
      const int index = test::random_int(rng, 0, static_cast<int>(limit) - 1);
      (wide ? (*i64)[i] = index : (*i32)[i] = index);
      row_of.push_back(index == padding        ? kPaddingRow
                       : !mapped               ? index
                       : (*mapping)[index] < 0 ? kPrunedRow
                                               : (*mapping)[index]);
    }
    mode = static_cast<BagMode>(rng() % 3);
    weighted = mode == BagMode::sum && rng() % 2 == 0;
    weights = std::make_unique<Guarded<float>>(weighted ? n : 0, edge);
    for (float& w : *weights) w = test::random_float(rng, -2.f, 2.f);
    p.table = table->t;
    p.indices = {wide ? static_cast<const void*>(i64->data()) : i32->data(), wide,
                 mapped ? mapping->data() : nullptr, mapped ? limit : 0, padding};
    p.offsets = bags.data();
    p.bags = count;
    p.weights = weighted ? weights->data() : nullptr;
    p.mode = mode;
  }

  std::vector<float> expected() const {
    std::vector<float> result;
    for (int64_t b = 0; b < p.bags; ++b) {
      const std::vector<int64_t> rows(row_of.begin() + bags[b], row_of.begin() + bags[b + 1]);
      const auto bag = expected_bag(*table, rows, p.weights == nullptr ? nullptr : p.weights + bags[b], mode);
      result.insert(result.end(), bag.begin(), bag.end());
    }
    return result;
  }

  Edge edge;
  std::unique_ptr<Table> table;
  std::unique_ptr<Guarded<int32_t>> mapping;
  std::unique_ptr<Guarded<int64_t>> i64;
  std::unique_ptr<Guarded<int32_t>> i32;
  std::unique_ptr<Guarded<float>> weights;
  std::vector<int64_t> bags, row_of;
  bool wide, weighted;
  int64_t padding;
  BagMode mode;
  BagProblem p;
};

class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

template <typename T>
void require_same(const Guarded<T>& got, const std::vector<float>& want) {
  auto& values = const_cast<Guarded<T>&>(got);
  for (size_t i = 0; i < want.size(); ++i) {
    if constexpr (sizeof(T) == 4) {
      if (!test::same(values[i], want[i])) FAIL("element " << i << ": " << values[i] << ", not " << want[i]);
    } else {
      const uint16_t w = test::to_bf16(want[i]);
      const bool same = std::isnan(want[i]) ? std::isnan(test::from_bf16(values[i])) : values[i] == w;
      if (!same) FAIL("element " << i << ": " << values[i] << ", not " << w);
    }
  }
}

TEST_CASE("embedding: bags are the formula's bits at every level and thread count") {
  std::mt19937 rng(11);
  for (int i = 0; i < 600; ++i) {
    Case c(rng);
    const std::vector<float> want = c.expected();
    const Threads threads(1 + i % 3);
    for (Isa isa : test::kernel_levels()) {
      INFO(name_of(isa) << ", case " << i);
      const EmbeddingKernels& k = embedding_kernels(isa);
      c.p.output_dtype = DType::f32;
      Guarded<float> f32(static_cast<int64_t>(want.size()), c.edge);
      Guarded<uint16_t> bf16(static_cast<int64_t>(want.size()), c.edge);
      c.p.output = f32.data();
      REQUIRE(native::run_bags(k, c.p) == -1);
      require_same(f32, want);
      c.p.output_dtype = DType::bf16;
      c.p.output = bf16.data();
      REQUIRE(native::run_bags(k, c.p) == -1);
      require_same(bf16, want);
    }
  }
}

TEST_CASE("embedding: lookups are the formula's bits at every level") {
  std::mt19937 rng(12);
  for (int i = 0; i < 500; ++i) {
    const Case c(rng);
    native::LookupProblem p;
    p.table = c.p.table;
    p.indices = c.p.indices;
    p.indices.padding = -1;
    p.count = c.bags.back();
    std::vector<float> want, codes;
    for (int64_t j = 0; j < p.count; ++j) {
      const int64_t index = c.wide ? (*c.i64)[j] : (*c.i32)[j];
      const int64_t row = p.indices.mapping != nullptr ? p.indices.mapping[index] : index;
      float scale = 0.f, bias = 0.f;
      codes.assign(p.table.dim, 0.f);
      if (row >= 0) c.table->read(row, &codes, &scale, &bias);
      for (float code : codes) want.push_back(std::fma(scale, code, bias));
    }
    for (Isa isa : test::kernel_levels()) {
      INFO(name_of(isa) << ", case " << i);
      const EmbeddingKernels& k = embedding_kernels(isa);
      p.output_dtype = DType::f32;
      Guarded<float> f32(static_cast<int64_t>(want.size()), c.edge);
      Guarded<uint16_t> bf16(static_cast<int64_t>(want.size()), c.edge);
      p.output = f32.data();
      REQUIRE(native::run_lookup(k, p) == -1);
      require_same(f32, want);
      p.output_dtype = DType::bf16;
      p.output = bf16.data();
      REQUIRE(native::run_lookup(k, p) == -1);
      require_same(bf16, want);
    }
  }
}

TEST_CASE("embedding: the caller's rounding mode does not show and is kept") {
  for (Isa isa : test::kernel_levels()) {
    std::mt19937 rng(13);
    for (int i = 0; i < 20; ++i) {
      Case c(rng);
      const std::vector<float> want = c.expected();
      Guarded<float> f32(static_cast<int64_t>(want.size()), c.edge);
      c.p.output = f32.data();
      bool intact;
      {
        const Threads threads(1);
        const test::HostileFloatEnv env;
        native::run_bags(embedding_kernels(isa), c.p);
        intact = env.intact();
      }
      REQUIRE(intact);
      require_same(f32, want);
    }
  }
}

TEST_CASE("embedding: the first bad index is found, whoever meets it") {
  std::mt19937 rng(14);
  int seen = 0;
  for (int i = 0; i < 500; ++i) {
    Case c(rng);
    const int64_t n = c.bags.back();
    if (n == 0) continue;
    const int64_t limit = c.p.indices.mapping != nullptr ? c.p.indices.mapping_size : c.p.table.count;
    int64_t first = n;
    for (int bad = 0; bad < 3; ++bad) {
      const int64_t at = test::random_int(rng, 0, static_cast<int>(n) - 1);
      first = std::min(first, at);
      const int64_t wide[] = {-1, limit, INT64_MIN, INT64_MAX, int64_t{1} << 40};
      const int32_t narrow[] = {-1, static_cast<int32_t>(limit), INT32_MIN, INT32_MAX, 1 << 30};
      (c.wide ? (*c.i64)[at] = wide[rng() % 5] : (*c.i32)[at] = narrow[rng() % 5]);
    }
    Guarded<float> f32(c.p.bags * c.p.table.dim, c.edge);
    c.p.output = f32.data();
    for (Isa isa : test::kernel_levels()) {
      const Threads threads(1 + i % 3);
      REQUIRE(native::run_bags(embedding_kernels(isa), c.p) == first);
    }
    ++seen;
  }
  REQUIRE(seen > 400);
}

TEST_CASE("embedding: a bad entry of the mapping is found") {
  for (Isa isa : test::kernel_levels()) {
    std::mt19937 rng(15);
    const Table table(rng, 4, 20, 8, 0, Edge::kEnd);
    int32_t mapping[] = {0, 1, 2, 3, -1};
    const int64_t indices[] = {0, 4, 2, 1};
    const int64_t offsets[] = {0, 4};
    float out[20];
    BagProblem p;
    p.table = table.t;
    p.indices = {indices, true, mapping, 5, -1};
    p.offsets = offsets;
    p.bags = 1;
    p.output = out;
    const EmbeddingKernels& k = embedding_kernels(isa);
    REQUIRE(native::run_bags(k, p) == -1);
    for (int32_t bad : {4, -2, INT32_MAX, INT32_MIN}) {
      mapping[2] = bad;
      REQUIRE(native::run_bags(k, p) == 2);
    }
  }
}

TEST_CASE("embedding: half precision goes both ways exactly") {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float x = half_to_float(static_cast<uint16_t>(h));
    if (std::isnan(x)) {
      REQUIRE(((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0));
    } else {
      REQUIRE(float_to_half(x) == h);
    }
  }
  // Halfway between neighbours goes to the even one, beyond it to the farther one.
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = half_to_float(static_cast<uint16_t>(h)),
                high = half_to_float(static_cast<uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;
    REQUIRE(float_to_half(middle) == (h % 2 == 0 ? h : h + 1));
    REQUIRE(float_to_half(std::nextafterf(middle, 1e9f)) == h + 1);
    REQUIRE(float_to_half(std::nextafterf(middle, -1.f)) == h);
  }
  REQUIRE(float_to_half(65519.9f) == 0x7bff);
  REQUIRE(float_to_half(65520.f) == 0x7c00);
  REQUIRE(float_to_half(-1e30f) == 0xfc00);
  REQUIRE(half_to_float(float_to_half(std::nanf(""))) != half_to_float(float_to_half(std::nanf(""))));
}

TEST_CASE("embedding: codes are quantized alike at every level") {
  std::mt19937 rng(16);
  for (int i = 0; i < 500; ++i) {
    constexpr int kBits[] = {8, 4, 2};
    const int bits = kBits[i % 3];
    const int64_t dim = random_dim(rng);
    Guarded<float> f32(dim);
    Guarded<uint16_t> bf16(dim);
    for (int64_t d = 0; d < dim; ++d) {
      bf16[d] = test::to_bf16(test::random_float(rng, -4.f, 4.f));
      f32[d] = i % 2 == 0 ? test::from_bf16(bf16[d]) : test::random_float(rng, -4.f, 4.f);
    }
    const float low = test::random_float(rng, -4.5f, -3.f), inverse = test::random_float(rng, 1.f, 40.f);
    const auto reference = [&](auto value) {
      std::vector<uint8_t> codes(embedding_code_bytes(dim, bits), 0);
      for (int64_t d = 0; d < dim; ++d) {
        const float q = std::nearbyint((value(d) - low) * inverse);
        const int code = static_cast<int>(std::min(std::max(q, 0.f), static_cast<float>((1 << bits) - 1)));
        codes[d * bits / 8] |= static_cast<uint8_t>(code << (d * bits % 8));
      }
      return codes;
    };
    for (Isa isa : test::kernel_levels()) {
      INFO(name_of(isa) << ", case " << i);
      Guarded<uint8_t> got(embedding_code_bytes(dim, bits));
      embedding_kernels(isa).quantize_f32(f32.data(), dim, bits, low, inverse, got.data());
      REQUIRE(std::vector<uint8_t>(got.begin(), got.end()) == reference([&](int64_t d) { return f32[d]; }));
      embedding_kernels(isa).quantize_bf16(bf16.data(), dim, bits, low, inverse, got.data());
      REQUIRE(std::vector<uint8_t>(got.begin(), got.end()) ==
              reference([&](int64_t d) { return test::from_bf16(bf16[d]); }));
    }
  }
}

}  // namespace
}  // namespace tae
