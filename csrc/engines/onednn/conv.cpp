// Convolution on oneDNN's primitives, exact: see conv_primitive.h for the epilogue. What
// that cannot express (sums with another tensor, other post-ops, bf16) takes oneDNN's int32
// accumulators through kernels/epilogue.h.
//
// A weight is packed once, in the layout that oneDNN likes for a piece of moderate size.
// Each size of input has its own primitive on those weights. Should oneDNN want another
// layout for a size, or have no code for it, the output is computed in pieces of that first
// size: slower, but never by plain loops.
//
// oneDNN sees no padding: the input is copied with its zero points around it. Its own
// padding costs as much (it sums the weights of every border on each call) and is wrong in
// 3.7: sums that two threads get wrong, positions whose taps are all outside (upstream
// issue 5942), stale columns (5080). The copy also turns s8 into u8, which oneDNN is better
// at, and which it gets right for few channels and columns that do not fill its blocks.
#include "engines/conv.h"

#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "core/cpu_features.h"
#include "core/fork.h"
#include "core/parallel.h"
#include "engines/conv_forms.h"
#include "engines/input_rows.h"
#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/onednn.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using onednn::ConvOperands;
using onednn::ConvPrimitivePtr;
using onednn::ConvSpec;

constexpr int64_t kSerialWork = 100'000;      // multiply-adds that one thread does sooner alone
constexpr int64_t kMaxRawBytes = 8 << 20;     // of accumulators, unless one image has more
constexpr int64_t kEpilogueGrain = 16 << 10;  // outputs that a thread takes at least
constexpr int64_t kCopyGrain = 32 << 10;      // bytes that a thread copies at least
constexpr int64_t kMaxCopiedBytes = 8 << 20;  // with padding, unless one image has more
constexpr int64_t kMaxImageBytes = 64 << 20;
// Fewer pixels of a 1x1 convolution are rows of a GEMM: the layouts that oneDNN wants for
// them differ from each other and from that for many.
constexpr int64_t kFewPixels = 64;
constexpr size_t kMaxKnown = 8;  // sizes that a weight keeps primitives of

bool is_flat(const ConvGeometry& g, int axis) {
  return g.kernel[axis] == 1 && g.stride[axis] == 1 && g.padding[axis] == 0 && g.dilation[axis] == 1;
}

// Each output pixel reads the input pixel in its own place.
bool is_pixels(const ConvGeometry& g) {
  return is_flat(g, 0) && is_flat(g, 1) && is_flat(g, 2) && !g.transposed;
}

// Workers have the floating-point environment of whoever started them. Asked once for each
// number of threads: nothing changes it later.
bool workers_keep_the_rule(int threads) {
  thread_local int asked = 1;
  thread_local bool answer = true;
  if (threads <= 1 || threads == asked) return threads <= 1 || answer;
  std::vector<char> usual(static_cast<size_t>(threads), 1);
  const unsigned own = _mm_getcsr() & ~0x3fu;
  run_team(threads,
           [&](int member, int) { usual[static_cast<size_t>(member)] = (_mm_getcsr() & ~0x3fu) == 0x1f80; });
  if (own != 0x1f80) usual[0] = 1;  // run() sets it for the calling thread
  asked = threads;
  answer = std::all_of(usual.begin(), usual.end(), [](char u) { return u != 0; });
  return answer;
}

class OnednnConv final : public ConvImpl {
 public:
  explicit OnednnConv(const ConvProblem& p);
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
  struct Window;

  ConvArgs folded(const ConvArgs& args) const;
  // Null: there is none for this size.
  ConvPrimitivePtr primitive(const ConvSpec& spec) const;
  ConvOperands operands() const;
  void run_whole(const ConvArgs& args, const ConvSpec& spec, const onednn::ConvPrimitive& primitive,
                 int64_t copied) const;
  void run_pieces(const ConvArgs& args) const;
  void copy_lines(const ConvArgs& args, const Window& window, int64_t begin, int64_t end, uint8_t* dst) const;
  void finish(const ConvArgs& args, int64_t m, const int32_t* raw, int64_t rows) const;
  int64_t output_size() const { return static_cast<int64_t>(size_of(output_.dtype())); }

