// Bugs that the sanitizers must report, one for each kind: the control of test/sanitizers/run.py.
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <thread>

extern "C" {

int heap_overrun() {
  const volatile char* const block = static_cast<char*>(std::calloc(10, 1));
  return block[10];
}

int use_after_free() {
  volatile char* const block = static_cast<char*>(std::calloc(10, 1));
  std::free(const_cast<char*>(block));
  return block[3];
}

int signed_overflow() {
  volatile int most = INT_MAX;
  return most + 1;
}

int race() {
  volatile int number = 0;
  std::thread other([&number] { number = 1; });
  number = 2;
  other.join();
  return number;
}

}  // extern "C"
