// Every call of a file, with memory that fails or that is guarded.
//   op_memory fail  FILE   the n-th allocation of pack and run fails, n = 1, 2, .. until the
//                          call succeeds: an exception each time, the next call right, the live
//                          bytes back where they were
//   op_memory cold  FILE   the same for the first call of a process: one child for each n
//   op_memory one FILE I N  call I with its n-th allocation failing, to look at in a debugger
//   op_memory team FILE    as fail, of calls whose work two threads share: what a member of a team
//                          throws would end the process
//   op_memory guard FILE   every tensor that an op allocates (results, copies) ends at an
//                          unreadable page
// FILE: op_calls.h; test_memory.py writes it.
#include <c10/core/CPUAllocator.h>
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "op_calls.h"

// --- malloc of the whole process ------------------------------------------------
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}

namespace {

thread_local int64_t countdown = 0;  // 0: not armed; 1: the next allocation fails
thread_local int64_t failed = 0;
std::atomic<int64_t> live{0};

bool fails() {
  if (countdown == 0 || --countdown > 0) return false;
  ++failed;
  return true;
}

void* seen(void* p) {
  if (p != nullptr) live.fetch_add(static_cast<int64_t>(malloc_usable_size(p)), std::memory_order_relaxed);
  return p;
}

void gone(void* p) {
  if (p != nullptr) live.fetch_sub(static_cast<int64_t>(malloc_usable_size(p)), std::memory_order_relaxed);
}

}  // namespace

extern "C" {
void* malloc(size_t size) {
  if (fails()) {
    errno = ENOMEM;
    return nullptr;
  }
  return seen(__libc_malloc(size));
}
void* calloc(size_t count, size_t size) {
  if (fails()) {
    errno = ENOMEM;
    return nullptr;
  }
  return seen(__libc_calloc(count, size));
}
void* realloc(void* p, size_t size) {
  if (fails()) {
    errno = ENOMEM;
    return nullptr;
  }
  gone(p);
  return seen(__libc_realloc(p, size));
}
void* memalign(size_t alignment, size_t size) {
  if (fails()) {
    errno = ENOMEM;
    return nullptr;
  }
  return seen(__libc_memalign(alignment, size));
}
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void** out, size_t alignment, size_t size) {
  *out = memalign(alignment, size);
  return *out == nullptr ? ENOMEM : 0;
}
void free(void* p) {
  gone(p);
  __libc_free(p);
}
}

namespace {

using namespace op_calls;  // NOLINT: a program of one file

// --- fail -------------------------------------------------------------------------

struct Failures {
  int64_t allocations = 0;
  int64_t wrong = 0;
};

// The call with its n-th allocation failing; true when it failed. The arguments stay usable.
bool fails_at(const c10::OperatorHandle& op, const Call& call, int64_t n, const Stack& expected,
              Failures* totals) {
  const Stack arguments = fresh(op, call);
  Stack stack = arguments;
  stack.reserve(arguments.size() + 4);
  bool threw = false;
  failed = 0;
  countdown = n;
  try {
    op.callBoxed(stack);
  } catch (const std::exception&) {
    threw = true;
  }
  countdown = 0;
  // An allocation that may fail (a cache, a hint) leaves a right result.
  bool right = threw ? failed > 0 : same(stack, expected);
  right = right && same(run(op, arguments), expected);
  if (!right) {
    std::printf("%s, engine '%s', allocation %ld: %s\n", call.name.c_str(), call.engine.c_str(), n,
                threw && failed == 0 ? "threw without cause" : "wrong result after it");
    ++totals->wrong;
  }
  return failed > 0;
}

void fail_all(const Call& call, Failures* totals) {
  const c10::OperatorHandle op = find_op(call.name);
  use_engine(call.engine);
  if (refused(op, call)) return;
  const Stack expected = run(op, fresh(op, call));
  for (int64_t n = 1;; ++n) {
    int64_t before = live.load();
    const bool hit = fails_at(op, call, n, expected, totals);
    if (live.load() > before) {  // a cache may grow once, a leak grows again
      before = live.load();
      fails_at(op, call, n, expected, totals);
      if (live.load() > before) {
        std::printf("%s, engine '%s', allocation %ld: %ld bytes leaked\n", call.name.c_str(),
                    call.engine.c_str(), n, live.load() - before);
        ++totals->wrong;
      }
    }
    if (!hit) return;
    ++totals->allocations;
  }
}

// --- cold -------------------------------------------------------------------------

enum ColdResult { kRight = 0, kWrong = 1, kNotReached = 3 };

// In a child of its own: engines, primitives and caches are made by this call.
int first_call(const Call& call, int64_t n) {
  const c10::OperatorHandle op = find_op(call.name);
  use_engine(call.engine);
  const Stack arguments = fresh(op, call);
  Stack stack = arguments;
  stack.reserve(arguments.size() + 4);
  failed = 0;
  countdown = n;
  bool threw = false;
  try {
    op.callBoxed(stack);
  } catch (const c10::NotImplementedError& e) {
    countdown = 0;
    if (failed == 0) return kNotReached;  // refused
    threw = true;
  } catch (const std::exception&) {
    threw = true;
  }
  countdown = 0;
  if (failed == 0) return threw ? kWrong : kNotReached;
  const Stack again = run(op, arguments);  // not one exception more
  use_engine("reference");
  const Stack expected = run(op, fresh(op, call));
  const bool exact = call.engine != "xnnpack";
  if (exact && (!same(again, expected) || (!threw && !same(stack, expected)))) return kWrong;
  return kRight;
}

void fail_cold(const Call& call, Failures* totals) {
  for (int64_t n = 1;; ++n) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      int code = kWrong;
      try {
        code = first_call(call, n);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "after allocation %ld: %s\n", n, e.what());
      }
      _exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotReached) return;
    ++totals->allocations;
    if (WIFEXITED(status) && WEXITSTATUS(status) == kRight) continue;
    std::printf("%s, engine '%s', allocation %ld of the process: %s %d\n", call.name.c_str(),
                call.engine.c_str(), n, WIFEXITED(status) ? "wrong, exit code" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    if (++totals->wrong > 20) return;
  }
}