  ConvSpec spec_;     // sizes of the piece
  int64_t first_[3];  // of a piece's input, from its output's times stride (over it: transposed)
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
  bool flips_;  // the copy turns s8 into u8
  const kernels::RowKernels& rows_;

  // Sizes that this weight has seen, most recent last, so that the common lookup needs
  // neither the global lock nor its map.
  std::mutex& mutex_ = fork_safe_mutex(this);
  mutable std::vector<std::pair<std::array<int64_t, 8>, ConvPrimitivePtr>> known_;
};

// relu and clamp, on a type that oneDNN writes.
bool is_fused(const LinearProblem& p) {
  if (p.output_dtype == DType::bf16) return false;
  return std::all_of(p.post_ops.begin(), p.post_ops.end(), [](const PostOp& op) {
    return op.kind == PostOp::Kind::relu || (op.kind == PostOp::Kind::clamp && op.alpha <= op.beta);
  });
}

OnednnConv::OnednnConv(const ConvProblem& p)
    : output_(p.rows),
      epilogue_(kernels::epilogue(best_isa())),
      raw_(!is_fused(p.rows)),
      scale_(static_cast<size_t>(p.rows.n)),
      zero_(raw_ ? static_cast<size_t>(p.rows.n) : 0),
      input_scale_(p.rows.input_scale),
      output_scale_(p.rows.output_scale),
      input_zero_point_(p.rows.input_zero_point),
      output_zero_point_(p.rows.output_zero_point),
      flips_(p.rows.input_dtype == DType::qs8 && !p.geometry.transposed && !is_pixels(p.geometry)),
      rows_(kernels::row_kernels(best_isa())) {
  if (flips_) input_zero_point_ += 128;
  const LinearProblem& rows = p.rows;
  for (int64_t n = 0; n < rows.n; ++n)
    scale_[static_cast<size_t>(n)] =
        rows.input_scale * rows.weight_scale[rows.weight_scale_size == 1 ? 0 : n];
  if (rows.bias != nullptr && !raw_) bias_.assign(rows.bias, rows.bias + rows.n);
  spec_.geometry = p.geometry;
  spec_.deep = !is_flat(p.geometry, 0);
  spec_.n = rows.n;
  spec_.input_dtype = flips_ ? DType::qu8 : rows.input_dtype;
  spec_.output_dtype = raw_ ? DType::s32 : rows.output_dtype;
  spec_.input_zero_point = input_zero_point_ != 0;
  spec_.bias = !bias_.empty();
  if (!raw_) spec_.post_ops = rows.post_ops;

  // The piece: about 200 pixels, no padding. A strided 1x1 wants 64 for each step.
  ConvGeometry& g = spec_.geometry;
  const bool line = is_flat(g, 1) || is_flat(g, 2);
  for (int axis = 0; axis < 3; ++axis) {
    int64_t& out = spec_.output_size[axis];
    out = is_flat(g, axis) ? 1 : axis == 0 ? 4 : line ? 64 : 14;
    if (out > 1) out = (out + g.stride[axis] - 1) / g.stride[axis] * g.stride[axis];
  }
  if (is_flat(g, 1) && is_flat(g, 2)) spec_.output_size[2] = 256;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t reach = (g.kernel[axis] - 1) * g.dilation[axis], out = spec_.output_size[axis];
    const int64_t step = g.stride[axis], before = g.padding[axis];
    if (!g.transposed) {
      first_[axis] = -before;
      g.padding[axis] = 0;
      spec_.input_size[axis] = (out - 1) * step + reach + 1;
      continue;
    }
    // Output positions o0 + [0, out) with o0 a multiple of the stride read input positions
    // o0 / stride + [first, last].
    const auto floor_div = [](int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); };
    const int64_t first = floor_div(before - reach, step);
    int64_t last = floor_div(out - 1 + before, step);
    g.padding[axis] = before - first * step;
    while ((last - first) * step + reach + 1 - out - g.padding[axis] < 0) ++last;
    first_[axis] = first;
    spec_.input_size[axis] = last - first + 1;
  }
}

