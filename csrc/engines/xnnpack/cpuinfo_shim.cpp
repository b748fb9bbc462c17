// cpuinfo as far as XNNPACK asks (third_party/engines/cpuinfo_shim/cpuinfo.h),
// answered from core/cpu_features.h, so that TORCH_AO_EXT_MAX_ISA caps XNNPACK,
// which has no switch of its own. It asks once, from xnn_initialize(), and keeps
// the answers.
#include <cpuid.h>
#include <cpuinfo.h>

#include <string>

#include "core/cpu_features.h"

namespace {

bool has_feature(const char* name) {
  for (const std::string& feature : tae::cpu_feature_names())
    if (feature == name) return true;
  return false;
}

// Extensions without state of their own, that is, not for the operating system to
// enable; bits of CPUID leaf 1 ecx and leaf 7 ecx.
bool leaf1_ecx(int bit) {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> bit & 1);
}

bool leaf7_ecx(int bit) {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx >> bit & 1);
}

cpuinfo_x86_isa detect() {
  using tae::Isa;
  cpuinfo_x86_isa isa{};
  // The portable level is at most SSE4.1: no AVX encoding runs there.
  isa.sse2 = true;
  isa.ssse3 = leaf1_ecx(9);
  isa.sse4_1 = isa.ssse3 && leaf1_ecx(19);

  const bool avx2 = tae::usable(Isa::avx2);
  isa.avx = isa.f16c = isa.fma3 = isa.avx2 = avx2;
  // An avx_vnni cap leaves AVX-512 out; above it both may be on, and XNNPACK
  // prefers AVX512-VNNI, then AVX-VNNI, to plain AVX-512. With a cap at avx512
  // VNNI in any encoding stays off: that level stands for CPUs without it.
  isa.avxvnni = tae::usable(Isa::avx_vnni) && tae::isa_cap() != Isa::avx512;

  const bool avx512 = tae::usable(Isa::avx512);
  isa.avx512f = isa.avx512dq = isa.avx512cd = isa.avx512bw = isa.avx512vl = avx512;
  isa.avx512vnni = tae::usable(Isa::avx512_vnni);
  // Newer than VNNI, therefore only above that level.
  isa.avx512vbmi = isa.avx512vnni && has_feature("avx512_vbmi");
  isa.avx512fp16 = isa.avx512vnni && has_feature("avx512_fp16");
  isa.gfni = isa.avx512vnni && leaf7_ecx(8);
  isa.amx_int8 = tae::usable(Isa::amx);
  return isa;
}

constexpr cpuinfo_core kCore{cpuinfo_uarch_unknown};

}  // namespace

extern "C" {

struct cpuinfo_x86_isa cpuinfo_isa;

bool cpuinfo_initialize(void) {
  static const bool filled = (cpuinfo_isa = detect(), true);
  return filled;
}

const struct cpuinfo_core* cpuinfo_get_core(uint32_t) { return &kCore; }

}  // extern "C"