// --- guard ------------------------------------------------------------------------

constexpr size_t kPage = 4096;

struct Guarded {
  void* base;
  size_t size;
};

void unguard(void* context) {
  Guarded* const g = static_cast<Guarded*>(context);
  munmap(g->base, g->size);
  delete g;
}

// Each block ends at an unreadable page, but for what its alignment of 4 leaves.
class GuardAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    const size_t used = (size + 3) / 4 * 4;
    const size_t body = (used + kPage - 1) / kPage * kPage;
    char* const base =
        static_cast<char*>(mmap(nullptr, body + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED) throw std::bad_alloc();
    if (body > 0 && mprotect(base + kPage, body, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    return {base + kPage + body - used, new Guarded{base, body + 2 * kPage}, &unguard, at::kCPU};
  }
  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }
};

// Each mode sees what it is for.
bool control() {
  countdown = 1;
  bool threw = false;
  try {
    at::detail::empty_cpu({4}, at::kByte);
  } catch (const std::exception&) {
    threw = true;
  }
  countdown = 0;
  const int64_t before = live.load();
  void* volatile leak = std::malloc(100);
  if (!threw || leak == nullptr || live.load() < before + 100) return false;
  const pid_t child = fork();
  if (child == 0) {
    static GuardAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/254);
    const at::Tensor t = at::detail::empty_cpu({100}, at::kByte);
    static_cast<volatile uint8_t*>(t.mutable_data_ptr())[100] = 1;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "one") == 0) {  // to look at under a debugger
    at::set_num_threads(1);
    return first_call(read_calls(argv[2])[std::atoi(argv[3])], std::atoi(argv[4]));
  }
  if (argc != 3) return 2;
  const bool cold = std::strcmp(argv[1], "cold") == 0;
  const bool guard = std::strcmp(argv[1], "guard") == 0;
  at::set_num_threads(std::strcmp(argv[1], "team") == 0 ? 2 : 1);
  at::parallel_for(0, 2, 1, [](int64_t, int64_t) {});  // torch's own pool is not under test
  const std::vector<Call> calls = read_calls(argv[2]);
  if (!control()) {
    std::puts("op_memory: a planted failure, leak or overrun went unseen");
    return 2;
  }
  static GuardAllocator allocator;
  Failures totals;
  int64_t ran = 0;
  for (const Call& call : calls) {
    std::fprintf(stderr, "%s engine='%s'\n", call.name.c_str(), call.engine.c_str());  // the last one crashed
    if (!guard) {
      cold ? fail_cold(call, &totals) : fail_all(call, &totals);
      ++ran;
      continue;
    }
    const c10::OperatorHandle op = find_op(call.name);
    use_engine(call.engine);
    if (refused(op, call)) continue;
    const Stack expected = run(op, fresh(op, call));
    c10::Allocator* const usual = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&allocator, /*priority=*/255);
    {
      const Stack got = run(op, fresh(op, call));
      if (!same(got, expected)) {
        std::printf("%s, engine '%s': another result\n", call.name.c_str(), call.engine.c_str());
        ++totals.wrong;
      }
    }
    c10::SetCPUAllocator(usual, /*priority=*/255);
    ++ran;
  }
  std::printf("op_memory %s: %ld of %zu calls ran, %ld failed allocations: %ld bad\n", argv[1], ran,
              calls.size(), totals.allocations, totals.wrong);
  return totals.wrong > 0;
}
