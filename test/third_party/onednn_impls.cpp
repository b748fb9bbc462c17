// Which oneDNN implementation serves each int8 operation. The engines are built from a
// filtered file list; a file too many dropped shows here as a "ref" or "gemm" name, not as
// an error. One process has one ISA cap, so run once per level:
//   for isa in AVX2 AVX2_VNNI AVX512_CORE AVX512_CORE_VNNI AVX512_CORE_AMX; do
//     ONEDNN_MAX_CPU_ISA=$isa onednn_impls; done
// A level that the CPU does not reach is skipped.
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

namespace {

using dnnl::memory;
using Dims = memory::dims;
using Tag = memory::format_tag;
constexpr auto kU8 = memory::data_type::u8;
constexpr auto kS8 = memory::data_type::s8;
constexpr auto kF32 = memory::data_type::f32;
constexpr auto kBf16 = memory::data_type::bf16;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

// Expected prefixes of impl_info_str, one per column of the ISA table.
struct Expected {
  std::string avx2, avx2_vnni, avx512_core, avx512_core_vnni, amx;
};

// The cap decides the column; the effective ISA says whether the CPU reaches it.
std::string pick(const Expected& e) {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx2:
      return e.avx2;
    case dnnl::cpu_isa::avx2_vnni:
    case dnnl::cpu_isa::avx2_vnni_2:
      return e.avx2_vnni;
    case dnnl::cpu_isa::avx512_core:
      return e.avx512_core;
    case dnnl::cpu_isa::avx512_core_vnni:
    case dnnl::cpu_isa::avx512_core_bf16:
    case dnnl::cpu_isa::avx512_core_fp16:
      return e.avx512_core_vnni;
    case dnnl::cpu_isa::avx512_core_amx:
    case dnnl::cpu_isa::avx512_core_amx_fp16:
      return e.amx;
    default:
      SKIP("no expectations for this CPU or cap");
  }
  return {};
}

void check(const std::string& what, const std::string& impl, const Expected& expected) {
  const std::string prefix = pick(expected);
  INFO(what << ": " << impl << ", expected " << prefix);
  if (std::getenv("TAE_PRINT_IMPLS")) WARN(what << ": " << impl);
  CHECK(impl.compare(0, prefix.size(), prefix) == 0);
}

// Scales per output channel and a common source zero point, as static quantization uses.
dnnl::primitive_attr attributes(int weight_mask, bool zero_point = true) {
  dnnl::primitive_attr attr;
  attr.set_scales_mask(DNNL_ARG_SRC, 0);
  attr.set_scales_mask(DNNL_ARG_WEIGHTS, weight_mask);
  attr.set_scales_mask(DNNL_ARG_DST, 0);
  if (zero_point) {
    attr.set_zero_points_mask(DNNL_ARG_SRC, 0);
    attr.set_zero_points_mask(DNNL_ARG_DST, 0);
  }
  return attr;
}

Tag channels_last(size_t spatial) { return spatial == 1 ? Tag::nwc : spatial == 2 ? Tag::nhwc : Tag::ndhwc; }

struct Conv {
  memory::data_type src = kU8;
  int spatial = 2;  // dimensions of the image
  int groups = 1;
  int ic = 64, oc = 64;  // all groups together
  int kernel = 3, stride = 1, dilation = 0;
  bool transposed = false;
};

std::string conv_impl(const Conv& c) {
  const auto n = static_cast<size_t>(c.spatial);
  const int size = 14, pad = c.transposed ? 0 : (c.kernel / 2) * (c.dilation + 1);
  const int extent = c.dilation * (c.kernel - 1) + c.kernel;
  const int out = c.transposed ? (size - 1) * c.stride + extent : (size + 2 * pad - extent) / c.stride + 1;
  Dims src = {1, c.ic}, dst = {1, c.oc}, wei;
  if (c.groups > 1)
    wei = {c.groups, c.oc / c.groups, c.ic / c.groups};
  else
    wei = {c.oc, c.ic};
  for (size_t i = 0; i < n; ++i) {
    src.push_back(size);
    dst.push_back(out);
    wei.push_back(c.kernel);
  }
  const Dims strides(n, c.stride), dilates(n, c.dilation), pads(n, pad);
  const memory::desc src_md(src, c.src, channels_last(n)), wei_md(wei, kS8, Tag::any),
      bias_md({c.oc}, kF32, Tag::x), dst_md(dst, kU8, channels_last(n));
  const auto attr = attributes(c.groups > 1 ? 3 : 1);
  if (c.transposed) {
    return dnnl::deconvolution_forward::primitive_desc(engine(), dnnl::prop_kind::forward_inference,
                                                       dnnl::algorithm::deconvolution_direct, src_md, wei_md,
                                                       bias_md, dst_md, strides, dilates, pads, pads, attr)
        .impl_info_str();
  }
  return dnnl::convolution_forward::primitive_desc(engine(), dnnl::prop_kind::forward_inference,
                                                   dnnl::algorithm::convolution_direct, src_md, wei_md,
                                                   bias_md, dst_md, strides, dilates, pads, pads, attr)
      .impl_info_str();
}

