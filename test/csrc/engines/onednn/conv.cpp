// The oneDNN engine's convolutions below the operators: its packer, its refusals. What it
// computes is compared in test/ops/test_conv.py.
#include "engines/conv.h"

#include <oneapi/dnnl/dnnl.h>

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/onednn.h"
#include "engines/onednn/runtime.h"
#include "engines/onednn/thread_args.h"

using namespace tae;

namespace {

bool has_vnni() { return onednn::init_error().empty(); }

struct Shape {
  const char* name;
  bool transposed;
  int64_t groups, channels, n, kernel, stride;
};

onednn::ConvSpec spec_of(const Shape& s, DType input, bool deep) {
  onednn::ConvSpec spec;
  ConvGeometry& g = spec.geometry;
  g.transposed = s.transposed;
  g.groups = s.groups;
  g.in_channels = s.channels;
  spec.deep = deep;
  spec.n = s.n;
  spec.input_dtype = input;
  spec.input_zero_point = true;
  for (int axis = deep ? 0 : 1; axis < 3; ++axis) {
    g.kernel[axis] = s.kernel;
    g.stride[axis] = s.stride;
    spec.input_size[axis] = s.transposed ? 6 : 5 * s.stride + s.kernel;
    spec.output_size[axis] = s.transposed ? 5 * s.stride + s.kernel : 6;
  }
  return spec;
}

// oneDNN's reorder of the same weight.
std::vector<uint8_t> reordered(const onednn::ConvSpec& spec, const onednn::WeightLayout& layout,
                               const std::vector<int8_t>& weight) {
  const ConvGeometry& g = spec.geometry;
  dnnl_dims_t dims{}, strides{};
  int d = 0;
  const int64_t channels = g.group_channels(), taps = g.taps(), n = spec.n / g.groups;
  const auto dimension = [&](int64_t size, int64_t stride) {
    dims[d] = size;
    strides[d++] = stride;
  };
  if (g.groups > 1) dimension(g.groups, n * taps * channels);
  dimension(n, taps * channels);
  dimension(channels, 1);
  int64_t stride = taps * channels;
  for (int axis = spec.deep ? 0 : 1; axis < 3; ++axis) dimension(g.kernel[axis], stride /= g.kernel[axis]);

  dnnl_engine_t engine = onednn::engine_handle();
  dnnl_memory_desc_t plain;
  REQUIRE(dnnl_memory_desc_create_with_strides(&plain, d, dims, dnnl_s8, strides) == dnnl_success);
  std::vector<uint8_t> packed(layout.bytes());
  dnnl_memory_t from, to;
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t reorder;
  REQUIRE(dnnl_memory_create(&from, plain, engine, const_cast<int8_t*>(weight.data())) == dnnl_success);
  REQUIRE(dnnl_memory_create(&to, layout.desc(), engine, packed.data()) == dnnl_success);
  REQUIRE(dnnl_reorder_primitive_desc_create(&desc, plain, engine, layout.desc(), engine, nullptr) ==
          dnnl_success);
  REQUIRE(dnnl_primitive_create(&reorder, desc) == dnnl_success);
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  REQUIRE(dnnl_primitive_execute(reorder, onednn::thread_stream(), 2, args) == dnnl_success);
  dnnl_primitive_destroy(reorder);
  dnnl_primitive_desc_destroy(desc);
  dnnl_memory_destroy(from);
  dnnl_memory_destroy(to);
  dnnl_memory_desc_destroy(plain);
  return packed;
}

}  // namespace

// oneDNN's reorder is the authority on its layouts; ours is faster.
TEST_CASE("onednn: packed convolution weights are oneDNN's", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  constexpr Shape kShapes[] = {
      {"dense", false, 1, 64, 70, 3, 1},     {"stem", false, 1, 3, 64, 7, 2},
      {"pointwise", false, 1, 20, 96, 1, 1}, {"depthwise", false, 40, 40, 40, 3, 1},
      {"grouped", false, 4, 32, 64, 3, 1},   {"ungainly groups", false, 3, 27, 15, 3, 1},
      {"up", true, 1, 32, 48, 4, 2},
  };
  std::mt19937 rng(1);
  for (const Shape& s : kShapes)
    for (const DType input : {DType::qu8, DType::qs8})
      for (const bool deep : {false, true}) {
        const onednn::ConvSpec spec = spec_of(s, input, deep);
        const onednn::ConvPrimitivePtr primitive = onednn::cached_conv(spec, nullptr);
        INFO(s.name << (deep ? " 3d " : " 2d ") << name_of(input) << " " << primitive->implementation());
        if (!primitive->error().empty()) continue;  // what it refuses is tested in test/ops
        std::vector<int8_t> weight(
            static_cast<size_t>(spec.n * spec.geometry.taps() * spec.geometry.group_channels()));
        for (int8_t& v : weight) v = static_cast<int8_t>(rng());
        std::vector<uint8_t> packed(primitive->layout()->bytes());
        primitive->layout()->pack(spec, weight.data(), packed.data());
        CHECK(packed == reordered(spec, *primitive->layout(), weight));
      }
}

