// Convolution that reads its rows from the input as it lies: the taps of one kernel line
// are side by side in memory, so a GEMM over them has the input's pixels as rows, one
// stride apart, and nothing is gathered.
//
// Padding, channels that do not fill groups of 4 and signed bytes are dealt with in one
// copy of the input; an input without any of them is not copied.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::PackedWeight;

// A block of rows ends with the line: shorter lines leave register tiles half empty.
constexpr int64_t kShortestLine = 24;
constexpr int64_t kMostLineBlocks = 4;

// Taps that are one stretch of memory.
int64_t taps_together(const ConvGeometry& g) { return g.dilation[2] == 1 ? g.kernel[2] : 1; }

bool whole_steps(int64_t bytes, const GemmKernels& gemm) { return bytes % (4 * gemm.quad_multiple) == 0; }

// Channels of a pixel as the GEMM reads it: as they are when a stretch of taps is whole steps
// of 4 bytes, else rounded up.
int64_t read_channels(const ConvGeometry& g, const GemmKernels& gemm) {
  return whole_steps(taps_together(g) * g.in_channels, gemm) ? g.in_channels : round_up(g.in_channels, 4);
}

class DirectConv final : public NativeConv {
 public:
  DirectConv(const ConvProblem& p, Isa isa)
      : NativeConv(p, isa),
        gemm_(kernels::gemm_kernels(isa)),
        rows_(kernels::row_kernels(isa)),
        taps_(taps_together(geometry_)),
        channels_(read_channels(geometry_, gemm_)),
        weight_(pack(p)),
        gather_(make_gather(p, isa, widened() ? nullptr : weight_)) {}

  static bool fits(const ConvProblem& p, Isa isa);
  void run(const ConvArgs& args) const override;
  // For another way to run the same rows; null when channels were added.
  PackedWeightPtr shared_weight() const { return widened() ? nullptr : weight_; }
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " direct " + gemm_.name;
  }
  size_t packed_bytes() const override {
    return output_.bytes() + (widened() ? weight_->bytes() : 0) + gather_->packed_bytes();
  }

 private:
  struct Image {
    const uint8_t* data;
    int64_t size[3];  // with padding
  };
  bool widened() const { return channels_ != geometry_.in_channels; }
  PackedWeightPtr pack(const ConvProblem& p) const;
  bool copies() const;
  void copy_line(const ConvArgs& args, const Image& image, int64_t line, uint8_t* dst) const;
  void multiply_line(const ConvArgs& args, const Image& image, int64_t line, int64_t first_panel,
                     int64_t last_panel, int32_t* tile) const;

  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  int64_t taps_;            // of one GEMM
  int64_t channels_;        // of a pixel, with those that were added
  PackedWeightPtr weight_;  // also the gather's, unless channels were added
  ConvImplPtr gather_;      // for short lines and large inputs
};

bool DirectConv::fits(const ConvProblem& p, Isa isa) {
  const ConvGeometry& g = p.geometry;
  const GemmKernels& gemm = kernels::gemm_kernels(isa);
  if (g.transposed || g.groups != 1 || has_weight_zero_point(p.rows)) return false;
  const int64_t channels = read_channels(g, gemm);
  // 1 or 2 channels of 4 would multiply by zero more often than not.
  return (channels == g.in_channels || g.in_channels > 2) && whole_steps(channels * taps_together(g), gemm);
}

PackedWeightPtr DirectConv::pack(const ConvProblem& p) const {
  const int64_t taps = geometry_.taps(), channels = geometry_.in_channels;
  if (!widened()) return std::make_shared<PackedWeight>(p.rows.weight, n_, taps * channels);
  std::vector<int8_t> wide(static_cast<size_t>(n_ * taps * channels_));
  for (int64_t t = 0; t < n_ * taps; ++t)
    std::copy_n(p.rows.weight + t * channels, channels, wide.data() + t * channels_);
  return std::make_shared<PackedWeight>(wide.data(), n_, taps * channels_);
}

bool DirectConv::copies() const {
  const int64_t* p = geometry_.padding;
  return flip_ != 0 || widened() || gemm_.row_multiple != 1 || p[0] + p[1] + p[2] != 0;
}

