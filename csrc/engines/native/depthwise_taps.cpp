#include "engines/native/depthwise_taps.h"

#include <algorithm>

namespace tae::native {

using kernels::kLineTaps;

TapPlan::TapPlan(const ConvGeometry& g) : taps(g.taps()) {
  const int64_t lines = g.kernel[0] * g.kernel[1], width = g.kernel[2];
  for (int64_t line = 0; line < lines; line += kLineTaps) {
    const int64_t high = std::min<int64_t>(kLineTaps, lines - line);
    const int64_t wide = std::min(kLineTaps / high, width);
    Plane plane;
    plane.count = static_cast<int>(high * wide);
    for (int64_t t = 0; t < plane.count; ++t) {
      plane.line[t] = line + t % high;
      plane.column[t] = t / high * g.dilation[2];
    }
    const size_t first = planes.size();
    for (int64_t k = 0; k < width; k += wide) {
      const int64_t shift = k * g.dilation[2];
      plane.residue = shift % g.stride[2];
      const auto same = [&](const Plane& p) { return p.residue == plane.residue; };
      auto found = std::find_if(planes.begin() + static_cast<std::ptrdiff_t>(first), planes.end(), same);
      if (found == planes.end()) found = planes.insert(planes.end(), plane);
      TapGroup group;
      group.plane = static_cast<size_t>(found - planes.begin());
      group.pixels = shift / g.stride[2];
      found->more = std::max(found->more, group.pixels);
      for (int64_t t = 0; t < kLineTaps; ++t) {
        const bool exists = t < plane.count && k + t / high < width;
        group.tap[t] = exists ? (line + t % high) * width + k + t / high : -1;
      }
      groups.push_back(group);
    }
  }
}

int64_t TapPlan::more() const {
  int64_t total = 0;
  for (const Plane& p : planes) total += p.more;
  return total;
}

std::vector<int8_t> TapPlan::taps_of(const int8_t* weight, int64_t channels) const {
  std::vector<int8_t> packed;
  packed.reserve(static_cast<size_t>(num_groups() * channels * kLineTaps));
  for (const TapGroup& g : groups)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t tap : g.tap) packed.push_back(tap < 0 ? int8_t{0} : weight[c * taps + tap]);
  return packed;
}

}  // namespace tae::native
