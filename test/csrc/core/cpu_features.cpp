#include "core/cpu_features.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

using namespace tae;

namespace {

constexpr Isa kLevels[] = {Isa::portable, Isa::avx2, Isa::avx_vnni, Isa::avx512, Isa::avx512_vnni, Isa::amx};

// Runs one hidden test case of this program with the variable set.
int child(const std::string& value, const std::string& test) {
  char self[4096] = {};
  std::ifstream maps("/proc/self/cmdline");
  maps.getline(self, sizeof self, '\0');
  const std::string command =
      "TORCH_AO_EXT_MAX_ISA='" + value + "' '" + self + "' '" + test + "' >/dev/null 2>&1";
  return std::system(command.c_str());
}

}  // namespace

TEST_CASE("isa names round-trip and unknown ones are refused", "[cpu_features]") {
  for (Isa level : kLevels) {
    Isa parsed = Isa::portable;
    REQUIRE(parse_isa(name_of(level), parsed));
    CHECK(parsed == level);
  }
  Isa untouched = Isa::avx512;
  for (const char* bad : {"", "AVX2", "avx", "avx512f", "native", "amx "}) {
    CHECK_FALSE(parse_isa(bad, untouched));
    CHECK(untouched == Isa::avx512);
  }
}

TEST_CASE("usable means the CPU has it and the cap allows it", "[cpu_features]") {
  REQUIRE(isa_cap_error().empty());
  CHECK(usable(Isa::portable));
  CHECK(usable(best_isa()));
  for (Isa level : kLevels) {
    CHECK(usable(level) == (cpu_has(level) && level <= isa_cap()));
    if (usable(level)) CHECK(level <= best_isa());
  }
}

TEST_CASE("levels contain the levels they build on", "[cpu_features]") {
  if (cpu_has(Isa::amx)) CHECK(cpu_has(Isa::avx512_vnni));
  if (cpu_has(Isa::avx512_vnni)) CHECK(cpu_has(Isa::avx512));
  if (cpu_has(Isa::avx512)) CHECK(cpu_has(Isa::avx2));
  if (cpu_has(Isa::avx_vnni)) CHECK(cpu_has(Isa::avx2));
}

TEST_CASE("detection agrees with the compiler's runtime and the kernel", "[cpu_features]") {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  CHECK(cpu_has(Isa::avx2) == avx2);
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  CHECK(cpu_has(Isa::avx512) == avx512);
  CHECK(cpu_has(Isa::avx512_vnni) == (avx512 && __builtin_cpu_supports("avx512vnni")));

  const std::vector<std::string> names = cpu_feature_names();
  for (const std::string& name : names) CHECK(std::count(names.begin(), names.end(), name) == 1);
  std::ifstream info("/proc/cpuinfo");
  std::string line, flags;
  while (std::getline(info, line))
    if (line.rfind("flags", 0) == 0) flags = line + " ";
  // Under qemu-user /proc/cpuinfo is the host's: compare only where it is ours.
  if ((flags.find(" avx512f ") != std::string::npos) != cpu_has(Isa::avx512)) return;
  for (const char* name : {"avx2", "avx_vnni", "avx512_vnni", "amx_int8", "avx512_fp16"}) {
    INFO(name);
    const bool listed = std::find(names.begin(), names.end(), name) != names.end();
    CHECK(listed == (flags.find(" " + std::string(name) + " ") != std::string::npos));
  }
}

TEST_CASE("cache sizes are plausible", "[cpu_features]") {
  CHECK(l1_bytes() >= 16 << 10);
  CHECK(l1_bytes() <= 1 << 20);
  CHECK(l2_bytes() >= 64 << 10);
  CHECK(l2_bytes() <= 256 << 20);
  CHECK(l3_bytes() >= 1 << 20);
  CHECK(l3_bytes() <= 4096ll << 20);
}

TEST_CASE("isa cap child: capped", "[.isa_child]") {
  const char* value = std::getenv("TORCH_AO_EXT_MAX_ISA");
  REQUIRE(value != nullptr);
  Isa expected = Isa::portable;
  REQUIRE(parse_isa(value, expected));
  CHECK(isa_cap_error().empty());
  CHECK(isa_cap() == expected);
  for (Isa level : kLevels)
    if (level > expected) CHECK_FALSE(usable(level));
  CHECK(best_isa() <= expected);
}

TEST_CASE("isa cap child: unknown name", "[.isa_child]") {
  CHECK(isa_cap_error() ==
        "torch_ao_ext: environment variable TORCH_AO_EXT_MAX_ISA must be one of portable, avx2, avx_vnni, "
        "avx512, avx512_vnni, amx, got 'sse9'");
}

TEST_CASE("TORCH_AO_EXT_MAX_ISA caps, and an unknown name is reported", "[cpu_features]") {
  for (Isa level : kLevels) {
    INFO(name_of(level));
    CHECK(child(name_of(level), "isa cap child: capped") == 0);
  }
  CHECK(child("sse9", "isa cap child: unknown name") == 0);
  CHECK(child("sse9", "isa cap child: capped") != 0);  // the child does report failures
}
