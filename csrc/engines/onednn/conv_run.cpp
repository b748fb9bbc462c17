// One call of a convolution: a primitive for its size, or the pieces of the weight's first
// primitive; what oneDNN does not see (padding, signed bytes, other epilogues) around it.
#include <xmmintrin.h>

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/onednn/conv.h"
#include "kernels/gemm.h"
#include "kernels/vec_float_env.h"

namespace tae::onednn {
namespace {

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

}  // namespace

struct Conv::Call {
  int32_t zero_point;
  kernels::RowParams row;  // of the epilogue: oneDNN has dealt with the zero point
};

ConvOperands Conv::operands(const Call& call) const {
  ConvOperands o;
  o.weight = weight_.get();
  o.bias = bias_.data();
  o.scale = scale_.data();
  o.affine_weight = output_.affine_weight();
  o.affine_bias = output_.affine_bias();
  o.input_zero_point = &call.zero_point;
  o.output_scale = &output_scale_;
  o.output_zero_point = &output_zero_point_;
  return o;
}

ConvImages Conv::images(const Call& call, const ConvArgs& args) const {
  ConvImages images;
  images.data = static_cast<const uint8_t*>(args.input);
  std::copy_n(args.input_size, 3, images.size);
  images.channels = geometry_.in_channels;
  images.zero_point = static_cast<uint8_t>(call.zero_point);
  images.flip = flips_ ? &rows_ : nullptr;
  return images;
}

// Axes on which each output position reads its own input position only are one with the
// batch, and pixels that read themselves are one line.
ConvArgs Conv::folded(const ConvArgs& args) const {
  ConvArgs a = args;
  if (is_flat(geometry_, 0) && a.input_size[0] == a.output_size[0]) {
    a.batch *= a.input_size[0];
    a.input_size[0] = a.output_size[0] = 1;
  }
  if (is_pixels(geometry_)) {
    a.input_size[2] *= a.batch * a.input_size[1];
    a.output_size[2] = a.input_size[2];
    a.batch = a.input_size[1] = a.output_size[1] = 1;
  }
  return a;
}

ConvPrimitivePtr Conv::primitive(const ConvSpec& spec) const {
  const std::array<int64_t, 8> size = {spec.threads,        spec.batch,         spec.input_size[0],
                                       spec.input_size[1],  spec.input_size[2], spec.output_size[0],
                                       spec.output_size[1], spec.output_size[2]};
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [at, known] : known_)
      if (at == size) return known;
  }
  ConvPrimitivePtr made = cached_conv(spec, piece_->layout().get());
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

