// Convolution as plain loops: gather the row of an output pixel, hand it to the
// reference engine's linear.
#include "engines/conv.h"

#include <vector>

namespace tae {
namespace {

class ReferenceConv final : public ConvImpl {
 public:
  explicit ReferenceConv(const ConvProblem& p)
      : geometry_(p.geometry),
        k_(p.rows.k),
        n_(p.rows.n),
        output_bytes_(static_cast<int64_t>(size_of(p.rows.output_dtype))),
        qparams_in_call_(p.rows.qparams_in_call),
        zero_point_(static_cast<uint8_t>(p.rows.input_zero_point)) {
    for (int64_t g = 0; g < geometry_.groups; ++g)
      groups_.push_back(make_linear_reference(group_problem(p, g)).value());
  }

  void run(const ConvArgs& args) const override {
    std::vector<uint8_t> row(static_cast<size_t>(k_));
    const int64_t* size = args.output_size;
    int64_t pixel = 0;
    for (int64_t b = 0; b < args.batch; ++b)
      for (int64_t d = 0; d < size[0]; ++d)
        for (int64_t h = 0; h < size[1]; ++h)
          for (int64_t w = 0; w < size[2]; ++w, ++pixel)
            for (int64_t g = 0; g < geometry_.groups; ++g) {
              gather(args, b, {d, h, w}, g, row.data());
              run_row(args, pixel, g, row.data());
            }
  }

  const char* engine() const override { return "reference"; }
  std::string description() const override { return "plain loops over gathered rows"; }
  size_t packed_bytes() const override {
    size_t bytes = 0;
    for (const LinearImplPtr& g : groups_) bytes += g->packed_bytes();
    return bytes;
  }

 private:
  struct Position {
    int64_t at[3];
  };

  void gather(const ConvArgs& args, int64_t batch, const Position& out, int64_t group, uint8_t* row) const {
    const ConvGeometry& geo = geometry_;
    const int64_t channels = geo.group_channels();
    const uint8_t zero_point = qparams_in_call_ ? static_cast<uint8_t>(args.input_zero_point) : zero_point_;
    for (int64_t i = 0; i < geo.kernel[0]; ++i)
      for (int64_t j = 0; j < geo.kernel[1]; ++j)
        for (int64_t k = 0; k < geo.kernel[2]; ++k) {
          const int64_t d = geo.source(0, out.at[0], i, args.input_size[0]);
          const int64_t h = geo.source(1, out.at[1], j, args.input_size[1]);
          const int64_t w = geo.source(2, out.at[2], k, args.input_size[2]);
          const bool inside = d >= 0 && h >= 0 && w >= 0;
          const int64_t pixel =
              ((batch * args.input_size[0] + d) * args.input_size[1] + h) * args.input_size[2] + w;
          for (int64_t c = 0; c < channels; ++c)
            *row++ =
                inside
                    ? static_cast<const uint8_t*>(args.input)[pixel * geo.in_channels + group * channels + c]
                    : zero_point;
        }
  }

  void run_row(const ConvArgs& args, int64_t pixel, int64_t group, const uint8_t* row) const {
    const int64_t element = pixel * n_ + group * (n_ / geometry_.groups);
    LinearArgs one = args;
    one.m = 1;
    one.input = row;
    one.input_stride = k_;
    one.output = static_cast<uint8_t*>(args.output) + element * output_bytes_;
    if (args.other != nullptr)
      one.other =
          static_cast<const uint8_t*>(args.other) + element * static_cast<int64_t>(size_of(args.other_dtype));
    groups_[static_cast<size_t>(group)]->run(one);
  }

  ConvGeometry geometry_;
  int64_t k_, n_, output_bytes_;
  bool qparams_in_call_;
  uint8_t zero_point_;
  std::vector<LinearImplPtr> groups_;
};

}  // namespace

Result<ConvImplPtr> make_conv_reference(const ConvProblem& p) {
  return ConvImplPtr(std::make_shared<ReferenceConv>(p));
}

}  // namespace tae