std::string matmul_impl(memory::data_type src, memory::data_type wei, memory::data_type dst) {
  const memory::dim m = 128, k = 512, n = 256;
  dnnl::primitive_attr attr;
  if (src != kBf16 && src != kF32) attr = attributes(2, false);
  return dnnl::matmul::primitive_desc(engine(), {{m, k}, src, Tag::ab}, {{k, n}, wei, Tag::any},
                                      {{1, n}, kF32, Tag::ab}, {{m, n}, dst, Tag::ab}, attr)
      .impl_info_str();
}

}  // namespace

TEST_CASE("convolution") {
  const Expected dense = {"jit_uni_int8:avx2", "brg_conv_fwd:avx2_vnni", "brg_conv_fwd:avx512_core",
                          "brg_conv_fwd:avx512_core_vnni", "brg_conv_fwd:avx10_1_512_amx"};
  for (auto src : {kU8, kS8}) {
    Conv c;
    c.src = src;
    for (int spatial : {1, 2, 3}) {
      c.spatial = spatial;
      check("conv " + std::to_string(spatial) + "d", conv_impl(c), dense);
    }
    c.spatial = 2;
    c.dilation = 1;
    check("conv 2d dilated", conv_impl(c), dense);
    c.dilation = 0;
    c.kernel = 1;
    check("conv 1x1", conv_impl(c),
          {"jit_uni_int8_1x1:avx2", "brgconv_1x1:avx2_vnni", "brgconv_1x1:avx512_core",
           "brgconv_1x1:avx512_core_vnni", "brgconv_1x1:avx10_1_512_amx"});
  }
}

TEST_CASE("grouped convolution") {
  Conv c;
  c.groups = 8;
  check("8 x 8 channels", conv_impl(c),
        {"jit_uni_int8:avx2", "jit_uni_int8:avx2", "jit_int8:avx512_core", "jit_int8:avx512_core_vnni",
         "brg_conv_fwd:avx10_1_512_amx"});
  c.ic = c.oc = 48;  // 6 channels per group
  check("8 x 6 channels", conv_impl(c),
        {"ref", "brg_conv_fwd:avx2_vnni", "brg_conv_fwd:avx512_core", "brg_conv_fwd:avx512_core_vnni",
         "brg_conv_fwd:avx10_1_512_amx"});
}

TEST_CASE("depthwise convolution") {
  Conv c;
  c.groups = 64;
  check("dw 2d", conv_impl(c),
        {"jit_uni_int8:avx2", "brdgmm_dw:avx2_vnni", "jit_int8:avx512_core", "brdgmm_dw:avx512_core_vnni",
         "brdgmm_dw:avx512_core_vnni"});
  c.dilation = 1;
  check("dw 2d dilated", conv_impl(c),
        {"jit_uni_int8:avx2", "jit_uni_int8:avx2", "jit_int8:avx512_core", "jit_int8:avx512_core_vnni",
         "jit_int8:avx512_core_vnni"});
  c.dilation = 0;
  c.spatial = 1;
  check("dw 1d", conv_impl(c),
        {"jit_uni_int8:avx2", "jit_uni_int8:avx2", "jit_int8:avx512_core", "jit_int8:avx512_core_vnni",
         "jit_int8:avx512_core_vnni"});
  c.spatial = 3;
  // 3-D without VNNI has no kernel upstream either.
  check("dw 3d", conv_impl(c),
        {"ref", "brdgmm_dw:avx2_vnni", "x64:gemm_s8u8s32:jit", "brdgmm_dw:avx512_core_vnni",
         "brdgmm_dw:avx512_core_vnni"});
}

