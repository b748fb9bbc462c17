#include "engines/onednn/conv.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/cpu_features.h"
#include "engines/conv_forms.h"
#include "engines/onednn/onednn.h"

namespace tae {
namespace onednn {
namespace {

// relu, clamp and affine, on a type that oneDNN writes.
bool is_fused(const LinearProblem& p) {
  if (p.output_dtype == DType::bf16 || p.qparams_in_call) return false;
  return std::all_of(p.post_ops.begin(), p.post_ops.end(), [](const PostOp& op) {
    return op.kind == PostOp::Kind::relu || op.kind == PostOp::Kind::affine ||
           (op.kind == PostOp::Kind::clamp && op.alpha <= op.beta);
  });
}

}  // namespace

Conv::Conv(const ConvProblem& p)
    : geometry_(p.geometry),
      output_(p.rows),
      epilogue_(kernels::epilogue(best_isa())),
      raw_(!is_fused(p.rows)),
      scale_(static_cast<size_t>(p.rows.n)),
      zero_(raw_ ? static_cast<size_t>(p.rows.n) : 0),
      input_scale_(p.rows.input_scale),
      output_scale_(p.rows.output_scale),
      input_zero_point_(p.rows.input_zero_point),
      output_zero_point_(p.rows.output_zero_point),
      qparams_in_call_(p.rows.qparams_in_call),
      flips_(p.rows.input_dtype == DType::qs8 && !p.geometry.transposed && !is_pixels(p.geometry)),
      rows_(kernels::row_kernels(best_isa())) {
  if (flips_) input_zero_point_ += 128;
  const LinearProblem& rows = p.rows;
  for (int64_t n = 0; n < rows.n; ++n)
    scale_[static_cast<size_t>(n)] =
        rows.input_scale * rows.weight_scale[rows.weight_scale_size == 1 ? 0 : n];
  if (rows.bias != nullptr && !raw_) bias_.assign(rows.bias, rows.bias + rows.n);
  spec_.geometry = geometry_;
  spec_.deep = !is_flat(geometry_, 0);
  spec_.n = rows.n;
  spec_.input_dtype = flips_ ? DType::qu8 : rows.input_dtype;
  spec_.output_dtype = raw_ ? DType::s32 : rows.output_dtype;
  spec_.input_zero_point = input_zero_point_ != 0 || qparams_in_call_;
  spec_.bias = !bias_.empty();
  if (!raw_) spec_.post_ops = rows.post_ops;
  pieces_ = ConvPieces(spec_);
}

std::string Conv::prepare(const ConvProblem& p) {
  piece_ = cached_conv(pieces_.spec(), nullptr);
  if (!piece_->error().empty()) return piece_->error();
  const WeightLayout& layout = *piece_->layout();
  void* data = nullptr;
  if (posix_memalign(&data, 64, layout.bytes()) != 0) throw std::bad_alloc();
  weight_.reset(static_cast<uint8_t*>(data));
  std::memset(data, 0, layout.bytes());
  layout.pack(pieces_.spec(), p.rows.weight, weight_.get());
  if (!is_pixels(p.geometry) || p.geometry.groups != 1) return {};
  Result<LinearImplPtr> few = make_linear_onednn(p.rows);
  if (!few) return few.reason();
  few_pixels_ = std::move(few.value());
  return {};
}

}  // namespace onednn

// oneDNN 3.7.2 divides by zero at a stride of 2^31 - 1.
constexpr int64_t kMostStep = 1 << 16;

Result<ConvImplPtr> make_conv_onednn(const ConvProblem& problem) {
  std::vector<int8_t> flipped;
  const ConvProblem p = forward_form(problem, &flipped);
  if (std::string error = onednn::init_error(); !error.empty()) return refuse(error);
  const LinearProblem& rows = p.rows;
  if (rows.dynamic || !is_quantized(rows.input_dtype))
    return refuse("input dtype ", name_of(rows.input_dtype));
  if (rows.output_dtype == DType::s32) return refuse("output dtype ", name_of(rows.output_dtype));
  if (rows.post_ops.size() > static_cast<size_t>(kMaxPostOps))
    return refuse(rows.post_ops.size(), " post-ops; needs at most ", kMaxPostOps);
  if (has_weight_zero_point(rows)) return refuse("asymmetric weights");
  if (rows.k > kMaxExactK)
    return refuse("taps times channels ", rows.k, "; int32 is exact up to ", kMaxExactK);
  const int64_t multiplier = rows.n / p.geometry.groups;
  if (p.geometry.groups > 1 && p.geometry.group_channels() == 1 && multiplier > 1)
    return refuse("depthwise multiplier ", multiplier, "; oneDNN would multiply one channel at a time");
  for (int axis = 0; axis < 3; ++axis)
    if (const int64_t step = std::max(p.geometry.stride[axis], p.geometry.dilation[axis]); step > kMostStep)
      return refuse("stride or dilation ", step, "; oneDNN's integers may overflow above ", kMostStep);
  auto impl = std::make_shared<onednn::Conv>(p);
  if (std::string error = impl->prepare(p); !error.empty()) return refuse(error);
  return ConvImplPtr(std::move(impl));
}

}  // namespace tae
