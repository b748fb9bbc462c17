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
  PointwiseConv(const ConvProblem& p, LinearImplPtr linear)
      : geometry_(p.geometry),
        output_row_(p.rows.n * static_cast<int64_t>(size_of(p.rows.output_dtype))),
        n_(p.rows.n),
        linear_(std::move(linear)) {}
  void run(const ConvArgs& args) const override;
  const char* engine() const override { return linear_->engine(); }
  std::string description() const override { return linear_->description() + ", pointwise"; }
  size_t packed_bytes() const override { return linear_->packed_bytes(); }

 private:
  void pick(const ConvArgs& args, int64_t first, int64_t count, uint8_t* dst) const;

  ConvGeometry geometry_;
  int64_t output_row_;  // bytes
  int64_t n_;
  LinearImplPtr linear_;
};

// With a stride the pixels are copied, some at a time.
void PointwiseConv::run(const ConvArgs& args) const {
  const int64_t* const stride = geometry_.stride;
  if (stride[0] == 1 && stride[1] == 1 && stride[2] == 1) return linear_->run(args);
  const int64_t channels = geometry_.in_channels;
  const int64_t most = std::min(args.m, std::max<int64_t>(1, kMostCopiedBytes / channels));
  const ScratchMemory pixels(static_cast<size_t>(most * channels));
  LinearArgs part = args;
  part.input = pixels.data();
  for (int64_t first = 0; first < args.m; first += most) {
    part.m = std::min(most, args.m - first);
    pick(args, first, part.m, pixels.data());
    linear_->run(part);
    part.output = static_cast<uint8_t*>(part.output) + part.m * output_row_;
    if (part.other != nullptr)
      part.other = static_cast<const uint8_t*>(part.other) +
                   part.m * n_ * static_cast<int64_t>(size_of(part.other_dtype));
  }
}

// Of the pixels that the stride leaves, `count` from one on, side by side.
void PointwiseConv::pick(const ConvArgs& args, int64_t first, int64_t count, uint8_t* dst) const {
  const int64_t channels = geometry_.in_channels, width = args.output_size[2];
  const int64_t* const stride = geometry_.stride;
  parallel_for(count, std::max<int64_t>(1, kPickedBytes / channels), [&](int64_t begin, int64_t end) {
    uint8_t* to = dst + begin * channels;
    for (int64_t m = first + begin; m < first + end;) {
      const int64_t line = m / width, w = m % width;
      const int64_t plane = line / args.output_size[1];
      const int64_t d = plane % args.output_size[0] * stride[0];
      const int64_t h = line % args.output_size[1] * stride[1];
      const int64_t image = plane / args.output_size[0] * args.input_size[0] + d;
      const int64_t row = image * args.input_size[1] + h;
      const uint8_t* const src =
          static_cast<const uint8_t*>(args.input) + (row * args.input_size[2] + w * stride[2]) * channels;
      const int64_t pixels = std::min(width - w, first + end - m);
      for (int64_t i = 0; i < pixels; ++i, to += channels)
        std::memcpy(to, src + i * stride[2] * channels, static_cast<size_t>(channels));
      m += pixels;
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
  return ConvImplPtr(std::make_shared<PointwiseConv>(p, std::move(linear.value())));
}

}  // namespace tae
