// What the CPU can run and how far TORCH_AO_EXT_MAX_ISA lets us go. One answer
// for our own kernels, oneDNN and XNNPACK.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tae {

// Ordered: a cap at one level forbids every later one. The names below are the
// values of TORCH_AO_EXT_MAX_ISA.
enum class Isa : uint8_t {
  portable,     // x86-64 baseline (SSE2)
  avx2,         // AVX2 + FMA + F16C + BMI2 + PCLMUL
  avx_vnni,     // avx2 + AVX-VNNI (256-bit VPDPBUSD, VEX)
  avx512,       // AVX512 F, BW, DQ, VL, CD
  avx512_vnni,  // avx512 + AVX512-VNNI
  amx,          // avx512_vnni + AMX-TILE + AMX-INT8, with the kernel's permission
};

const char* name_of(Isa isa);
// False, and isa untouched, when no level has that name.
bool parse_isa(const std::string& name, Isa& isa);

// Levels this CPU and operating system can run, whatever the cap says.
bool cpu_has(Isa isa);

// The best level that own kernels may use now: cpu_has() and not above the cap.
// avx512 without avx_vnni is normal: usable(isa) is not monotonic.
bool usable(Isa isa);
Isa best_isa();

// AVX512-VBMI, looked for at avx512_vnni and above: Cascade Lake has VNNI without it.
bool has_byte_permutation();

// The cap, from TORCH_AO_EXT_MAX_ISA at load; an unknown name is reported by
// isa_cap_error() and raised at import.
Isa isa_cap();
std::string isa_cap_error();

// Cache sizes in bytes with safe defaults: L1 data and L2 of one core, L3 of those that share it.
int64_t l1_bytes();
int64_t l2_bytes();
int64_t l3_bytes();

// One word a line for `info` and `explain`, e.g. {"avx2", "fma", ...}.
std::vector<std::string> cpu_feature_names();

}  // namespace tae