void Conv::run(const ConvArgs& whole) const {
  if (few_pixels_ != nullptr && whole.m < kFewPixels) return few_pixels_->run(whole);
  const ConvArgs args = folded(whole);
  const Call call{qparams_in_call_ ? args.input_zero_point : input_zero_point_,
                  {qparams_in_call_ ? args.input_scale : input_scale_, 0, 0}};
  const int64_t k = geometry_.taps() * geometry_.group_channels();
  int threads = args.m * k * spec_.n < kSerialWork ? 1 : num_threads();
  if (!workers_keep_the_rule(threads)) threads = 1;

  ConvSpec spec = spec_;
  ConvGeometry& g = spec.geometry;
  std::copy_n(args.input_size, 3, spec.input_size);
  std::copy_n(args.output_size, 3, spec.output_size);
  spec.threads = threads;
  // Padding becomes part of the input. A transposed convolution keeps its own, which cuts
  // positions off, unless its output ends behind the reach of the last input position.
  ConvWindow window;
  ConvSpan spans[3];
  bool copies = flips_, fits = true;
  if (!g.transposed && g.stride[2] > 1 && args.output_size[2] == 1 && args.output_size[1] > 1) {
    // A line of one output takes no step. oneDNN 3.7.2 multiplies the distance of lines by the stride.
    g.stride[2] = 1;
    copies = true;  // what the step would have left over
  }
  for (int axis = 0; axis < 3; ++axis) {
    spans[axis] = span_of(g, axis, args.output_size[axis]);
    const int64_t reach = (g.kernel[axis] - 1) * g.dilation[axis];
    const int64_t end = (args.input_size[axis] - 1) * g.stride[axis] + reach + 1 - g.padding[axis];
    copies = copies || (g.transposed ? args.output_size[axis] > end : g.padding[axis] != 0);
  }
  int64_t image_bytes = g.in_channels;
  for (int axis = 0; axis < 3; ++axis) {
    if (copies) {
      window.first[axis] = spans[axis].first;
      window.size[axis] = spec.input_size[axis] = spans[axis].size;
      g.padding[axis] = spans[axis].padding;
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
      run_whole(call, part, spec, *made, window, copies ? part.batch * image_bytes : 0);
    else
      run_pieces(call, part);
  }
}

void Conv::run_whole(const Call& call, const ConvArgs& args, const ConvSpec& spec,
                     const ConvPrimitive& primitive, const ConvWindow& window, int64_t copied) const {
  const int64_t raw_bytes = raw_ ? round_up(args.m * spec_.n * 4, 64) : 0;
  const ScratchMemory memory(static_cast<size_t>(raw_bytes + round_up(copied, 64)) +
                             primitive.scratchpad_bytes());
  uint8_t* const input = memory.data() + raw_bytes;
  const auto share = [&](int64_t count, int64_t grain, const auto& body) {
    parallel_for(count, spec.threads == 1 ? count : std::max<int64_t>(1, grain), body);
  };
  if (copied != 0) {
    const ConvImages source = images(call, args);
    const int64_t lines = args.batch * window.lines_of_image();
    share(lines, kCopyGrain * lines / copied,
          [&](int64_t begin, int64_t end) { copy_window(source, window, begin, end, input); });
  }
  ConvOperands o = operands(call);
  o.input = copied != 0 ? input : args.input;
  o.output = raw_ ? memory.data() : args.output;
  o.scratchpad = input + round_up(copied, 64);
  {
    const kernels::DefaultFloatEnv env;
    primitive.run(o);
  }
  if (!raw_) return;
  const int32_t* const raw = reinterpret_cast<const int32_t*>(memory.data());
  share(args.m, kEpilogueGrain / spec_.n,
        [&](int64_t begin, int64_t end) { finish(call, args, begin, raw + begin * spec_.n, end - begin); });
}

// Accumulators of some pixels in a row to the output.
void Conv::finish(const Call& call, const ConvArgs& args, int64_t m, const int32_t* raw, int64_t rows) const {
  kernels::EpilogueParams params = output_.params(kernels::PackedWeight(), args);
  params.column_sum = zero_.data();
  const int64_t element = m * spec_.n;
  kernels::EpilogueTile t;
  t.raw = raw;
  t.raw_stride = t.output_stride = t.other_stride = t.cols = spec_.n;
  t.rows = rows;
  t.row = &call.row;
  t.row_step = 0;
  t.output = static_cast<uint8_t*>(args.output) + element * output_size();
  if (args.other != nullptr)
    t.other =
        static_cast<const uint8_t*>(args.other) + element * static_cast<int64_t>(size_of(args.other_dtype));
  epilogue_(params, t);
}

void Conv::run_pieces(const Call& call, const ConvArgs& args) const {
  const ConvImages source = images(call, args);
  const int64_t input_bytes = round_up(pieces_.input_bytes(), 64);
  const int64_t element = raw_ ? 4 : output_size();
  const int64_t output_bytes = round_up(pieces_.outputs() * element, 64);
  const int64_t* const size = pieces_.spec().output_size;
  parallel_for(pieces_.count(args), 1, [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(input_bytes + output_bytes) + piece_->scratchpad_bytes());
    uint8_t* const computed = memory.data() + input_bytes;
    ConvOperands o = operands(call);
    o.input = memory.data();
    o.output = computed;
    o.scratchpad = computed + output_bytes;
    for (int64_t piece = begin; piece < end; ++piece) {
      const ConvPieces::Place at = pieces_.place(args, piece);
      copy_window(source, at.input, 0, at.input.lines_of_image(), memory.data());
      {
        const kernels::DefaultFloatEnv env;
        piece_->run(o);
      }
      for (int64_t i = 0; i < at.size[0]; ++i)
        for (int64_t j = 0; j < at.size[1]; ++j) {
          const int64_t plane = at.input.batch * args.output_size[0] + at.output[0] + i;
          const int64_t m =
              (plane * args.output_size[1] + at.output[1] + j) * args.output_size[2] + at.output[2];
          const uint8_t* const from = computed + (i * size[1] + j) * size[2] * spec_.n * element;
          if (raw_)
            finish(call, args, m, reinterpret_cast<const int32_t*>(from), at.size[2]);
          else
            std::memcpy(static_cast<uint8_t*>(args.output) + m * spec_.n * element, from,
                        static_cast<size_t>(at.size[2] * spec_.n * element));
        }
    }
  });
}

}  // namespace tae::onednn
