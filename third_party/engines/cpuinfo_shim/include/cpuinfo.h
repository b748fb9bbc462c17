/* Stand-in for the part of the cpuinfo interface that XNNPACK 4ea82e5 uses on x86-64.
 *
 * Written for this project: XNNPACK asks for three symbols only, and supplying them
 * ourselves makes our own CPU detection (with its ISA cap) decide which XNNPACK
 * microkernels run. The final library defines, with C linkage:
 *
 *   bool cpuinfo_initialize(void);                        fills cpuinfo_isa
 *   struct cpuinfo_x86_isa cpuinfo_isa;
 *   const struct cpuinfo_core* cpuinfo_get_core(uint32_t index);   never NULL
 *
 * Flags must follow what the operating system enables (XCR0), not CPUID alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CPUINFO_ARCH_X86_64 1

#ifdef __cplusplus
extern "C" {
#endif

/* One flag per question XNNPACK asks; the order is ours (nothing outside sees it). */
struct cpuinfo_x86_isa {
  bool sse2;
  bool ssse3;
  bool sse4_1;
  bool avx;
  bool f16c;
  bool fma3;
  bool avx2;
  bool avxvnni;
  bool avx_vnni_int8;
  bool avx512f;
  bool avx512dq;
  bool avx512cd;
  bool avx512bw;
  bool avx512vl;
  bool avx512vbmi;
  bool avx512vnni;
  bool avx512fp16;
  bool gfni;
  bool amx_int8;
};

/* XNNPACK asks only whether the core is one of these three: Zen 1 and its clone want
 * another f32 tile, Zen 4 runs GFNI int4 kernels slower than the plain VNNI ones. */
enum cpuinfo_uarch {
  cpuinfo_uarch_unknown = 0,
  cpuinfo_uarch_zen = 1,
  cpuinfo_uarch_zen4 = 2,
  cpuinfo_uarch_dhyana = 3,
};

struct cpuinfo_core {
  enum cpuinfo_uarch uarch;
};

extern struct cpuinfo_x86_isa cpuinfo_isa;
bool cpuinfo_initialize(void);
const struct cpuinfo_core* cpuinfo_get_core(uint32_t index);

#define TAE_CPUINFO_HAS(name, field) \
  static inline bool cpuinfo_has_x86_##name(void) { return cpuinfo_isa.field; }

TAE_CPUINFO_HAS(sse2, sse2)
TAE_CPUINFO_HAS(ssse3, ssse3)
TAE_CPUINFO_HAS(sse4_1, sse4_1)
TAE_CPUINFO_HAS(avx, avx)
TAE_CPUINFO_HAS(f16c, f16c)
TAE_CPUINFO_HAS(fma3, fma3)
TAE_CPUINFO_HAS(avx2, avx2)
TAE_CPUINFO_HAS(avxvnni, avxvnni)
TAE_CPUINFO_HAS(avx_vnni_int8, avx_vnni_int8)
TAE_CPUINFO_HAS(avx512f, avx512f)
TAE_CPUINFO_HAS(avx512dq, avx512dq)
TAE_CPUINFO_HAS(avx512cd, avx512cd)
TAE_CPUINFO_HAS(avx512bw, avx512bw)
TAE_CPUINFO_HAS(avx512vl, avx512vl)
TAE_CPUINFO_HAS(avx512vbmi, avx512vbmi)
TAE_CPUINFO_HAS(avx512vnni, avx512vnni)
TAE_CPUINFO_HAS(avx512fp16, avx512fp16)
TAE_CPUINFO_HAS(gfni, gfni)
TAE_CPUINFO_HAS(amx_int8, amx_int8)

#undef TAE_CPUINFO_HAS

#ifdef __cplusplus
}
#endif