TEST_CASE("deconvolution") {
  for (auto src : {kU8, kS8}) {
    Conv c;
    c.src = src;
    c.transposed = true;
    for (int stride : {1, 2}) {
      c.stride = stride;
      // AVX2 has no kernel for 4 taps at stride 1 without padding.
      c.kernel = stride + 2;
      check("deconv stride " + std::to_string(stride), conv_impl(c),
            {"jit_uni_int8:avx2", "brg_deconv:avx2_vnni", "brg_deconv:avx512_core",
             "brg_deconv:avx512_core_vnni", "brg_deconv:avx10_1_512_amx"});
    }
  }
}

TEST_CASE("matmul") {
  for (auto src : {kU8, kS8}) {
    for (auto dst : {kU8, kS8, kF32}) {
      check("matmul int8", matmul_impl(src, kS8, dst),
            {"gemm:jit", "brg_matmul:avx2_vnni", "brg_matmul:avx512_core", "brg_matmul:avx512_core_vnni",
             "brg_matmul:avx10_1_512_amx"});
    }
  }
  check("matmul f32", matmul_impl(kF32, kF32, kF32),
        {"brg_matmul:avx2", "brg_matmul:avx2", "brg_matmul:avx512_core", "brg_matmul:avx512_core",
         "brg_matmul:avx512_core"});
}

TEST_CASE("matmul with bf16") {
  const auto isa = dnnl::get_effective_cpu_isa();
  const bool bf16 = isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_fp16 ||
                    isa == dnnl::cpu_isa::avx512_core_amx || isa == dnnl::cpu_isa::avx512_core_amx_fp16;
  if (isa == dnnl::cpu_isa::avx2 || isa == dnnl::cpu_isa::avx2_vnni) SKIP("no bf16");
  check("matmul int8 to bf16", matmul_impl(kU8, kS8, kBf16),
        {"", "", "brg_matmul:avx512_core", "brg_matmul:avx512_core_vnni", "brg_matmul:avx10_1_512_amx"});
  if (!bf16) SKIP("the cap leaves no bf16 arithmetic");
  check("matmul bf16", matmul_impl(kBf16, kBf16, kBf16),
        {"", "", "", "brg_matmul:avx512_core_", "brg_matmul:avx10_1_512_amx"});
  dnnl::primitive_attr attr;
  attr.set_fpmath_mode(dnnl::fpmath_mode::bf16, true);
  attr.set_scales(DNNL_ARG_WEIGHTS, 3, {64, 1}, kF32);
  const auto impl =
      dnnl::matmul::primitive_desc(engine(), {{16, 512}, kBf16, Tag::ab}, {{512, 256}, kS8, Tag::any},
                                   {{16, 256}, kBf16, Tag::ab}, attr)
          .impl_info_str();
  check("matmul bf16 x s8 groups", impl,
        {"", "", "", "brg_matmul:avx512_core_", "brg_matmul:avx10_1_512_amx"});
}

