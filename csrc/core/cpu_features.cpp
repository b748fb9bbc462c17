// CPUID and XGETBV by hand: __builtin_cpu_supports knows neither the operating
// system's permission for AMX nor AVX-VNNI with older compilers. Must itself run
// on any x86-64. Bit positions: Intel SDM volume 2A, CPUID.
#include "core/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace tae {
namespace {

constexpr Isa kLevels[] = {Isa::portable, Isa::avx2, Isa::avx_vnni, Isa::avx512, Isa::avx512_vnni, Isa::amx};

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero when the CPU has no such leaf.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool bit(uint64_t word, int index) { return (word >> index) & 1; }

// XCR0: register files the operating system saves on a context switch.
uint64_t saved_state() {
  if (!bit(cpuid(1).ecx, 27)) return 0;  // OSXSAVE: without it xgetbv is undefined
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux 5.16 and later hand out the 8 KB of tile state only on request; the
// permission then holds for the whole process, threads and children included.
bool request_tile_permission() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Cpu {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, amx = false;
  int64_t l1 = 0, l2 = 0, l3 = 0;
  std::vector<std::string> names;

  Cpu();
  void detect_levels();
  void detect_caches();
};

Cpu::Cpu() {
  detect_levels();
  detect_caches();
}

void Cpu::detect_levels() {
  const Registers one = cpuid(1), seven = cpuid(7), seven_one = seven.eax >= 1 ? cpuid(7, 1) : Registers{};
  const Registers extended = cpuid(0x80000001u);
  const uint64_t state = saved_state();
  const bool ymm = (state & 0x6) == 0x6;
  const bool zmm = (state & 0xe6) == 0xe6;
  const bool tiles = (state & 0x60000) == 0x60000;

  const struct {
    const char* name;
    bool present;
  } features[] = {
      {"pclmul", bit(one.ecx, 1)},
      {"sse4.1", bit(one.ecx, 19)},
      {"sse4.2", bit(one.ecx, 20)},
      {"avx", ymm && bit(one.ecx, 28)},
      {"f16c", ymm && bit(one.ecx, 29)},
      {"fma", ymm && bit(one.ecx, 12)},
      {"movbe", bit(one.ecx, 22)},
      {"lzcnt", bit(extended.ecx, 5)},
      {"bmi", bit(seven.ebx, 3)},
      {"bmi2", bit(seven.ebx, 8)},
      {"avx2", ymm && bit(seven.ebx, 5)},
      {"avx_vnni", ymm && bit(seven_one.eax, 4)},
      {"avx512f", zmm && bit(seven.ebx, 16)},
      {"avx512dq", zmm && bit(seven.ebx, 17)},
      {"avx512cd", zmm && bit(seven.ebx, 28)},
      {"avx512bw", zmm && bit(seven.ebx, 30)},
      {"avx512vl", zmm && bit(seven.ebx, 31)},
      {"avx512_vbmi", zmm && bit(seven.ecx, 1)},
      {"avx512_vnni", zmm && bit(seven.ecx, 11)},
      {"avx512_bf16", zmm && bit(seven_one.eax, 5)},
      {"avx512_fp16", zmm && bit(seven.edx, 23)},
      {"amx_tile", tiles && bit(seven.edx, 24)},
      {"amx_int8", tiles && bit(seven.edx, 25)},
      {"amx_bf16", tiles && bit(seven.edx, 22)},
  };
  const auto all_of = [&](std::initializer_list<const char*> wanted) {
    for (const char* name : wanted) {
      bool found = false;
      for (const auto& f : features) found = found || (f.present && std::string(f.name) == name);
      if (!found) return false;
    }
    return true;
  };
  // A level holds everything its files' compiler flags may emit.
  avx2 = all_of({"avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe", "pclmul"});
  avx_vnni = avx2 && all_of({"avx_vnni"});
  avx512 = avx2 && all_of({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"});
  avx512_vnni = avx512 && all_of({"avx512_vnni"});
  amx = avx512_vnni && all_of({"amx_tile", "amx_int8"}) && request_tile_permission();
  for (const auto& f : features)
    if (f.present) names.emplace_back(f.name);
}

// Deterministic cache parameters: leaf 4 (Intel, most others), 0x8000001D (AMD).
void Cpu::detect_caches() {
  for (unsigned leaf : {4u, 0x8000001du}) {
    for (unsigned i = 0; i < 16; ++i) {
      const Registers r = cpuid(leaf, i);
      const unsigned type = r.eax & 0x1f, level = (r.eax >> 5) & 7;  // 1 data, 3 unified
      if (type == 0) break;
      const int64_t ways = (r.ebx >> 22) + 1, partitions = ((r.ebx >> 12) & 0x3ff) + 1,
                    line = (r.ebx & 0xfff) + 1, sets = static_cast<int64_t>(r.ecx) + 1;
      const int64_t bytes = ways * partitions * line * sets;
      if (level == 1 && type == 1 && l1 == 0) l1 = bytes;
      if (level == 2 && type != 2 && l2 == 0) l2 = bytes;
      if (level == 3 && type != 2 && l3 == 0) l3 = bytes;
    }
  }
  if (l1 <= 0) l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  if (l2 <= 0) l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l3 <= 0) l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
  // Emulators and hypervisors may say nothing or nonsense: the smallest sizes in use. Of L3, which only
  // decides what is written past the caches, a usual one.
  if (l1 < 16 << 10 || l1 > 1 << 20) l1 = 32 << 10;
  if (l2 < 64 << 10 || l2 > 256 << 20) l2 = 256 << 10;
  if (l3 < 1 << 20 || l3 > 4096ll << 20) l3 = 32 << 20;
}

const Cpu& cpu() {
  static const Cpu instance;
  return instance;
}

struct Cap {
  Isa isa = Isa::amx;
  std::string error;

  Cap() {
    const char* text = std::getenv("TORCH_AO_EXT_MAX_ISA");
    if (text == nullptr || *text == '\0' || parse_isa(text, isa)) return;
    error = "torch_ao_ext: environment variable TORCH_AO_EXT_MAX_ISA must be one of ";
    for (Isa level : kLevels) {
      if (level != kLevels[0]) error += ", ";
      error += name_of(level);
    }
    error += ", got '" + std::string(text) + "'";
  }
};

const Cap& cap() {
  static const Cap instance;
  return instance;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx_vnni:
      return "avx_vnni";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_vnni:
      return "avx512_vnni";
    case Isa::amx:
      return "amx";
  }
  return "?";
}

bool parse_isa(const std::string& name, Isa& isa) {
  for (Isa level : kLevels) {
    if (name == name_of(level)) {
      isa = level;
      return true;
    }
  }
  return false;
}

bool cpu_has(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return cpu().avx2;
    case Isa::avx_vnni:
      return cpu().avx_vnni;
    case Isa::avx512:
      return cpu().avx512;
    case Isa::avx512_vnni:
      return cpu().avx512_vnni;
    case Isa::amx:
      return cpu().amx;
  }
  return false;
}

bool usable(Isa isa) { return isa <= cap().isa && cpu_has(isa); }

Isa best_isa() {
  Isa best = Isa::portable;
  for (Isa level : kLevels)
    if (usable(level)) best = level;
  return best;
}

Isa isa_cap() { return cap().isa; }
std::string isa_cap_error() { return cap().error; }

int64_t l1_bytes() { return cpu().l1; }
int64_t l2_bytes() { return cpu().l2; }
int64_t l3_bytes() { return cpu().l3; }

std::vector<std::string> cpu_feature_names() { return cpu().names; }

bool has_byte_permutation() {
  static const bool found =
      std::find(cpu().names.begin(), cpu().names.end(), "avx512_vbmi") != cpu().names.end();
  return found;
}

}  // namespace tae
