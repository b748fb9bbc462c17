// What stands around each check in the library of mutants; check_sites.py writes it there.
#pragma once

#include <cstdint>
#include <exception>

namespace tae::mutants {

// Whether this check does nothing: it is the one that is deleted, or runs inside of that one.
bool skipped(uint32_t site);
// Runs in place of the deleted check, and does nothing. Where a raise ends a function, a compiler that
// saw no call on the other way would take the switch for a constant.
void left_out();
// Notes that a check raised.
void fired(uint32_t site);
// Begins (1) or ends (-1) a part of this thread in which every check does nothing.
void skip_all(int change);
// Whether it is the deleted one.
bool chosen(uint32_t site);

class Watch {
 public:
  explicit Watch(uint32_t site) : site_(site), before_(std::uncaught_exceptions()) {}
  Watch(const Watch&) = delete;
  ~Watch() {
    if (std::uncaught_exceptions() > before_) fired(site_);
  }

 private:
  uint32_t site_;
  int before_;
};

// Lives as long as the expression that uses the value of a check.
class Call {
 public:
  explicit Call(uint32_t site) : watch_(site), skips_(chosen(site)) { skip_all(skips_); }
  Call(const Call&) = delete;
  ~Call() { skip_all(-static_cast<int>(skips_)); }

 private:
  Watch watch_;
  bool skips_;
};

}  // namespace tae::mutants
