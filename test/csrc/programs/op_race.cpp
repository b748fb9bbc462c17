// Every call of a file from many threads at once, to be run under ThreadSanitizer.
//   op_race FILE THREADS ROUNDS
//     first use   fresh weights for each round, all threads make the call together
//     mixed       all threads make all calls on the same weights in an order of their own,
//                 while one thread asks what is packed and drops it
//   op_race planted     two threads write one number: the control that must be reported
// FILE: op_calls.h; test/sanitizers/run.py writes it. One intra-op thread: OpenMP's own
// synchronization is invisible to the sanitizer.
#include <cstdio>
#include <cstdlib>
#include <latch>
#include <random>
#include <thread>

#include "op_calls.h"

using namespace op_calls;  // NOLINT: a program of one file

namespace {

std::atomic<int64_t> wrong{0};

void judge(const Call& call, const Stack& got, const Stack& expected) {
  if (same(got, expected)) return;
  if (++wrong <= 20) std::printf("%s, engine '%s': another result\n", call.name.c_str(), call.engine.c_str());
}

template <typename Work>
void on_threads(int count, Work&& work) {
  std::latch begin(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      at::set_num_threads(1);
      begin.arrive_and_wait();
      work(i);
    });
  }
  for (std::thread& t : threads) t.join();
}

void first_use(const Call& call, int threads, int rounds) {
  const c10::OperatorHandle op = find_op(call.name);
  use_engine(call.engine);
  if (refused(op, call)) return;
  const Stack expected = run(op, fresh(op, call));
  for (int round = 0; round < rounds; ++round) {
    const Stack arguments = fresh(op, call);
    on_threads(threads, [&](int) { judge(call, run(op, arguments), expected); });
  }
}

struct Shared {
  const Call* call;
  c10::OperatorHandle op;
  Stack arguments;
  Stack expected;
};

void drop_packed(const std::vector<Shared>& calls, std::mt19937& random) {
  static const c10::OperatorHandle repack = find_op("_repack"), explain = find_op("_explain");
  const Shared& one = calls[random() % calls.size()];
  for (const c10::IValue& a : one.arguments) {
    if (!a.isTensor()) continue;
    run(explain, {a});
    run(repack, {a});
  }
}

void mixed(const std::vector<Call>& calls, int threads, int rounds) {
  use_engine("");
  std::vector<Shared> shared;
  for (const Call& call : calls) {
    const c10::OperatorHandle op = find_op(call.name);
    Stack arguments = fresh(op, call);
    Stack expected = run(op, fresh(op, call));
    shared.push_back({&call, op, std::move(arguments), std::move(expected)});
  }
  on_threads(threads, [&](int thread) {
    std::mt19937 random(static_cast<unsigned>(thread));
    for (int i = 0; i < rounds * static_cast<int>(shared.size()); ++i) {
      if (thread == 0 && i % 4 == 0) drop_packed(shared, random);
      const Shared& one = shared[random() % shared.size()];
      judge(*one.call, run(one.op, one.arguments), one.expected);
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "planted") == 0) {
    int64_t number = 0;
    int64_t* volatile where = &number;
    on_threads(2, [&](int thread) { *where = thread; });
    std::printf("planted: %ld\n", number);
    return 0;
  }
  if (argc != 4) return 2;
  at::set_num_threads(1);
  const std::vector<Call> calls = read_calls(argv[1]);
  const int threads = std::atoi(argv[2]), rounds = std::atoi(argv[3]);
  for (const Call& call : calls) first_use(call, threads, rounds);
  mixed(calls, threads, rounds);
  std::printf("op_race: %zu calls, %d threads, %d rounds: %ld wrong\n", calls.size(), threads, rounds,
              wrong.load());
  return wrong.load() > 0;
}
