// The native engine against a scalar model of engines/linear.h, bit for bit.
#include "engines/native/linear.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "kernels/choose_qparams.h"

using namespace tae;

namespace {

// Every level that this CPU has; under a cap (ctest runs once per level) that one.
std::vector<Isa> levels() {
  if (std::getenv("TORCH_AO_EXT_MAX_ISA") != nullptr) return {best_isa()};
  std::vector<Isa> all;
  for (Isa isa : {Isa::portable, Isa::avx2, Isa::avx_vnni, Isa::avx512, Isa::avx512_vnni, Isa::amx})
    if (cpu_has(isa)) all.push_back(isa);
  return all;
}

float from_bf16(uint16_t v) {
  const uint32_t bits = uint32_t{v} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

uint16_t to_bf16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (f != f) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct Model {
  LinearProblem p;
  int64_t m = 0;
  int64_t stride = 0;
  std::vector<int8_t> weight;
  std::vector<float> scale, bias, other;
  std::vector<int32_t> zero_point;
  std::vector<uint8_t> input;  // of any dtype

  float input_f32(int64_t r, int64_t i) const {
    const size_t at = static_cast<size_t>(r * stride + i);
    if (p.input_dtype == DType::f32) return reinterpret_cast<const float*>(input.data())[at];
    return from_bf16(reinterpret_cast<const uint16_t*>(input.data())[at]);
  }

  LinearArgs args(void* output) const {
    LinearArgs a;
    a.m = m;
    a.input = input.data();
    a.input_stride = stride;
    a.output = output;
    a.other = p.has_add() ? other.data() : nullptr;
    return a;
  }
  size_t output_bytes() const { return static_cast<size_t>(m * p.n) * size_of(p.output_dtype); }
  std::vector<uint8_t> expected() const;

 private:
  float activation(float v, size_t at) const;
};

float Model::activation(float v, size_t at) const {
  for (const PostOp& op : p.post_ops) {
    if (op.kind == PostOp::Kind::relu && v < 0.f) v = 0.f;
    if (op.kind == PostOp::Kind::add) v += other[at];
  }
  return v;
}

std::vector<uint8_t> Model::expected() const {
  std::vector<uint8_t> out(output_bytes());
  // Range of the whole tensor, for the tensor rule.
  float all_lo = 0.f, all_hi = 0.f;
  if (p.dynamic)
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < p.k; ++i) {
        const float v = input_f32(r, i);
        if (!std::isfinite(v)) all_lo = NAN;
        if (v < all_lo) all_lo = v;
        if (v > all_hi) all_hi = v;
      }
  std::vector<int64_t> x(static_cast<size_t>(p.k));
  for (int64_t r = 0; r < m; ++r) {
    kernels::QParams q{p.input_scale, p.input_zero_point};
    const DynamicQuant& d = p.dynamic_quant;
    if (p.dynamic) {
      float lo = all_lo, hi = all_hi;
      if (d.per_row) {
        lo = hi = 0.f;
        for (int64_t i = 0; i < p.k; ++i) {
          const float v = input_f32(r, i);
          if (!std::isfinite(v)) lo = NAN;
          if (v < lo) lo = v;
          if (v > hi) hi = v;
        }
        q = kernels::row_qparams(lo, hi, d.symmetric, d.reduce_range);
      } else {
        q = kernels::tensor_qparams(lo, hi, d.symmetric, d.reduce_range);
      }
    }
    const kernels::QRange range = kernels::dynamic_range(d.symmetric, d.reduce_range);
    const float inverse = 1.f / q.scale;
    for (int64_t i = 0; i < p.k; ++i) {
      const size_t at = static_cast<size_t>(r * stride + i);
      if (p.input_dtype == DType::qu8) x[static_cast<size_t>(i)] = input[at];
      if (p.input_dtype == DType::qs8) x[static_cast<size_t>(i)] = static_cast<int8_t>(input[at]);
      if (p.dynamic && q.scale == q.scale) {
        const double v = double{std::nearbyintf(input_f32(r, i) * inverse)} + q.zero_point;
        x[static_cast<size_t>(i)] = static_cast<int64_t>(std::clamp(v, double(range.lo), double(range.hi)));
      }
    }
    for (int64_t c = 0; c < p.n; ++c) {
      const size_t s = p.weight_scale_size == 1 ? 0 : static_cast<size_t>(c);
      const int64_t zp_w = p.weight_zero_point != nullptr ? zero_point[s] : 0;
      int64_t acc = 0;
      for (int64_t i = 0; i < p.k; ++i)
        acc += (x[static_cast<size_t>(i)] - q.zero_point) * (weight[static_cast<size_t>(c * p.k + i)] - zp_w);
      if (q.scale != q.scale) acc = 0;
      const float multiplier = q.scale * scale[s];
      const float product = static_cast<float>(acc) * multiplier;
      float v = product + (p.bias != nullptr ? bias[static_cast<size_t>(c)] : 0.f);
      const size_t at = static_cast<size_t>(r * p.n + c);
      v = activation(v, at);
      if (p.output_dtype == DType::f32) reinterpret_cast<float*>(out.data())[at] = v;
      if (p.output_dtype == DType::bf16) reinterpret_cast<uint16_t*>(out.data())[at] = to_bf16(v);
      if (is_quantized(p.output_dtype)) {
        const double y = double{std::nearbyintf(v / p.output_scale)} + p.output_zero_point;
        const double lo = quant_min(p.output_dtype), hi = quant_max(p.output_dtype);
        out[at] = static_cast<uint8_t>(static_cast<int>(y != y ? lo : std::clamp(y, lo, hi)));
      }
    }
  }
  return out;
}

// Equal bits, and any NaN for a NaN.
bool same(const Model& model, const std::vector<uint8_t>& want, const std::vector<uint8_t>& got) {
  if (model.p.output_dtype == DType::f32) {
    const float* a = reinterpret_cast<const float*>(want.data());
    const float* b = reinterpret_cast<const float*>(got.data());
    for (size_t i = 0; i < want.size() / 4; ++i)
      if (a[i] != b[i] && !(a[i] != a[i] && b[i] != b[i])) return false;
    return true;
  }
  if (model.p.output_dtype == DType::bf16) {
    const uint16_t* a = reinterpret_cast<const uint16_t*>(want.data());
    const uint16_t* b = reinterpret_cast<const uint16_t*>(got.data());
    for (size_t i = 0; i < want.size() / 2; ++i)
      if (from_bf16(a[i]) != from_bf16(b[i]) &&
          !(from_bf16(a[i]) != from_bf16(a[i]) && from_bf16(b[i]) != from_bf16(b[i])))
        return false;
    return true;
  }
  return want == got;
}

void fill_input(Model& model, std::mt19937& rng, int kind) {
  model.input.resize(static_cast<size_t>(model.m * model.stride) * size_of(model.p.input_dtype));
  std::normal_distribution<float> normal(kind % 3 == 0 ? 1.f : 0.f, 2.f);
  const size_t count = static_cast<size_t>(model.m * model.stride);
  for (size_t i = 0; i < count; ++i) {
    if (model.p.input_dtype == DType::f32) {
      float v = normal(rng);
      if (kind % 19 == 18 && i == count / 2) v = std::numeric_limits<float>::infinity();
      if (kind % 23 == 22) v = 0.f;
      reinterpret_cast<float*>(model.input.data())[i] = v;
    } else if (model.p.input_dtype == DType::bf16) {
      reinterpret_cast<uint16_t*>(model.input.data())[i] = to_bf16(normal(rng));
    } else {
      model.input[i] = kind % 11 == 10 ? 255 : static_cast<uint8_t>(rng());
    }
  }
}

Model make_model(std::mt19937& rng, int kind, int64_t m, int64_t k, int64_t n) {
  const auto chance = [&](unsigned of) { return rng() % of == 0; };
  std::uniform_real_distribution<float> unit(0.001f, 0.1f);
  Model model;
  model.m = m;
  model.stride = k + (chance(2) ? 0 : static_cast<int64_t>(rng() % 70));
  LinearProblem& p = model.p;
  p.k = k;
  p.n = n;
  model.weight.resize(static_cast<size_t>(n * k));
  for (int8_t& v : model.weight) v = kind % 11 == 10 ? -128 : static_cast<int8_t>(rng());
  p.weight = model.weight.data();
  p.weight_scale_size = chance(4) ? 1 : n;
  model.scale.resize(static_cast<size_t>(p.weight_scale_size));
  for (float& v : model.scale) v = unit(rng);
  p.weight_scale = model.scale.data();
  if (chance(4)) {
    model.zero_point.resize(model.scale.size());
    for (int32_t& v : model.zero_point) v = static_cast<int8_t>(rng());
    p.weight_zero_point = model.zero_point.data();
  }
  if (!chance(4)) {
    model.bias.resize(static_cast<size_t>(n));
    for (float& v : model.bias) v = unit(rng) * 100 - 5;
    p.bias = model.bias.data();
  }
  p.dynamic = chance(2);
  constexpr DType kAny[] = {DType::f32, DType::bf16, DType::qu8, DType::qs8};
  p.input_dtype = kAny[(p.dynamic ? 0 : 2) + rng() % 2];
  p.output_dtype = kAny[rng() % (p.dynamic ? 2 : 4)];
  if (p.dynamic) {
    p.dynamic_quant.per_row = !chance(3);
    p.dynamic_quant.symmetric = chance(3);
    p.dynamic_quant.reduce_range = chance(4);
  } else {
    p.input_scale = unit(rng);
    p.input_zero_point =
        p.input_dtype == DType::qu8 ? static_cast<int32_t>(rng() % 256) : static_cast<int8_t>(rng());
    p.output_scale = unit(rng) * 300;
    p.output_zero_point =
        p.output_dtype == DType::qs8 ? static_cast<int8_t>(rng()) : static_cast<int32_t>(rng() % 256);
  }
  if (chance(3)) p.post_ops.push_back({.kind = PostOp::Kind::relu});
  if (chance(4)) {
    p.post_ops.push_back({.kind = PostOp::Kind::add});
    model.other.resize(static_cast<size_t>(m * n));
    for (float& v : model.other) v = unit(rng) * 10;
  }
  fill_input(model, rng, kind);
  return model;
}

std::vector<uint8_t> run(const LinearImpl& impl, const Model& model) {
  std::vector<uint8_t> out(model.output_bytes(), 0xa5);
  impl.run(model.args(out.data()));
  return out;
}

LinearImplPtr make(const Model& model, Isa isa) {
  auto made = make_linear_native_at(model.p, isa);
  if (!made) FAIL(made.reason());
  return made.value();
}

}  // namespace

