// The oneDNN engine against the reference engine, bit for bit, and against oneDNN's
// own weight layout. Below VNNI it must refuse.
#include "engines/linear.h"

#include <malloc.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>
#include <new>
#include <string>
#include <thread>

#include "core/parallel.h"
#include "engines/onednn/onednn.h"
#include "kernels/gemm.h"
#include "test/csrc/engines/onednn/linear_cases.h"

using namespace tae;
using namespace tae::test;

namespace {

bool has_vnni() { return best_isa() == Isa::avx_vnni || best_isa() >= Isa::avx512_vnni; }

LinearImplPtr make(const LinearProblem& p) {
  auto made = make_linear_onednn(p);
  if (!made) FAIL(made.reason());
  return made.value();
}

std::vector<uint8_t> expected(const LinearCase& c) { return c.run(*make_linear_reference(c.p).value()); }

void compare_random_cases(bool dynamic, unsigned seed) {
  std::mt19937 rng(seed);
  int wrong = 0;
  for (int i = 0; i < 600; ++i) {
    const CaseSize s = case_size(rng, i);
    const LinearCase c = make_case(rng, i, s.m, s.k, s.n, dynamic, {});
    if (same_output(c.p, expected(c), c.run(*make(c.p)))) continue;
    ++wrong;
    UNSCOPED_INFO("case " << i << ": m " << s.m << " k " << s.k << " n " << s.n << " in "
                          << name_of(c.p.input_dtype) << " out " << name_of(c.p.output_dtype));
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("onednn refuses below VNNI, runs a JIT GEMM above", "[onednn]") {
  std::mt19937 rng(1);
  const LinearCase c = make_case(rng, 1, 4, 100, 30, false, {});
  auto made = make_linear_onednn(c.p);
  if (!has_vnni()) {
    REQUIRE(!made);
    CHECK(made.reason().find("saturate") != std::string::npos);
    return;
  }
  REQUIRE(made);
  const std::string description = made.value()->description();
  INFO(description);
  CHECK(description.find("onednn brg_matmul:") == 0);
  CHECK((best_isa() == Isa::amx) == (description.find("amx") != std::string::npos));
  // Weights are padded to 64 by 128, plus column sums and parameters.
  CHECK(made.value()->packed_bytes() >= 128 * 64);
  CHECK(made.value()->packed_bytes() < 128 * 64 + 1500);
  CHECK(onednn::onednn_version().find("3.") == 0);
}

TEST_CASE("onednn: every bucket of rows has a JIT GEMM", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  for (const int64_t rows : onednn::kRowBuckets)
    for (const int64_t k : {64, 256, 832})
      for (const int64_t columns : {64, 192, 512}) {
        INFO("rows " << rows << " k " << k << " columns " << columns);
        CHECK(onednn::cached_gemm(rows, k, columns)->error().empty());
      }
}

TEST_CASE("onednn static linear equals the reference", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  compare_random_cases(false, 100);
}

TEST_CASE("onednn dynamic linear equals the reference", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  compare_random_cases(true, 200);
}

// Accumulators at the ends of int32.
TEST_CASE("onednn: the largest k", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::mt19937 rng(2);
  CaseRange range;
  range.asymmetric_weight = false;
  for (const int kind : {1, 10, 21})  // 10, 21: all values at one end
    for (const bool dynamic : {false, true}) {
      const LinearCase c = make_case(rng, kind, 3, kMaxExactK, 5, dynamic, range);
      CHECK(same_output(c.p, expected(c), c.run(*make(c.p))));
    }
}

TEST_CASE("onednn: large shapes on 1, 2 and 3 threads", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  num_threads();  // ATen sets its default on a thread's first call
  const int before = omp_get_max_threads();
  std::mt19937 rng(3);
  const int64_t shapes[][3] = {{1, 768, 1000}, {1, 4099, 200}, {5, 1500, 500},  {33, 2100, 130},
                               {150, 520, 70}, {400, 65, 65},  {130, 256, 320}, {385, 128, 100}};
  for (const auto& [m, k, n] : shapes)
    for (const bool dynamic : {false, true}) {
      const LinearCase c = make_case(rng, 1, m, k, n, dynamic, {});
      const std::vector<uint8_t> want = expected(c);
      for (int packing = 1; packing <= 3; ++packing) {
        omp_set_num_threads(packing);
        const LinearImplPtr impl = make(c.p);
        for (int threads = 1; threads <= 3; ++threads) {
          omp_set_num_threads(threads);
          INFO("m " << m << " k " << k << " n " << n << " dynamic " << dynamic << " packed by " << packing
                    << " run by " << threads);
          CHECK(same_output(c.p, want, c.run(*impl)));
        }
      }
    }
  omp_set_num_threads(before);
}

TEST_CASE("onednn runs serially inside a parallel region", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::mt19937 rng(4);
  const LinearCase c = make_case(rng, 1, 40, 700, 300, true, {});
  const std::vector<uint8_t> want = expected(c);
  const LinearImplPtr impl = make(c.p);
  int wrong = 0;
#pragma omp parallel num_threads(2) reduction(+ : wrong)
  wrong += !same_output(c.p, want, c.run(*impl));
  CHECK(wrong == 0);
}

TEST_CASE("onednn: one object serves concurrent callers of any size", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::mt19937 rng(5);
  CaseRange range;
  range.add = false;
  LinearCase large = make_case(rng, 1, 70, 300, 200, true, range);
  const LinearImplPtr impl = make(large.p);
  const std::vector<uint8_t> want_large = expected(large);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  // Row by row is the same result when rows are quantized one by one.
  large.p.dynamic_quant.per_row = true;
  const LinearImplPtr per_row = make(large.p);
  const std::vector<uint8_t> want_rows = expected(large);
  const size_t row_bytes = want_rows.size() / static_cast<size_t>(large.m);
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        wrong[t] += !same_output(large.p, want_large, large.run(*impl));
        LinearArgs args = large.args(nullptr);
        args.m = 1 + (i + static_cast<int>(t)) % 40;
        std::vector<uint8_t> out(static_cast<size_t>(args.m) * row_bytes);
        args.output = out.data();
        per_row->run(args);
        wrong[t] += !same_output(
            large.p, {want_rows.begin(), want_rows.begin() + static_cast<ptrdiff_t>(out.size())}, out);
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("onednn: a caller's rounding mode changes nothing", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::mt19937 rng(6);
  for (const bool dynamic : {false, true}) {
    const LinearCase c = make_case(rng, 1, 9, 130, 70, dynamic, {});
    const std::vector<uint8_t> want = expected(c);
    const LinearImplPtr impl = make(c.p);
    std::vector<uint8_t> got;
    {
      HostileFloatEnv env;
      got = c.run(*impl);
    }
    CHECK(same_output(c.p, want, got));
  }
}

// oneDNN's reorder is the authority on its layout; ours is 100 times faster.
TEST_CASE("packed weights have oneDNN's layout BA16a64b4a", "[onednn]") {
  std::mt19937 rng(7);
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  REQUIRE(dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success);
  REQUIRE(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success);
  for (const auto& [k, n] : {std::pair<int64_t, int64_t>{64, 64}, {1, 1}, {100, 30}, {300, 200}}) {
    std::vector<int8_t> weight(static_cast<size_t>(k * n));
    for (int8_t& v : weight) v = static_cast<int8_t>(rng());
    const kernels::PackedWeight ours(weight.data(), n, k);
    const dnnl_dims_t dims = {k, n}, strides = {1, k};
    dnnl_memory_desc_t plain, packed;
    REQUIRE(dnnl_memory_desc_create_with_strides(&plain, 2, dims, dnnl_s8, strides) == dnnl_success);
    REQUIRE(dnnl_memory_desc_create_with_tag(&packed, 2, dims, dnnl_s8, dnnl_BA16a64b4a) == dnnl_success);
    const size_t bytes = dnnl_memory_desc_get_size(packed);
    REQUIRE(bytes == static_cast<size_t>(ours.panels() * ours.panel_bytes()));
    std::vector<int8_t> theirs(bytes);
    dnnl_memory_t from, to;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    REQUIRE(dnnl_memory_create(&from, plain, engine, weight.data()) == dnnl_success);
    REQUIRE(dnnl_memory_create(&to, packed, engine, theirs.data()) == dnnl_success);
    REQUIRE(dnnl_reorder_primitive_desc_create(&desc, plain, engine, packed, engine, nullptr) ==
            dnnl_success);
    REQUIRE(dnnl_primitive_create(&reorder, desc) == dnnl_success);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    REQUIRE(dnnl_primitive_execute(reorder, stream, 2, args) == dnnl_success);
    INFO("k " << k << " n " << n);
    CHECK(std::memcmp(ours.panel(0), theirs.data(), bytes) == 0);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(from);
    dnnl_memory_destroy(to);
    dnnl_memory_desc_destroy(plain);
    dnnl_memory_desc_destroy(packed);
  }
  dnnl_stream_destroy(stream);
  dnnl_engine_destroy(engine);
}

// Stack and heap that are there while the address space cannot grow: oneDNN itself
// crashes without small blocks. What then fails is the memory for its code.
[[gnu::noinline]] void reserve_small_memory() {
  volatile char stack[1 << 20];
  for (size_t i = 0; i < sizeof stack; i += 1024) stack[i] = 1;
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  std::vector<std::vector<char>> blocks;
  for (int i = 0; i < 256; ++i) blocks.emplace_back(32 << 10);
}

// No new memory: code generation fails, and works again when there is some.
TEST_CASE("onednn: running out of memory is not remembered", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  constexpr int64_t kRows = 3, kK = 64 * 401, kColumns = 192;  // of no other test
  onednn::cached_gemm(kRows, kK, 64);
  bool threw = false;
  {
    reserve_small_memory();
    rlimit before;
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    const rlimit none{1 << 20, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_AS, &none) == 0);
    try {
      onednn::cached_gemm(kRows, kK, kColumns);
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    setrlimit(RLIMIT_AS, &before);
  }
  CHECK(threw);
  CHECK(onednn::cached_gemm(kRows, kK, kColumns)->error().empty());
}

TEST_CASE("onednn refuses with a reason", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::mt19937 rng(8);
  CaseRange range;
  range.asymmetric_weight = false;
  const LinearCase c = make_case(rng, 1, 1, 8, 4, false, range);
  const auto reason = [](const LinearProblem& p) {
    auto made = make_linear_onednn(p);
    return made ? std::string() : made.reason();
  };
  LinearProblem p = c.p;
  CHECK(reason(p).empty());
  p.k = kMaxExactK + 1;
  CHECK(reason(p) == "k 65794; int32 is exact up to 65793");
  p = c.p;
  const std::vector<int32_t> ones(c.scale.size(), 1);
  p.weight_zero_point = ones.data();
  p.k = kMaxExactKAsymmetricWeight + 1;
  CHECK(reason(p) == "k 33026; int32 is exact up to 33025");
  p = c.p;
  p.input_dtype = DType::f32;
  CHECK(reason(p) == "input dtype f32");
  p = c.p;
  p.post_ops.assign(kMaxPostOps + 1, {});
  CHECK(reason(p) == "9 post-ops; needs at most 8");
}
