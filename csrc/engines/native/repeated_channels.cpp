#include "engines/native/repeated_channels.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"

namespace tae::native {
namespace {

constexpr int64_t kCopyGrain = 16 << 10;  // input bytes that a thread repeats at least

// Few copies are one store of 8 bytes, whose rest the next bytes overwrite.
void repeat(const uint8_t* src, int64_t bytes, int64_t count, uint8_t* dst) {
  constexpr int64_t kStore = 8;
  parallel_for(bytes, kCopyGrain, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    if (count <= kStore)
      for (; i + kStore <= end; ++i) {
        const uint64_t copies = src[i] * uint64_t{0x0101010101010101};
        std::memcpy(dst + i * count, &copies, kStore);
      }
    for (; i < end; ++i) std::memset(dst + i * count, src[i], static_cast<size_t>(count));
  });
}

// From the first to the last input line that a tap of an output line reads; empty if all are outside.
Lines lines_read(const ConvGeometry& g, const ConvArgs& args, int64_t line) {
  const int64_t h = line % args.output_size[1], d = line / args.output_size[1] % args.output_size[0];
  const int64_t image = line / args.output_size[1] / args.output_size[0];
  Lines read{INT64_MAX, INT64_MIN};
  for (int64_t i = 0; i < g.kernel[0]; ++i)
    for (int64_t j = 0; j < g.kernel[1]; ++j) {
      const int64_t at_d = g.source(0, d, i, args.input_size[0]);
      const int64_t at_h = g.source(1, h, j, args.input_size[1]);
      if (at_d < 0 || at_h < 0) continue;
      const int64_t at = (image * args.input_size[0] + at_d) * args.input_size[1] + at_h;
      read = {std::min(read.begin, at), std::max(read.end, at + 1)};
    }
  return read;
}

Lines join(Lines a, Lines b) { return {std::min(a.begin, b.begin), std::max(a.end, b.end)}; }
int64_t count(Lines l) { return l.begin < l.end ? l.end - l.begin : 0; }

}  // namespace

void with_repeated_channels(const ConvGeometry& g, const ConvArgs& args, int64_t multiplier,
                            const RunLines& run) {
  const int64_t lines = args.m / args.output_size[2];
  if (multiplier == 1) return run(args, {0, lines});
  const int64_t line_bytes = args.input_size[2] * g.in_channels;  // repeated
  ConvArgs repeated = args;
  repeated.input_bytes = args.input_bytes * multiplier;
  const auto run_part = [&](Lines read, Lines part) {
    const ScratchMemory memory(static_cast<size_t>(count(read) * line_bytes));
    if (count(read) != 0) {
      const uint8_t* const src = static_cast<const uint8_t*>(args.input);
      const int64_t plain_bytes = line_bytes / multiplier;
      repeat(src + read.begin * plain_bytes, count(read) * plain_bytes, multiplier, memory.data());
      // As if the lines before were there.
      repeated.input = memory.data() - read.begin * line_bytes;
    }
    run(repeated, part);
  };
  if (repeated.input_bytes <= kMostCopiedBytes)
    return run_part({0, args.batch * args.input_size[0] * args.input_size[1]}, {0, lines});
  for (int64_t begin = 0, end; begin < lines; begin = end) {
    Lines read = lines_read(g, args, begin);
    // Where one line reads more than half, lines of twice as much: each is copied a few times at most.
    const int64_t most = std::max(kMostCopiedBytes / line_bytes, 2 * count(read));
    for (end = begin + 1; end < lines; ++end) {
      const Lines more = join(read, lines_read(g, args, end));
      if (count(more) > most) break;
      read = more;
    }
    run_part(read, {begin, end});
  }
}

}  // namespace tae::native