// One line of the padded image.
void DirectConv::copy_line(const ConvArgs& args, const Image& image, int64_t line, uint8_t* dst) const {
  const int64_t bytes = image.size[2] * channels_;
  dst += line * bytes;
  const int64_t h = line % image.size[1] - geometry_.padding[1];
  const int64_t d = line / image.size[1] % image.size[0] - geometry_.padding[0];
  const int64_t n = line / (image.size[1] * image.size[0]);
  const bool inside = h >= 0 && h < args.input_size[1] && d >= 0 && d < args.input_size[0];
  const int32_t zero_point = input_row(args).zero_point;
  if (!inside) {
    std::memset(dst, zero_point, static_cast<size_t>(bytes));
    return;
  }
  const int64_t width = args.input_size[2], channels = geometry_.in_channels;
  const int64_t margin = geometry_.padding[2] * channels_;
  const uint8_t* src = static_cast<const uint8_t*>(args.input) +
                       ((n * args.input_size[0] + d) * args.input_size[1] + h) * width * channels;
  std::memset(dst, zero_point, static_cast<size_t>(margin));
  std::memset(dst + margin + width * channels_, zero_point,
              static_cast<size_t>(bytes - margin - width * channels_));
  dst += margin;
  if (channels == channels_) {
    if (flip_ != 0) {
      rows_.shift_s8(reinterpret_cast<const int8_t*>(src), width * channels, dst, width * channels);
    } else {
      std::memcpy(dst, src, static_cast<size_t>(width * channels));
    }
    return;
  }
  // The weights of the channels that are added are 0: what is read there does not count.
  int64_t w = 0;
  if (channels_ == 4) {
    const uint32_t flip = flip_ * 0x01010101u;
    for (; (w + 1) * channels + 4 <= width * channels; ++w) {
      uint32_t pixel;
      std::memcpy(&pixel, src + w * channels, 4);
      pixel ^= flip;
      std::memcpy(dst + 4 * w, &pixel, 4);
    }
  }
  for (; w < width; ++w)
    for (int64_t c = 0; c < channels_; ++c)
      dst[w * channels_ + c] = c < channels ? src[w * channels + c] ^ flip_ : 0;
}

// The columns of some panels in one line of the output.
void DirectConv::multiply_line(const ConvArgs& args, const Image& image, int64_t line, int64_t first_panel,
                               int64_t last_panel, int32_t* tile) const {
  const ConvGeometry& g = geometry_;
  const int64_t width = args.output_size[2];
  const int64_t h = line % args.output_size[1];
  const int64_t d = line / args.output_size[1] % args.output_size[0];
  const int64_t n = line / (args.output_size[1] * args.output_size[0]);
  const EpilogueParams epilogue = output_.params(*weight_, args);
  const kernels::RowParams input = input_row(args);
  const int64_t quads = taps_ * channels_ / 4;
  // More k than this would be read from L2 by every tile of a block.
  const bool in_lines =
      gemm_.takes_lines && taps_ == g.kernel[2] && g.kernel[1] * quads <= kMostLineBlocks * gemm_.k_block / 4;
  for (int64_t panel = first_panel; panel < last_panel; ++panel)
    for (int64_t w = 0; w < width; w += gemm_.row_block) {
      GemmBlock b;
      b.a_stride = g.stride[2] * channels_;
      b.b = weight_->panel(panel);
      b.c = tile;
      b.rows = std::min(gemm_.row_block, width - w);
      for (int64_t i = 0; i < g.kernel[0]; ++i)
        for (int64_t j = 0; j < g.kernel[1]; ++j) {
          const int64_t z = (n * image.size[0] + d * g.stride[0] + i * g.dilation[0]) * image.size[1];
          const int64_t row = (z + h * g.stride[1] + j * g.dilation[1]) * image.size[2] + w * g.stride[2];
          if (in_lines) {
            // The sums stay in registers from one line of the kernel to the next.
            b.a = image.data + row * channels_;
            b.quads = quads;
            b.lines = g.kernel[1];
            b.line_stride = g.dilation[1] * image.size[2] * channels_;
            gemm_.block(b);
            b.accumulate = true;
            b.b += b.lines * b.quads * kernels::kQuadBytes;
            break;
          }
          for (int64_t t = 0; t < g.kernel[2]; t += taps_) {
            const uint8_t* const a = image.data + (row + t * g.dilation[2]) * channels_;
            for (int64_t q = 0; q < quads; q += gemm_.k_block / 4) {
              b.a = a + 4 * q;
              b.quads = std::min(gemm_.k_block / 4, quads - q);
              gemm_.block(b);
              b.accumulate = true;
              b.b += b.quads * kernels::kQuadBytes;
            }
          }
        }
      EpilogueTile t;
      t.raw = tile;
      t.raw_stride = kPanelColumns;
      t.rows = b.rows;
      t.n0 = panel * kPanelColumns;
      t.cols = std::min(kPanelColumns, n_ - t.n0);
      t.row = &input;
      t.row_step = 0;
      place(&t, args, line * width + w, t.n0);
      epilogue_(epilogue, t);
    }
}

