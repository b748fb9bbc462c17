// linear_weight_only on our own kernels: what a problem packs (weight_only.cpp) and the work of a
// task (weight_only_task.cpp).
//
// A task owns a range of rows and of weight panels. It brings as many rows as L2 holds
// into planes, in tiles; each panel then meets all of them before the next one is read.
// Without kernels of their own, 4-bit weights become int8 a group at a time, in L1, and
// the int8 GEMM multiplies.
#pragma once

#include <string>
#include <vector>

#include "core/cpu_features.h"
#include "core/round_up.h"
#include "engines/native/weight4_pack.h"
#include "engines/weight_only.h"
#include "kernels/gemm.h"
#include "kernels/weight_only.h"

namespace tae::native {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::kWeightOnlyRows;
using kernels::PlaneScales;

constexpr int64_t kMostGroup = 128;

class NativeWeightOnly final : public WeightOnlyImpl {
 public:
  NativeWeightOnly(const WeightOnlyProblem& p, Isa isa);

  void run(const WeightOnlyArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override;
  size_t packed_bytes() const override;

 private:
  // Where the planes of a set of rows and their sums lie; one thread's memory, in bytes.
  struct Layout {
    int64_t set_rows = 0;
    int64_t tile_rows = 0;   // min(set_rows, kWeightOnlyRows)
    int64_t scales[4] = {};  // [tiles][groups][tile rows]: scale and start of high, of low planes
    int64_t low_row = 0;     // the same
    int64_t low_count = 0;   // [tiles][groups]
    int64_t planes[2] = {};  // [tiles][groups][tile rows][group]: bytes of high, of low planes
    int64_t row_scales = 0;  // [rows of a set]
    int64_t v = 0;           // [rows][64]; one row: [64 * panels]
    int64_t c = 0, ones_c = 0, unpacked = 0, ones = 0;  // of the GEMM's way
    int64_t bytes = 0;

    int64_t take(int64_t size) {
      const int64_t at = bytes;
      bytes += round_up(size, 64);
      return at;
    }
  };
  // The same as pointers.
  struct Scratch {
    int64_t set_rows, tile_rows;
    PlaneScales high_scales, low_scales;
    uint8_t* low_row;
    int32_t* low_count;
    uint8_t *high, *low;
    float *row_scales, *v;
    int32_t *c, *ones_c;
    int8_t* unpacked;
    uint8_t* ones;
  };

  int64_t panels() const { return bits_ == 8 ? weight8_.panels() : weight4_.panels(); }
  int64_t panel_bytes() const { return bits_ == 8 ? weight8_.panel_bytes() : weight4_.panel_bytes(); }
  int64_t block_bytes() const { return bits_ == 8 ? group_ * kPanelColumns : weight4_.block_bytes(); }
  const uint8_t* block(int64_t p, int64_t g) const {
    const uint8_t* panel =
        bits_ == 8 ? reinterpret_cast<const uint8_t*>(weight8_.panel(p)) : weight4_.panel(p);
    return panel + g * block_bytes();
  }
  bool own_rows() const { return kernels_.rows8 != nullptr; }
  // A call of one row; its sums of all panels have room in Scratch::v.
  bool by_row(const WeightOnlyArgs& args) const { return args.m == 1 && own_rows(); }

  Layout layout(const WeightOnlyArgs& args, int64_t set_rows, int64_t task_panels) const;
  static Scratch scratch(const Layout& l, uint8_t* base);
  void to_planes(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows) const;
  void run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t r0, int64_t r1, int64_t p0,
                int64_t p1) const;
  void run_row(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t p0, int64_t p1) const;
  void run_panel(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void run_panel_gemm(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void add_plane_gemm(const Scratch& s, GemmBlock* block, const uint8_t* row, const float* scale,
                      const int32_t* column_sum, const float* weight_scale, float* v) const;
  void finish(const WeightOnlyArgs& args, float scale, const float* v, int64_t m, int64_t n0,
              int64_t count) const;

  int64_t k_;
  int64_t n_;
  int64_t group_;
  int64_t groups_;
  int bits_;
  int input_bits_;
  float two_planes_below_;
  DType dtype_;
  Isa isa_;
  const kernels::WeightOnlyKernels& kernels_;
  const GemmKernels& gemm_;  // where kernels_ have no rows8
  kernels::PackedWeight weight8_;
  PackedWeight4 weight4_;
  std::vector<float> weight_scale_;  // 8 bit
  std::vector<int32_t> group_sums_;  // 8 bit, for the GEMM: [panels][groups][64]
  std::vector<float> bias_;
};

}  // namespace tae::native