TEST_CASE("small operations") {
  const Expected isa = {"avx2", "avx2", "avx512_core", "avx512_core", "avx512_core"};
  const auto with = [](const std::string& stem, const Expected& e) {
    return Expected{stem + e.avx2, stem + e.avx2_vnni, stem + e.avx512_core, stem + e.avx512_core_vnni,
                    stem + e.amx};
  };
  const Expected any_isa = {"jit:uni", "jit:uni", "jit:uni", "jit:uni", "jit:uni"};
  const Dims image = {1, 64, 14, 14}, pooled = {1, 64, 7, 7}, rows = {128, 256};
  const memory::desc u8(image, kU8, Tag::nhwc), s8(image, kS8, Tag::nhwc), u8_rows(rows, kU8, Tag::ab),
      f32_rows(rows, kF32, Tag::ab);
  const auto inference = dnnl::prop_kind::forward_inference;
  for (auto dt : {kU8, kS8}) {
    for (auto kind : {dnnl::algorithm::pooling_max, dnnl::algorithm::pooling_avg_exclude_padding}) {
      check("pooling",
            dnnl::pooling_forward::primitive_desc(engine(), inference, kind, {image, dt, Tag::nhwc},
                                                  {pooled, dt, Tag::nhwc}, {2, 2}, {2, 2}, {0, 0}, {0, 0},
                                                  {0, 0})
                .impl_info_str(),
            with("jit_int:", isa));
    }
  }
  dnnl::primitive_attr scales;
  scales.set_scales_mask(DNNL_ARG_SRC_0, 0);
  scales.set_scales_mask(DNNL_ARG_SRC_1, 0);
  check(
      "binary",
      dnnl::binary::primitive_desc(engine(), dnnl::algorithm::binary_add, u8, s8, u8, scales).impl_info_str(),
      any_isa);
  check("eltwise s8",
        dnnl::eltwise_forward::primitive_desc(engine(), inference, dnnl::algorithm::eltwise_relu, s8, s8, 0.f,
                                              0.f)
            .impl_info_str(),
        with("jit_int8:", isa));
  check("eltwise f32",
        dnnl::eltwise_forward::primitive_desc(engine(), inference, dnnl::algorithm::eltwise_gelu_tanh,
                                              f32_rows, f32_rows, 0.f, 0.f)
            .impl_info_str(),
        with("jit:", isa));
  check("softmax",
        dnnl::softmax_forward::primitive_desc(engine(), inference, dnnl::algorithm::softmax_accurate,
                                              f32_rows, u8_rows, 1)
            .impl_info_str(),
        {"jit:avx2", "jit:avx2", "jit:avx512_core", "jit:avx512_core", "jit:avx10_1_512"});
  check("layer norm",
        dnnl::layer_normalization_forward::primitive_desc(
            engine(), inference, f32_rows, u8_rows, 1e-5f,
            dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift)
            .impl_info_str(),
        any_isa);
}

TEST_CASE("weight reorders") {
  // The packed layout of a matmul and of a convolution must not need the reference
  // reorder from a plain weight.
  const memory::desc plain({512, 256}, kS8, Tag::ab);
  const auto attr = attributes(2, false);
  const dnnl::matmul::primitive_desc pd(engine(), {{128, 512}, kU8, Tag::ab}, {{512, 256}, kS8, Tag::any},
                                        {{128, 256}, kF32, Tag::ab}, attr);
  const dnnl::reorder::primitive_desc reorder(engine(), plain, engine(), pd.weights_desc());
  check("matmul weights", reorder.impl_info_str(),
        {"", "jit:uni", "jit:uni", "brgemm_matmul_copy_reorder", "brgemm_matmul_copy_reorder"});
}

namespace {

// Runs u8[m,k] x s8[k,n] -> s32 and compares every sum with the obvious loop. Values stay
// small, so that AVX2 and AVX-512 without VNNI do not saturate.
void check_product(memory::dim m, memory::dim k, memory::dim n) {
  std::vector<uint8_t> a(static_cast<size_t>(m * k));
  std::vector<int8_t> b(static_cast<size_t>(k * n));
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<uint8_t>((i * 7 + i / 13) % 61);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<int8_t>((i * 5 + i / 11) % 63) - 31;
  const memory::desc a_md({m, k}, kU8, Tag::ab), b_plain({k, n}, kS8, Tag::ab),
      c_md({m, n}, memory::data_type::s32, Tag::ab);
  const dnnl::matmul::primitive_desc pd(engine(), a_md, {{k, n}, kS8, Tag::any}, c_md);
  dnnl::stream stream(engine());
  memory a_mem(a_md, engine(), a.data()), b_mem(b_plain, engine(), b.data()),
      packed(pd.weights_desc(), engine()), c_mem(c_md, engine());
  dnnl::reorder(b_mem, packed).execute(stream, b_mem, packed);
  dnnl::matmul(pd).execute(stream,
                           {{DNNL_ARG_SRC, a_mem}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, c_mem}});
  stream.wait();
  const auto* c = static_cast<const int32_t*>(c_mem.get_data_handle());
  int wrong = 0;
  for (memory::dim i = 0; i < m; ++i) {
    for (memory::dim j = 0; j < n; ++j) {
      int32_t sum = 0;
      for (memory::dim p = 0; p < k; ++p) sum += a[i * k + p] * b[p * n + j];
      wrong += c[i * n + j] != sum;
    }
  }
  INFO(pd.impl_info_str() << " " << m << "x" << k << "x" << n);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("matmul sums are exact") {
  check_product(1, 64, 32);
  check_product(17, 130, 70);
  check_product(64, 512, 256);
}
