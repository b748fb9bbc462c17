// Physical limits of this machine: register loops, streaming reads, random rows, fork and join.
// Compiled by harness/roof.py, called through ctypes. No torch, no OpenMP (a
// second OpenMP runtime would disturb torch's pool): plain threads.
#include <immintrin.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The CPUs this process may use, in order.
std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int c = 0; c < CPU_SETSIZE; ++c)
      if (CPU_ISSET(c, &set)) cpus.push_back(c);
  return cpus;
}

// Runs body(thread) on `threads` threads that start together, each bound to a
// CPU of its own: a stretch is too short for the scheduler to spread them when
// other work runs. Seconds from the common start to the last end.
template <class Body>
double run_together(int threads, Body body) {
  const std::vector<int> cpus = allowed_cpus();
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      if (!cpus.empty()) {
        cpu_set_t mine;
        CPU_ZERO(&mine);
        CPU_SET(cpus[t % cpus.size()], &mine);
        sched_setaffinity(0, sizeof mine, &mine);
      }
      ++ready;
      while (!go.load(std::memory_order_acquire)) _mm_pause();
      body(t);
    });
  while (ready.load() != threads) std::this_thread::yield();
  const auto start = Clock::now();
  go.store(true, std::memory_order_release);
  for (auto& t : pool) t.join();
  return seconds_since(start);
}

std::atomic<int64_t> sink{0};  // keeps the loops' results alive

// 12 independent accumulators in registers 4-15 (latency 5 x 2 a cycle needs
// 10). Whole bodies in asm with fixed registers: as separate statements g++ 12
// keeps the accumulators in memory.
constexpr int kChains = 12;
#define TAE_CHAINS(op) \
  op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11") op("12") op("13") op("14") op("15")
#define TAE_CLOBBERS                                                                           \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

void loop_vnni512(int64_t iterations) {
#define TAE_ZERO(r) "vpxord %%zmm" r ", %%zmm" r ", %%zmm" r "\n"
#define TAE_DOT(r) "vpdpbusd %%zmm1, %%zmm0, %%zmm" r "\n"
  asm volatile(
      "vpternlogd $255, %%zmm0, %%zmm0, %%zmm0\n vmovdqa64 %%zmm0, %%zmm1\n" TAE_CHAINS(TAE_ZERO)
      "1:\n" TAE_CHAINS(TAE_DOT) "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(iterations)::TAE_CLOBBERS, "cc");
#undef TAE_ZERO
#undef TAE_DOT
}

// Products of floats, on zeros: bfloat16 pairs and f32.
#define TAE_FLOAT_LOOP(name, instruction)                                                     \
  void name(int64_t iterations) {                                                            \
    asm volatile("vpxord %%zmm0, %%zmm0, %%zmm0\n vmovdqa64 %%zmm0, %%zmm1\n" TAE_CHAINS(    \
                     TAE_ZERO) "1:\n" TAE_CHAINS(instruction) "dec %0\n jnz 1b\n vzeroupper\n" \
                 : "+r"(iterations)::TAE_CLOBBERS, "cc");                                    \
  }
#define TAE_ZERO(r) "vpxord %%zmm" r ", %%zmm" r ", %%zmm" r "\n"
#define TAE_DOT_BF16(r) "vdpbf16ps %%zmm1, %%zmm0, %%zmm" r "\n"
#define TAE_FMA_F32(r) "vfmadd231ps %%zmm1, %%zmm0, %%zmm" r "\n"
TAE_FLOAT_LOOP(loop_bf16_512, TAE_DOT_BF16)
TAE_FLOAT_LOOP(loop_f32_512, TAE_FMA_F32)
#undef TAE_ZERO

void loop_vnni256(int64_t iterations) {
#define TAE_ZERO(r) "vpxor %%ymm" r ", %%ymm" r ", %%ymm" r "\n"
#define TAE_DOT(r) "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm" r "\n"
  asm volatile(
      "vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n" TAE_CHAINS(TAE_ZERO)
      "1:\n" TAE_CHAINS(TAE_DOT) "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(iterations)::TAE_CLOBBERS, "cc");
#undef TAE_DOT
}

// Without VNNI an exact u8 x s8 dot is widen + vpmaddwd + add; this is its
// multiply and add, 16 products a pair.
void loop_madd256(int64_t iterations) {
#define TAE_DOT(r) "vpmaddwd %%ymm1, %%ymm0, %%ymm2\n vpaddd %%ymm2, %%ymm" r ", %%ymm" r "\n"
  asm volatile(
      "vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n" TAE_CHAINS(TAE_ZERO)
      "1:\n" TAE_CHAINS(TAE_DOT) "dec %0\n jnz 1b\n vzeroupper\n"
      : "+r"(iterations)::TAE_CLOBBERS, "cc");
#undef TAE_ZERO
#undef TAE_DOT
}

// TDPBUSD: 16 x 16 x 64 products, 4 accumulator tiles.
bool allow_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

__attribute__((target("amx-tile,amx-int8"))) void loop_amx(int64_t iterations) {
  alignas(64) uint8_t config[64] = {1};
  for (int t = 0; t < 6; ++t) {
    config[48 + t] = 16;                                   // rows
    const uint16_t bytes = 64;
    std::memcpy(config + 16 + 2 * t, &bytes, sizeof bytes);  // bytes a row
  }
  _tile_loadconfig(config);
  alignas(64) static const uint8_t ones[1024] = {1};
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, ones, 64);
  _tile_loadd(5, ones, 64);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbusd(0, 4, 5);
    _tile_dpbusd(1, 4, 5);
    _tile_dpbusd(2, 4, 5);
    _tile_dpbusd(3, 4, 5);
  }
  alignas(64) int32_t out[256];
  _tile_stored(0, out, 64);
  sink += out[0];
  _tile_release();
}

