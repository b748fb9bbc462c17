// Every split covers the work and keeps within the threads.
#include "engines/native/plan.h"

#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "core/cpu_features.h"

using namespace tae;

TEST_CASE("a plan covers every row on at most the given threads", "[native]") {
  for (int64_t m : {1, 2, 5, 6, 7, 16, 33, 128, 500, 4097})
    for (int64_t panels : {1, 2, 12, 48, 500})
      for (int64_t k_pad : {0, 64, 768, 4096})
        for (int64_t unit : {1, 3, 6, 32})
          for (int threads : {1, 2, 3, 64}) {
            INFO("m " << m << " panels " << panels << " k " << k_pad << " unit " << unit << " threads "
                      << threads);
            const native::Plan plan = native::make_plan(m, panels, k_pad, unit, 1, threads);
            CHECK(plan.tasks() >= 1);
            CHECK(plan.tasks() <= threads);
            CHECK(plan.column_tasks <= panels);
            // No row is missing and no row task is empty.
            CHECK(plan.row_tasks * plan.rows_per_task >= m);
            CHECK((plan.row_tasks - 1) * plan.rows_per_task < m);
          }
}

TEST_CASE("tasks of many tiles are equal, of few are whole tiles", "[native]") {
  CHECK(native::make_plan(1024, 6, 384, 6, 1, 2).rows_per_task == 512);
  CHECK(native::make_plan(1000, 6, 384, 32, 16, 2).rows_per_task == 512);
  CHECK(native::make_plan(62, 1, 384, 6, 1, 2).rows_per_task == 36);
}

TEST_CASE("small problems stay on the calling thread, large ones do not", "[native]") {
  CHECK(native::make_plan(1, 1, 64, 6, 1, 8).tasks() == 1);
  CHECK(native::make_plan(512, 48, 768, 6, 1, 8).tasks() == 8);
  CHECK(native::make_plan(1, 64, 4096, 6, 1, 8).column_tasks == 8);
}

TEST_CASE("blocks respect the kernel's multiples", "[native]") {
  for (Isa isa : {Isa::portable, Isa::avx512_vnni, Isa::amx}) {
    const kernels::GemmKernels& gemm = kernels::gemm_kernels(isa);
    for (int64_t k : {0, 1, 63, 768, 4096, 65793}) {
      const std::vector<int8_t> zeros(static_cast<size_t>(70 * k));
      const kernels::PackedWeight weight(zeros.data(), 70, k);
      for (int64_t rows : {1, 5, 24, 25, 40, 64, 70, 1000}) {
        const bool bytes = gemm.finishes && rows % 2 == 0;
        INFO(name_of(isa) << " k " << k << " rows " << rows << (bytes ? " to bytes" : ""));
        const native::Blocks b = native::choose_blocks(gemm, weight, rows, weight.k_pad() | 64, bytes);
        CHECK(b.rows >= 1);
        CHECK(b.rows <= rows);
        // A tile never straddles two sets of quantized rows, except the last.
        CHECK((b.rows == rows || b.rows % b.tile_rows == 0));
        CHECK(b.tile_panels >= 1);
        CHECK(b.tile_panels <= weight.panels());
        CHECK(b.quads * 4 >= k);
        CHECK(b.quads * 4 <= weight.k_pad());
        CHECK(b.quads % gemm.quad_multiple == 0);
        CHECK(b.k_quads % gemm.quad_multiple == 0);
        CHECK((k == 0 || b.k_quads > 0));
      }
    }
  }
}
