// A value or the reason why there is none. Engines answer with it instead of
// throwing: "cannot" is an answer, not an error.
#pragma once

#include <sstream>
#include <string>
#include <utility>

namespace tae {

struct Refusal {
  std::string reason;
};

template <typename... Parts>
Refusal refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return {text.str()};
}

template <typename T>
class Result {
 public:
  Result(T value) : value_(std::move(value)), ok_(true) {}
  Result(Refusal refusal) : reason_(std::move(refusal.reason)) {}

  explicit operator bool() const { return ok_; }
  T& value() { return value_; }
  const std::string& reason() const { return reason_; }

 private:
  T value_{};
  std::string reason_;
  bool ok_ = false;
};

}  // namespace tae