TEST_CASE("native linear equals the scalar model on every ISA", "[native]") {
  for (const Isa isa : levels()) {
    DYNAMIC_SECTION(name_of(isa)) {
      std::mt19937 rng(static_cast<unsigned>(isa) + 100);
      int wrong = 0;
      for (int i = 0; i < 600; ++i) {
        const int64_t m = i % 4 == 0 ? 1 : i % 17 == 0 ? 0 : 1 + rng() % 40;
        const int64_t k = i % 13 == 0 ? 0 : i % 6 == 0 ? 64 * (1 + rng() % 4) : 1 + rng() % 300;
        const int64_t n = i % 5 == 0 ? 1 : 1 + rng() % 150;
        const Model model = make_model(rng, i, m, k, n);
        const std::vector<uint8_t> want = model.expected();
        if (!same(model, want, run(*make(model, isa), model))) {
          ++wrong;
          UNSCOPED_INFO("case " << i << ": m " << m << " k " << k << " n " << n << " in "
                                << name_of(model.p.input_dtype) << " out " << name_of(model.p.output_dtype));
        }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("native linear: shapes that split over threads and k blocks", "[native]") {
  const int threads_before = omp_get_max_threads();
  for (const Isa isa : levels()) {
    DYNAMIC_SECTION(name_of(isa)) {
      std::mt19937 rng(static_cast<unsigned>(isa) + 200);
      const int64_t shapes[][3] = {{1, 768, 1000}, {1, 4099, 200},   {5, 1500, 500},
                                   {16, 768, 768}, {33, 2100, 130},  {150, 520, 70},
                                   {200, 65, 65},  {150, 12000, 66}, {130, 256, 320}};
      for (const auto& [m, k, n] : shapes) {
        const Model model = make_model(rng, 1, m, k, n);
        const std::vector<uint8_t> want = model.expected();
        const LinearImplPtr impl = make(model, isa);
        for (int threads = 1; threads <= 3; ++threads) {
          omp_set_num_threads(threads);
          INFO("m " << m << " k " << k << " n " << n << " threads " << threads);
          CHECK(same(model, want, run(*impl, model)));
        }
      }
    }
  }
  omp_set_num_threads(threads_before);
}

TEST_CASE("native linear: u8 input read in place or copied", "[native]") {
  for (const Isa isa : levels()) {
    DYNAMIC_SECTION(name_of(isa)) {
      std::mt19937 rng(static_cast<unsigned>(isa) + 300);
      // m and k that fit the tiles and miss them; strides that do and do not collide in L1.
      for (const auto& [m, k, stride] : {std::array<int64_t, 3>{48, 128, 128},
                                         {48, 128, 1024},
                                         {16, 1024, 1024},
                                         {64, 1024, 1024},
                                         {64, 192, 200},
                                         {47, 128, 128},
                                         {48, 132, 132},
                                         {1, 64, 64},
                                         {3, 64, 1024}}) {
        Model model = make_model(rng, 1, m, k, 100);
        model.p.dynamic = false;
        model.p.input_dtype = DType::qu8;
        model.p.weight_zero_point = nullptr;
        model.p.input_zero_point = 77;
        model.stride = stride;
        fill_input(model, rng, 1);
        // No byte behind the last row: an overrun is then seen by a checker of memory.
        model.input.resize(static_cast<size_t>((m - 1) * stride + k));
        model.input.shrink_to_fit();
        INFO("m " << m << " k " << k << " stride " << stride);
        CHECK(same(model, model.expected(), run(*make(model, isa), model)));
      }
    }
  }
}

TEST_CASE("native linear: one object serves concurrent callers of any size", "[native]") {
  for (const Isa isa : levels()) {
    DYNAMIC_SECTION(name_of(isa)) {
      std::mt19937 rng(5);
      Model large = make_model(rng, 1, 70, 300, 200);
      const LinearImplPtr impl = make(large, isa);
      const std::vector<uint8_t> want_large = large.expected();
      Model small = large;
      small.m = 1;
      const std::vector<uint8_t> want_small = small.expected();
      std::vector<int> wrong(4);
      std::vector<std::thread> threads;
      for (size_t t = 0; t < wrong.size(); ++t)
        threads.emplace_back([&, t] {
          for (int i = 0; i < 50; ++i) {
            const bool one = (i + t) % 2;
            wrong[t] += !same(large, one ? want_small : want_large, run(*impl, one ? small : large));
          }
        });
      for (std::thread& t : threads) t.join();
      CHECK(std::count(wrong.begin(), wrong.end(), 0) == 4);
    }
  }
}

TEST_CASE("native linear refuses with a reason", "[native]") {
  std::mt19937 rng(9);
  Model model = make_model(rng, 1, 1, 8, 4);
  LinearProblem p = model.p;
  p.weight_zero_point = nullptr;
  const auto reason = [&] {
    auto made = make_linear_native(p);
    return made ? std::string() : made.reason();
  };
  CHECK(reason().empty());
  p.k = kMaxExactK + 1;
  CHECK(reason() == "k 65794; needs k <= 65793");
  p = model.p;
  std::vector<int32_t> ones(model.scale.size(), 1);
  p.weight_zero_point = ones.data();
  p.k = kMaxExactKAsymmetricWeight + 1;
  CHECK(reason() == "k 33026; needs k <= 33025");
  p = model.p;
  p.output_dtype = DType::s32;
  CHECK(reason().find("output dtype s32") == 0);
  p = model.p;
  p.input_dtype = DType::s32;
  CHECK(reason().find("input dtype s32") == 0);
  p = model.p;
  p.post_ops.assign(kMaxPostOps + 1, {});
  CHECK(reason() == "9 post-ops; needs at most 8");
}
