// Kernels of one tap without padding: the native linear on the input's pixels.
#include <algorithm>
#include <cstring>
#include <utility>

#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"

namespace tae {
namespace {

constexpr int64_t kPickedBytes = 32 << 10;  // that a thread copies at least

// A convolution whose rows are the input's pixels, all or some of them.
class PointwiseConv final : public ConvImpl {
 public:
  PointwiseConv(const ConvGeometry& g, LinearImplPtr linear) : geometry_(g), linear_(std::move(linear)) {}
  void run(const ConvArgs& args) const override {
    const int64_t* const stride = geometry_.stride;
    if (stride[0] == 1 && stride[1] == 1 && stride[2] == 1) return linear_->run(args);
    const ScratchMemory pixels(static_cast<size_t>(args.m * geometry_.in_channels));
    pick(args, pixels.data());
    ConvArgs picked = args;
    picked.input = pixels.data();
    linear_->run(picked);
  }
  const char* engine() const override { return linear_->engine(); }
  std::string description() const override { return linear_->description() + ", pointwise"; }
  size_t packed_bytes() const override { return linear_->packed_bytes(); }

 private:
  void pick(const ConvArgs& args, uint8_t* dst) const;

  ConvGeometry geometry_;
  LinearImplPtr linear_;
};

// The pixels that a stride leaves, side by side.
void PointwiseConv::pick(const ConvArgs& args, uint8_t* dst) const {
  const int64_t channels = geometry_.in_channels, width = args.output_size[2];
  const int64_t* const stride = geometry_.stride;
  parallel_for(args.m / width, std::max<int64_t>(1, kPickedBytes / (width * channels)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t line = begin; line < end; ++line) {
                   const int64_t plane = line / args.output_size[1];
                   const int64_t d = plane % args.output_size[0] * stride[0];
                   const int64_t h = line % args.output_size[1] * stride[1];
                   const int64_t image = plane / args.output_size[0] * args.input_size[0] + d;
                   const int64_t row = image * args.input_size[1] + h;
                   const uint8_t* const src =
                       static_cast<const uint8_t*>(args.input) + row * args.input_size[2] * channels;
                   for (int64_t w = 0; w < width; ++w)
                     std::memcpy(dst + (line * width + w) * channels, src + w * stride[2] * channels,
                                 static_cast<size_t>(channels));
                 }
               });
}

}  // namespace

// Not a transposed one: its output may be larger than the input (output_padding).
bool is_pointwise(const ConvGeometry& g) {
  if (g.transposed) return false;
  for (int axis = 0; axis < 3; ++axis)
    if (g.kernel[axis] != 1 || g.padding[axis] != 0) return false;
  return g.groups == 1;
}

Result<ConvImplPtr> make_pointwise(const ConvProblem& p) {
  Result<LinearImplPtr> linear = make_linear_native(p.rows);
  if (!linear) return Refusal{linear.reason()};
  return ConvImplPtr(std::make_shared<PointwiseConv>(p.geometry, std::move(linear.value())));
}

}  // namespace tae