std::string OnednnConv::prepare(const ConvProblem& p) {
  piece_ = onednn::cached_conv(spec_, nullptr);
  if (!piece_->error().empty()) return piece_->error();
  const onednn::WeightLayout& layout = *piece_->layout();
  void* data = nullptr;
  if (posix_memalign(&data, 64, layout.bytes()) != 0) throw std::bad_alloc();
  weight_.reset(static_cast<uint8_t*>(data));
  std::memset(data, 0, layout.bytes());
  layout.pack(spec_, p.rows.weight, weight_.get());
  spec_.geometry = p.geometry;  // from here on
  if (!is_pixels(p.geometry) || p.geometry.groups != 1) return {};
  Result<LinearImplPtr> few = make_linear_onednn(p.rows);
  if (!few) return few.reason();
  few_pixels_ = std::move(few.value());
  return {};
}

ConvOperands OnednnConv::operands() const {
  ConvOperands o;
  o.weight = weight_.get();
  o.bias = bias_.data();
  o.scale = scale_.data();
  o.input_zero_point = &input_zero_point_;
  o.output_scale = &output_scale_;
  o.output_zero_point = &output_zero_point_;
  return o;
}

// Axes on which each output position reads its own input position only are one with the
// batch, and pixels that read themselves are one line.
ConvArgs OnednnConv::folded(const ConvArgs& args) const {
  ConvArgs a = args;
  const ConvGeometry& g = spec_.geometry;
  if (is_flat(g, 0) && a.input_size[0] == a.output_size[0]) {
    a.batch *= a.input_size[0];
    a.input_size[0] = a.output_size[0] = 1;
  }
  if (is_pixels(g)) {
    a.input_size[2] *= a.batch * a.input_size[1];
    a.output_size[2] = a.input_size[2];
    a.batch = a.input_size[1] = a.output_size[1] = 1;
  }
  return a;
}

ConvPrimitivePtr OnednnConv::primitive(const ConvSpec& spec) const {
  const std::array<int64_t, 8> size = {spec.threads,        spec.batch,         spec.input_size[0],
                                       spec.input_size[1],  spec.input_size[2], spec.output_size[0],
                                       spec.output_size[1], spec.output_size[2]};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [at, known] : known_)
      if (at == size) return known;
  }
  ConvPrimitivePtr made = onednn::cached_conv(spec, piece_->layout().get());
  if (made != nullptr && !made->error().empty()) made = nullptr;
  ConvPrimitivePtr dropped;  // destroyed after the lock
  const std::lock_guard<std::mutex> lock(mutex_);
  if (known_.size() == kMaxKnown) {
    dropped = std::move(known_.front().second);
    known_.erase(known_.begin());
  }
  known_.emplace_back(size, made);
  return made;
}

// A box of input positions, some of them outside.
struct OnednnConv::Window {
  int64_t batch = 0;  // its first image
  int64_t first[3];
  const int64_t* size = nullptr;
};

void OnednnConv::run(const ConvArgs& whole) const {
  if (few_pixels_ != nullptr && whole.m < kFewPixels) return few_pixels_->run(whole);
  const ConvArgs args = folded(whole);
  const int64_t k = spec_.geometry.taps() * spec_.geometry.group_channels();
  int threads = args.m * k * spec_.n < kSerialWork ? 1 : num_threads();
  if (!workers_keep_the_rule(threads)) threads = 1;

  ConvSpec spec = spec_;
  ConvGeometry& g = spec.geometry;
  std::copy_n(args.input_size, 3, spec.input_size);
  std::copy_n(args.output_size, 3, spec.output_size);
  spec.threads = threads;
  // Padding becomes part of the input.
  bool copies = flips_, fits = true;
  int64_t image_bytes = g.in_channels;
  for (int axis = 0; axis < 3; ++axis) {
    if (g.padding[axis] != 0 && !g.transposed) {
      copies = true;
      const int64_t reach = (g.kernel[axis] - 1) * g.dilation[axis];
      spec.input_size[axis] = (args.output_size[axis] - 1) * g.stride[axis] + reach + 1;
      g.padding[axis] = 0;
    }
    fits = fits && !__builtin_mul_overflow(image_bytes, spec.input_size[axis], &image_bytes);
  }
  fits = fits && (!copies || image_bytes <= kMaxImageBytes);
  const int64_t image_m = args.m / args.batch;
  int64_t together = args.batch;
  if (raw_) together = std::min(together, kMaxRawBytes / (4 * image_m * spec_.n));
  if (copies && fits) together = std::min(together, kMaxCopiedBytes / image_bytes);
  together = std::max<int64_t>(together, 1);
  for (int64_t b = 0; b < args.batch; b += together) {
    ConvArgs part = args;
    part.batch = spec.batch = std::min(together, args.batch - b);
    part.m = part.batch * image_m;
    part.input = static_cast<const uint8_t*>(args.input) + b * (args.input_bytes / args.batch);
    part.output = static_cast<uint8_t*>(args.output) + b * image_m * spec_.n * output_size();
    if (args.other != nullptr)
      part.other = static_cast<const uint8_t*>(args.other) +
                   b * image_m * spec_.n * static_cast<int64_t>(size_of(args.other_dtype));
    const ConvPrimitivePtr made = fits ? primitive(spec) : nullptr;
    if (made != nullptr)
      run_whole(part, spec, *made, copies ? part.batch * image_bytes : 0);
    else
      run_pieces(part);
  }
}