void DirectConv::run(const ConvArgs& args) const {
  Image image{static_cast<const uint8_t*>(args.input), {}};
  int64_t copied = args.batch * channels_;
  for (int axis = 0; axis < 3; ++axis) {
    image.size[axis] = args.input_size[axis] + 2 * geometry_.padding[axis];
    if (__builtin_mul_overflow(copied, image.size[axis], &copied)) copied = kMostCopiedBytes + 1;
  }
  const bool copy = copies();
  if (args.output_size[2] < kShortestLine || (copy && copied > kMostCopiedBytes)) {
    gather_->run(args);
    return;
  }
  const int team = threads(args);
  const auto share = [&](int64_t count, const auto& body) {
    if (team == 1) {
      body(0, count);
    } else {
      parallel_for(count, 1, body);
    }
  };
  // Rows that a kernel may touch behind the last one.
  const int64_t slack = copy ? gemm_.row_multiple * geometry_.stride[2] * channels_ : 0;
  const ScratchMemory padded(static_cast<size_t>(copy ? copied + slack : 0));
  if (copy) {
    image.data = padded.data();
    const int64_t lines = args.batch * image.size[0] * image.size[1];
    std::memset(padded.data() + copied, 0, static_cast<size_t>(slack));
    share(lines, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) copy_line(args, image, line, padded.data());
    });
  }
  // Fewer lines than threads have use for: the columns are shared too.
  const int64_t lines = args.m / args.output_size[2], panels = weight_->panels();
  const int64_t column_tasks = lines < 2 * team ? std::min<int64_t>(panels, 2 * team) : 1;
  share(lines * column_tasks, [&](int64_t begin, int64_t end) {
    const int64_t rows = round_up(gemm_.row_block, gemm_.row_multiple);
    const ScratchMemory memory(static_cast<size_t>(rows * kPanelColumns * 4));
    if (gemm_.begin != nullptr) gemm_.begin();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % column_tasks;
      multiply_line(args, image, task / column_tasks, panels * part / column_tasks,
                    panels * (part + 1) / column_tasks, reinterpret_cast<int32_t*>(memory.data()));
    }
    if (gemm_.end != nullptr) gemm_.end();
  });
}

// A kernel one tap wide: on an image one pixel wide, the height is the line.
class TallConv final : public ConvImpl {
 public:
  TallConv(const ConvProblem& p, Isa isa)
      : tall_(turned(p), isa), plain_(make_gather(p, isa, tall_.shared_weight())) {}

  static ConvProblem turned(const ConvProblem& p) {
    ConvProblem t = p;
    ConvGeometry& g = t.geometry;
    for (int64_t* axis : {g.kernel, g.stride, g.padding, g.dilation}) std::swap(axis[1], axis[2]);
    return t;
  }
  static bool fits(const ConvGeometry& g) { return g.kernel[1] > 1 && g.kernel[2] == 1 && g.padding[2] == 0; }

  void run(const ConvArgs& args) const override {
    if (args.input_size[2] != 1) return plain_->run(args);
    ConvArgs t = args;
    std::swap(t.input_size[1], t.input_size[2]);
    std::swap(t.output_size[1], t.output_size[2]);
    tall_.run(t);
  }
  const char* engine() const override { return tall_.engine(); }
  std::string description() const override { return tall_.description() + ", tall"; }
  size_t packed_bytes() const override {
    return tall_.packed_bytes() + (tall_.shared_weight() == nullptr ? plain_->packed_bytes() : 0);
  }

 private:
  DirectConv tall_;
  ConvImplPtr plain_;
};

}  // namespace

ConvImplPtr make_direct(const ConvProblem& p, Isa isa) {
  if (TallConv::fits(p.geometry) && DirectConv::fits(TallConv::turned(p), isa))
    return std::make_shared<TallConv>(p, isa);
  if (!DirectConv::fits(p, isa)) return nullptr;
  return std::make_shared<DirectConv>(p, isa);
}

}  // namespace tae
