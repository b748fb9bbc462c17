// Which 4 taps of a depthwise kernel share a dot product (kernels/depthwise_lines.h): lines
// of the kernel go in fours, and the 1 or 2 that are left go with their neighbours in the line.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/conv.h"
#include "kernels/depthwise_lines.h"

namespace tae::native {

// 4 taps that are expanded together, for every column of one residue modulo the stride.
struct Plane {
  int count = 0;
  int64_t line[kernels::kLineTaps] = {};    // of the kernel, all depths
  int64_t column[kernels::kLineTaps] = {};  // in pixels of the input, ascending
  int64_t residue = 0;
  int64_t more = 0;  // columns besides those of as many pixels as are computed
};

// 4 taps of the kernel: those of a plane, some output pixels further on.
struct TapGroup {
  size_t plane = 0;
  int64_t pixels = 0;
  int64_t tap[kernels::kLineTaps];  // of the kernel, -1: none
};

struct TapPlan {
  explicit TapPlan(const ConvGeometry& g);
  int64_t num_planes() const { return static_cast<int64_t>(planes.size()); }
  int64_t num_groups() const { return static_cast<int64_t>(groups.size()); }
  int64_t more() const;  // of all planes
  // weight [channels][taps] to [group][channels][4].
  std::vector<int8_t> taps_of(const int8_t* weight, int64_t channels) const;

  std::vector<Plane> planes;
  std::vector<TapGroup> groups;
  int64_t taps;
};

}  // namespace tae::native