void OnednnConv::run_whole(const ConvArgs& args, const ConvSpec& spec, const onednn::ConvPrimitive& primitive,
                           int64_t copied) const {
  const auto rounded = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const int64_t raw_bytes = raw_ ? rounded(args.m * spec_.n * 4) : 0;
  const ScratchMemory memory(static_cast<size_t>(raw_bytes + rounded(copied)) + primitive.scratchpad_bytes());
  uint8_t* const input = memory.data() + raw_bytes;
  const auto share = [&](int64_t count, int64_t grain, const auto& body) {
    parallel_for(count, spec.threads == 1 ? count : std::max<int64_t>(1, grain), body);
  };
  if (copied != 0) {
    Window window;
    for (int axis = 0; axis < 3; ++axis) window.first[axis] = -spec_.geometry.padding[axis];
    window.size = spec.input_size;
    const int64_t lines = args.batch * window.size[0] * window.size[1];
    share(lines, kCopyGrain * lines / copied,
          [&](int64_t begin, int64_t end) { copy_lines(args, window, begin, end, input); });
  }
  ConvOperands o = operands();
  o.input = copied != 0 ? input : args.input;
  o.output = raw_ ? memory.data() : args.output;
  o.scratchpad = input + rounded(copied);
  {
    const kernels::DefaultFloatEnv env;
    primitive.run(o);
  }
  if (!raw_) return;
  const int32_t* const raw = reinterpret_cast<const int32_t*>(memory.data());
  share(args.m, kEpilogueGrain / spec_.n,
        [&](int64_t begin, int64_t end) { finish(args, begin, raw + begin * spec_.n, end - begin); });
}

// Accumulators of some pixels in a row to the output.
void OnednnConv::finish(const ConvArgs& args, int64_t m, const int32_t* raw, int64_t rows) const {
  EpilogueParams params = output_.params(kernels::PackedWeight(), args);
  params.column_sum = zero_.data();
  const kernels::RowParams row{input_scale_, 0, 0};
  const int64_t element = m * spec_.n;
  EpilogueTile t;
  t.raw = raw;
  t.raw_stride = t.output_stride = t.other_stride = t.cols = spec_.n;
  t.rows = rows;
  t.row = &row;
  t.row_step = 0;
  t.output = static_cast<uint8_t*>(args.output) + element * output_size();
  if (args.other != nullptr)
    t.other =
        static_cast<const uint8_t*>(args.other) + element * static_cast<int64_t>(size_of(args.other_dtype));
  epilogue_(params, t);
}

