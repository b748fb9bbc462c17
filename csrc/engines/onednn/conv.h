// Convolution on oneDNN's primitives, exact: see conv_primitive.h for the epilogue. What
// that cannot express (sums with another tensor, other post-ops, bf16, qparams that come
// with the call) takes oneDNN's int32 accumulators through kernels/epilogue.h.
//
// A weight is packed once, in the layout that oneDNN likes for a piece of moderate size.
// Each size of input has its own primitive on those weights. Should oneDNN want another
// layout for a size, or have no code for it, the output is computed in pieces of that first
// size: slower, but never by plain loops.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/fork.h"
#include "engines/onednn/conv_piece.h"
#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/conv_window.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/rows.h"

namespace tae::onednn {

class Conv final : public ConvImpl {
 public:
  explicit Conv(const ConvProblem& p);
  // Packs; the reason why oneDNN cannot do it, or empty.
  std::string prepare(const ConvProblem& p);

  void run(const ConvArgs& args) const override;
  const char* engine() const override { return "onednn"; }
  std::string description() const override {
    return "onednn " + piece_->implementation() + (raw_ ? ", int32" : "");
  }
  size_t packed_bytes() const override {
    return output_.bytes() + piece_->layout()->bytes() + 8 * scale_.size() +
           (few_pixels_ != nullptr ? few_pixels_->packed_bytes() : 0);
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  // What the parts of one call have in common.
  struct Call;

  ConvArgs folded(const ConvArgs& args) const;
  // Null: there is none for this size.
  ConvPrimitivePtr primitive(const ConvSpec& spec) const;
  ConvOperands operands(const Call& call) const;
  ConvImages images(const Call& call, const ConvArgs& args) const;
  void run_whole(const Call& call, const ConvArgs& args, const ConvSpec& spec, const ConvPrimitive& primitive,
                 const ConvWindow& window, int64_t copied) const;
  void run_pieces(const Call& call, const ConvArgs& args) const;
  void finish(const Call& call, const ConvArgs& args, int64_t m, const int32_t* raw, int64_t rows) const;
  int64_t output_size() const { return static_cast<int64_t>(size_of(output_.dtype())); }

  const ConvGeometry geometry_;
  ConvPieces pieces_;
  ConvSpec spec_;  // without sizes
  ConvPrimitivePtr piece_;
  std::unique_ptr<uint8_t, Free> weight_;
  LinearImplPtr few_pixels_;  // 1x1 only
  OutputRule output_;
  kernels::EpilogueFn epilogue_;
  bool raw_;                   // int32 accumulators from oneDNN
  std::vector<float> scale_;   // [n]: s_x * s_w
  std::vector<float> bias_;    // [n] or empty
  std::vector<int32_t> zero_;  // [n]: oneDNN has dealt with the zero point
  float input_scale_, output_scale_;
  int32_t input_zero_point_, output_zero_point_;
  bool qparams_in_call_;  // of the input, instead of those above
  bool flips_;            // the copy turns s8 into u8
  const kernels::RowKernels& rows_;

  // Sizes that this weight has seen, most recent last, so that the common lookup needs
  // neither the global lock nor its map.
  std::mutex& mutex_ = fork_safe_mutex(this);
  mutable std::vector<std::pair<std::array<int64_t, 8>, ConvPrimitivePtr>> known_;
};

}  // namespace tae::onednn