TEST_CASE("onednn: convolutions that it refuses", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  std::vector<int8_t> weight(64 * 9 * 64, 1);
  const float scale = 1.f;
  ConvProblem p;
  p.rows.k = 9;
  p.rows.n = 64;
  p.rows.weight = weight.data();
  p.rows.weight_scale = &scale;
  p.geometry.groups = p.geometry.in_channels = 32;
  p.geometry.kernel[1] = p.geometry.kernel[2] = 3;
  const auto reason = [](const ConvProblem& q) {
    const auto made = make_conv_onednn(q);
    return made ? std::string() : made.reason();
  };
  CHECK(reason(p) == "depthwise multiplier 2; oneDNN would multiply one channel at a time");
  p.geometry.groups = p.geometry.in_channels = 64;
  CHECK(reason(p).empty());
  const int32_t one = 1;
  p.rows.weight_zero_point = &one;
  CHECK(reason(p) == "asymmetric weights");
  p.rows.weight_zero_point = nullptr;
  p.rows.input_dtype = DType::f32;
  CHECK(reason(p) == "input dtype f32");
  p.rows.input_dtype = DType::qu8;
  p.rows.output_dtype = DType::s32;
  CHECK(reason(p) == "output dtype s32");
}

TEST_CASE("onednn: a new spatial size costs at most one primitive, a known one none", "[onednn]") {
  if (!has_vnni()) SKIP(onednn::init_error());
  constexpr Shape kShapes[] = {{"dense", false, 1, 48, 72, 3, 1},
                               {"strided", false, 1, 16, 24, 3, 2},
                               {"depthwise", false, 32, 32, 32, 3, 1},
                               {"up", true, 1, 32, 24, 4, 2}};
  for (const Shape& s : kShapes) {
    const std::vector<int8_t> weight(static_cast<size_t>(s.n * 16 * s.channels / s.groups), 1);
    const float scale = 1.f;
    ConvProblem p;
    ConvGeometry& g = p.geometry;
    g.transposed = s.transposed;
    g.groups = s.groups;
    g.in_channels = s.channels;
    for (int axis = 1; axis < 3; ++axis) {
      g.kernel[axis] = s.kernel;
      g.stride[axis] = s.stride;
      g.padding[axis] = 1;
    }
    p.rows.k = g.taps() * g.group_channels();
    p.rows.n = s.n;
    p.rows.weight = weight.data();
    p.rows.weight_scale = &scale;
    auto made = make_conv_onednn(p);
    INFO(s.name);
    REQUIRE(made);
    const ConvImplPtr conv = std::move(made.value());
    const size_t packed = conv->packed_bytes();
    // How many primitives a call of a size makes.
    const auto run = [&](int64_t size) {
      const int64_t out =
          s.transposed ? (size - 1) * s.stride + s.kernel - 2 : (size + 2 - s.kernel) / s.stride + 1;
      const std::vector<uint8_t> input(static_cast<size_t>(size * size * s.channels), 1);
      std::vector<uint8_t> output(static_cast<size_t>(out * out * s.n));
      ConvArgs args;
      args.batch = 1;
      args.m = out * out;
      args.input = input.data();
      args.input_bytes = static_cast<int64_t>(input.size());
      args.output = output.data();
      for (int axis = 1; axis < 3; ++axis) {
        args.input_size[axis] = size;
        args.output_size[axis] = out;
      }
      const uint64_t before = onednn::next_primitive_id();
      conv->run(args);
      return onednn::next_primitive_id() - before - 1;
    };
    uint64_t all = 0;
    for (const int64_t size : {9, 12, 17, 30}) {
      const uint64_t first = run(size);
      CHECK(first <= 1);
      CHECK(run(size) == 0);
      all += first;
    }
    CHECK(all > 0);  // the count sees them
    CHECK(conv->packed_bytes() == packed);
  }
}