struct Loop {
  const char* name;
  bool present;
  void (*run)(int64_t);
  int64_t ops_per_iteration;  // a multiply and an add are two
};

const Loop* find(const char* name) {
  static const Loop loops[] = {
      {"amx", __builtin_cpu_supports("amx-int8") && allow_amx(), loop_amx, 4 * 16 * 16 * 64 * 2},
      {"avx512_vnni", static_cast<bool>(__builtin_cpu_supports("avx512vnni")), loop_vnni512,
       kChains * 64 * 2},
      {"avx_vnni", static_cast<bool>(__builtin_cpu_supports("avxvnni")), loop_vnni256,
       kChains * 32 * 2},
      {"avx512_bf16", static_cast<bool>(__builtin_cpu_supports("avx512bf16")), loop_bf16_512,
       kChains * 32 * 2},
      {"avx512_f32", static_cast<bool>(__builtin_cpu_supports("avx512f")), loop_f32_512, kChains * 16 * 2},
      {"avx2", static_cast<bool>(__builtin_cpu_supports("avx2")), loop_madd256, kChains * 16 * 2},
  };
  for (const Loop& l : loops)
    if (l.present && std::strcmp(l.name, name) == 0) return &l;
  return nullptr;
}

__attribute__((target("avx2"))) void read_all(const char* data, int64_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
    a = _mm256_xor_si256(a, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i)));
    b = _mm256_xor_si256(b, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32)));
    c = _mm256_xor_si256(c, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 64)));
    d = _mm256_xor_si256(d, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 96)));
  }
  a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  sink += _mm256_extract_epi32(a, 0);
}

// Every cache line of the rows, fetched ahead into the second-level cache.
int64_t read_rows(const char* table, int64_t row_bytes, const int64_t* indices, int64_t count) {
  constexpr int64_t kAhead = 48;
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const char* next = table + indices[i + kAhead < count ? i + kAhead : i] * row_bytes;
    for (int64_t b = 0; b < row_bytes; b += 64) _mm_prefetch(next + b, _MM_HINT_T1);
    _mm_prefetch(next + row_bytes - 1, _MM_HINT_T1);
    const char* row = table + indices[i] * row_bytes;
    for (int64_t b = 0; b < row_bytes; b += 64) sum += row[b];
    sum += row[row_bytes - 1];
  }
  return sum;
}

}  // namespace

extern "C" {

// GOPS of one register loop (two are of floats), 0 when the CPU does not have the instruction.
double roof_gops(const char* loop, int threads, int64_t iterations) {
  const Loop* l = find(loop);
  if (l == nullptr) return 0;
  const double s = run_together(threads, [&](int) { l->run(iterations); });
  return static_cast<double>(l->ops_per_iteration) * iterations * threads / s / 1e9;
}

// Million rows a second that `threads` threads read from a table at these indices.
double roof_random_mrows(const char* table, int64_t row_bytes, const int64_t* indices, int64_t count,
                         int threads) {
  const int64_t share = count / threads;
  const double s = run_together(
      threads, [&](int t) { sink += read_rows(table, row_bytes, indices + t * share, share); });
  return static_cast<double>(share) * threads / s / 1e6;
}

// Nanoseconds until a waiting second thread was told to work, did nothing and was seen to have done so:
// two cache lines travel once. No pool can start and end a parallel region on two cores in less.
// For `seconds`, so that a busy machine cannot stretch it.
double roof_handover_ns(double seconds) {
  alignas(64) std::atomic<int64_t> asked{0};
  alignas(64) std::atomic<int64_t> done{0};
  double result = 0;
  run_together(2, [&](int t) {
    const auto start = Clock::now();
    int64_t count = 0;
    while (t == 0 && seconds_since(start) < seconds) {
      for (int64_t end = count + 100; count < end;) {
        asked.store(++count, std::memory_order_release);
        while (done.load(std::memory_order_acquire) != count) _mm_pause();
      }
    }
    if (t == 0) {
      result = seconds_since(start) / count * 1e9;
      asked.store(-1, std::memory_order_release);
      return;
    }
    for (int64_t seen = 0; seen >= 0;) {
      const int64_t now = asked.load(std::memory_order_acquire);
      if (now != seen) done.store(seen = now, std::memory_order_release);
      else _mm_pause();
    }
  });
  return result;
}

// Nanoseconds of an empty parallel region of the OpenMP runtime whose GOMP_parallel this is: the one that
// torch has loaded, so that no second runtime comes in.
double roof_region_ns(void (*parallel)(void (*)(void*), void*, unsigned, unsigned), int threads,
                      double seconds) {
  const auto nothing = [](void*) {};
  parallel(nothing, nullptr, threads, 0);
  const auto start = Clock::now();
  int64_t count = 0;
  for (; seconds_since(start) < seconds; ++count) parallel(nothing, nullptr, threads, 0);
  return seconds_since(start) / count * 1e9;
}

// GB/s of reading `bytes` in all, `passes` times; each thread reads its share.
// The first pass (page faults, cache fill) is not counted.
double roof_read_gbps(int64_t bytes, int threads, int64_t passes) {
  const int64_t share = bytes / threads / 128 * 128;
  if (share == 0) return 0;
  std::vector<char*> data(threads);
  for (auto& p : data) {
    p = static_cast<char*>(aligned_alloc(128, share));
    if (p == nullptr) return 0;
    std::memset(p, 1, share);
  }
  run_together(threads, [&](int t) { read_all(data[t], share); });
  const double s = run_together(threads, [&](int t) {
    for (int64_t i = 0; i < passes; ++i) read_all(data[t], share);
  });
  for (char* p : data) free(p);
  return static_cast<double>(share) * threads * passes / s / 1e9;
}
}