// Lines [begin, end) of a window over consecutive images, with the zero point outside.
void OnednnConv::copy_lines(const ConvArgs& args, const Window& window, int64_t begin, int64_t end,
                            uint8_t* dst) const {
  const int64_t channels = spec_.geometry.in_channels;
  const int64_t* const size = window.size;
  const int64_t from = std::clamp<int64_t>(-window.first[2], 0, size[2]);
  const int64_t to = std::clamp<int64_t>(args.input_size[2] - window.first[2], from, size[2]);
  dst += begin * size[2] * channels;
  for (int64_t line = begin; line < end; ++line, dst += size[2] * channels) {
    const int64_t h = window.first[1] + line % size[1];
    const int64_t d = window.first[0] + line / size[1] % size[0];
    const int64_t batch = window.batch + line / size[1] / size[0];
    if (d < 0 || d >= args.input_size[0] || h < 0 || h >= args.input_size[1] || from == to) {
      std::memset(dst, input_zero_point_, static_cast<size_t>(size[2] * channels));
      continue;
    }
    const int64_t at = ((batch * args.input_size[0] + d) * args.input_size[1] + h) * args.input_size[2] +
                       window.first[2] + from;
    std::memset(dst, input_zero_point_, static_cast<size_t>(from * channels));
    const uint8_t* const src = static_cast<const uint8_t*>(args.input) + at * channels;
    const int64_t bytes = (to - from) * channels;
    if (flips_)
      rows_.shift_s8(reinterpret_cast<const int8_t*>(src), bytes, dst + from * channels, bytes);
    else
      std::memcpy(dst + from * channels, src, static_cast<size_t>(bytes));
    std::memset(dst + to * channels, input_zero_point_, static_cast<size_t>((size[2] - to) * channels));
  }
}

void OnednnConv::run_pieces(const ConvArgs& args) const {
  int64_t count[3], size[3], input_bytes = spec_.geometry.in_channels, pixels = 1;
  int64_t pieces = args.batch;
  for (int axis = 0; axis < 3; ++axis) {
    size[axis] = spec_.output_size[axis];
    count[axis] = (args.output_size[axis] + size[axis] - 1) / size[axis];
    pieces *= count[axis];
    pixels *= size[axis];
    input_bytes *= spec_.input_size[axis];
  }
  input_bytes = (input_bytes + 63) / 64 * 64;
  const int64_t element = raw_ ? 4 : output_size();
  const int64_t output_bytes = (pixels * spec_.n * element + 63) / 64 * 64;
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(input_bytes + output_bytes) + piece_->scratchpad_bytes());
    uint8_t* const computed = memory.data() + input_bytes;
    ConvOperands o = operands();
    o.input = memory.data();
    o.output = computed;
    o.scratchpad = computed + output_bytes;
    for (int64_t at = begin; at < end; ++at) {
      int64_t rest = at;
      Window window;
      int64_t output[3];
      for (int axis = 2; axis >= 0; --axis) {
        output[axis] = rest % count[axis] * size[axis];
        rest /= count[axis];
        const int64_t step = spec_.geometry.stride[axis];
        window.first[axis] =
            first_[axis] + (spec_.geometry.transposed ? output[axis] / step : output[axis] * step);
      }
      window.batch = rest;
      window.size = spec_.input_size;
      copy_lines(args, window, 0, spec_.input_size[0] * spec_.input_size[1], memory.data());
      {
        const kernels::DefaultFloatEnv env;
        piece_->run(o);
      }
      const int64_t line = std::min(size[2], args.output_size[2] - output[2]);
      for (int64_t i = 0; i < std::min(size[0], args.output_size[0] - output[0]); ++i)
        for (int64_t j = 0; j < std::min(size[1], args.output_size[1] - output[1]); ++j) {
          const int64_t m =
              ((rest * args.output_size[0] + output[0] + i) * args.output_size[1] + output[1] + j) *
                  args.output_size[2] +
              output[2];
          const uint8_t* const from = computed + (i * size[1] + j) * size[2] * spec_.n * element;
          if (raw_)
            finish(args, m, reinterpret_cast<const int32_t*>(from), line);
          else
            std::memcpy(static_cast<uint8_t*>(args.output) + m * spec_.n * element, from,
                        static_cast<size_t>(line * spec_.n * element));
        }
    }
  });
}

}  // namespace

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
  auto impl = std::make_shared<OnednnConv>(p);
  if (std::string error = impl->prepare(p); !error.empty()) return refuse(error);
  return ConvImplPtr(std::move(impl));
}

}  // namespace tae
