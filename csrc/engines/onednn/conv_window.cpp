#include "engines/onednn/conv_window.h"

#include <algorithm>
#include <cstring>

namespace tae::onednn {

void copy_window(const ConvImages& images, const ConvWindow& window, int64_t begin, int64_t end,
                 uint8_t* dst) {
  const int64_t channels = images.channels;
  const int64_t* const size = window.size;
  const int64_t from = std::clamp<int64_t>(-window.first[2], 0, size[2]);
  const int64_t to = std::clamp<int64_t>(images.size[2] - window.first[2], from, size[2]);
  const auto pad = [&](int64_t at, int64_t pixels) {
    std::memset(dst + at * channels, images.zero_point, static_cast<size_t>(pixels * channels));
  };
  dst += begin * size[2] * channels;
  for (int64_t line = begin; line < end; ++line, dst += size[2] * channels) {
    const int64_t h = window.first[1] + line % size[1];
    const int64_t d = window.first[0] + line / size[1] % size[0];
    const int64_t batch = window.batch + line / size[1] / size[0];
    if (d < 0 || d >= images.size[0] || h < 0 || h >= images.size[1] || from == to) {
      pad(0, size[2]);
      continue;
    }
    const int64_t at =
        ((batch * images.size[0] + d) * images.size[1] + h) * images.size[2] + window.first[2] + from;
    const uint8_t* const src = images.data + at * channels;
    const int64_t bytes = (to - from) * channels;
    pad(0, from);
    if (images.flip != nullptr)
      images.flip->shift_s8(reinterpret_cast<const int8_t*>(src), bytes, dst + from * channels, bytes);
    else
      std::memcpy(dst + from * channels, src, static_cast<size_t>(bytes));
    pad(to, size[2] - to);
  }
}

}  // namespace tae::onednn
