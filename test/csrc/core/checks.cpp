#include "core/checks.h"

#include <ATen/ops/from_blob.h>

#undef CHECK  // c10's
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>
#include <limits>

#include "core/qparams.h"

using Catch::Matchers::ContainsSubstring;
using namespace tae;

namespace {

const Arg kArg{"linear", "input"};

at::Tensor make(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  at::Tensor t = at::detail::empty_cpu(sizes, dtype);
  t.zero_();
  return t;
}

// The text of the error, without the backtrace; empty when none was thrown.
template <typename Error, typename Call>
std::string error_text(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what_without_backtrace();
  }
  return "";
}

}  // namespace

TEST_CASE("checks: dtype, layout and undefined tensors are TypeErrors") {
  check_tensor(kArg, make({2}), {at::kFloat});
  CHECK(error_text<c10::TypeError>([] { check_tensor(kArg, make({2}), {at::kByte, at::kChar}); }) ==
        "torch_ao::linear: argument 'input' must have dtype uint8 or int8, got float32");
  CHECK(error_text<c10::TypeError>([] { check_tensor(kArg, at::Tensor(), {at::kFloat}); }) ==
        "torch_ao::linear: argument 'input' must be a dense CPU tensor, got None");
  CHECK(error_text<c10::TypeError>([] { check_dtype(kArg, at::kLong, {at::kFloat, at::kBFloat16}); }) ==
        "torch_ao::linear: argument 'input' must be float32 or bfloat16, got int64");
}

TEST_CASE("checks: every dtype has a name") {
  for (int i = 0; i < static_cast<int>(at::ScalarType::NumOptions); ++i)
    CHECK_FALSE(dtype_name(static_cast<at::ScalarType>(i)).empty());
  CHECK(dtype_name(at::kBFloat16) == "bfloat16");
}

TEST_CASE("checks: sizes are ValueErrors that name both numbers") {
  const at::Tensor t = make({2, 3});
  CHECK(error_text<c10::ValueError>([&] { check_rank(kArg, t, 1); }) ==
        "torch_ao::linear: argument 'input' must have 1 dimensions, got sizes [2, 3]");
  CHECK(error_text<c10::ValueError>([&] { check_min_rank(kArg, t, 3); }) ==
        "torch_ao::linear: argument 'input' must have at least 3 dimensions, got sizes [2, 3]");
  CHECK(error_text<c10::ValueError>([&] { check_size(kArg, t, -1, 4, "weight.size(1)"); }) ==
        "torch_ao::linear: argument 'input' must have size(-1) equal to weight.size(1) (4), got 3");
  CHECK(error_text<c10::ValueError>([&] { check_same_sizes(kArg, t, {2, 4}, "the output"); }) ==
        "torch_ao::linear: argument 'input' must have the sizes of the output [2, 4], got sizes [2, 3]");
  CHECK(error_text<c10::ValueError>([&] { check_per_channel(kArg, make({3}), 2); }) ==
        "torch_ao::linear: argument 'input' must have sizes [1] or [2], got sizes [3]");
  check_per_channel(kArg, make({1}), 2);
  check_per_channel(kArg, make({}), 2);
  check_per_channel(kArg, make({2}), 2);
}

TEST_CASE("checks: scales are normal float32 numbers above 0") {
  using Limits = std::numeric_limits<float>;
  for (double s : {1.0, static_cast<double>(Limits::min()), static_cast<double>(Limits::max())})
    CHECK(check_scale(kArg, s) == static_cast<float>(s));
  const double inf = std::numeric_limits<double>::infinity();
  for (double s : {0.0, -1.0, inf, -inf, std::nan(""), 1e-39, 1e39, 5e-324})
    CHECK_FALSE(error_text<c10::ValueError>([&] { check_scale(kArg, s); }).empty());
  CHECK(check_zero_point(kArg, -128, -128, 127) == -128);
  CHECK(error_text<c10::ValueError>([] { check_zero_point(kArg, int64_t{1} << 40, 0, 255); }) ==
        "torch_ao::linear: argument 'input' must be in [0, 255], got 1099511627776");
}

TEST_CASE("checks: element counts do not overflow") {
  CHECK(check_numel(kArg, {3, 5}, 4) == 15);
  CHECK(check_numel(kArg, {}, 4) == 1);
  CHECK(check_numel(kArg, {int64_t{1} << 62, 0, int64_t{1} << 62}, 4) == 0);
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{int64_t{1} << 62}, {int64_t{1} << 32, int64_t{1} << 31}})
    CHECK_THAT(error_text<c10::ValueError>([&] { check_numel(kArg, sizes, 4); }),
               ContainsSubstring("fewer than 2^63 bytes"));
}

TEST_CASE("checks: spans end where the storage ends") {
  at::Tensor t = make({4, 6}, at::kByte);
  CHECK(span_of<uint8_t>(kArg, t).size() == 24);
  CHECK_THROWS_AS(span_of<uint8_t>(kArg, t).first(25), c10::Error);
  CHECK_THROWS_AS(span_of<float>(kArg, t), c10::Error);

  // A view with an offset reaches exactly the end; then the storage shrinks under it.
  const at::Tensor tail = t.slice(0, 2);
  const at::Tensor turned = tail.t();
  CHECK(span_of<uint8_t>(kArg, tail).size() == 12);
  t.storage().unsafeGetStorageImpl()->set_nbytes(23);
  CHECK_THAT(error_text<c10::ValueError>([&] { span_of<uint8_t>(kArg, tail); }),
             ContainsSubstring("storage of at least 12 elements from its offset 12, got a storage of 23"));
  CHECK_FALSE(error_text<c10::ValueError>([&] { rows_of(kArg, tail); }).empty());
  CHECK_FALSE(error_text<c10::ValueError>([&] { dense(kArg, turned); }).empty());
  CHECK(span_of<uint8_t>(kArg, make({0, 6}, at::kByte)).size() == 0);
}

TEST_CASE("checks: rows keep their memory when one stride describes them") {
  const at::Tensor t = make({3, 4, 10});
  const auto shares = [&](const at::Tensor& v) {
    const RowView rows = rows_of(kArg, v);
    CHECK(rows.rows == v.numel() / v.size(-1));
    CHECK(rows.stride >= v.size(-1));
    return rows.data == v.const_data_ptr();
  };
  CHECK(shares(t));
  CHECK(rows_of(kArg, t).stride == 10);
  CHECK(shares(t.slice(2, 0, 7)));
  CHECK(rows_of(kArg, t.slice(2, 0, 7)).stride == 10);
  CHECK(shares(t.slice(1, 1, 2)));
  CHECK(rows_of(kArg, t.slice(1, 1, 2)).stride == 40);
  CHECK_FALSE(shares(t.slice(1, 0, 3)));
  CHECK_FALSE(shares(t.slice(2, 0, 10, 2)));
  CHECK_FALSE(shares(t.transpose(0, 1)));
  CHECK_FALSE(shares(t.select(0, 0).select(0, 0).expand({5, 10})));
  CHECK(rows_of(kArg, make({2, 0})).rows == 2);
  CHECK(rows_of(kArg, make({0, 5})).rows == 0);
}

TEST_CASE("checks: tensors at odd addresses are copied") {
  std::vector<char> memory(4 * 12 + 1);
  const at::Tensor base = make({3, 4});
  for (int i = 0; i < 12; ++i) base.mutable_data_ptr<float>()[i] = static_cast<float>(i);
  std::memcpy(memory.data() + 1, base.const_data_ptr(), 48);
  const at::Tensor odd = at::from_blob(memory.data() + 1, {3, 4}, at::kFloat);
  REQUIRE(!is_aligned(odd));
  const at::Tensor copy = dense({"op", "x"}, odd);
  CHECK(is_aligned(copy));
  CHECK(std::memcmp(copy.const_data_ptr(), base.const_data_ptr(), 48) == 0);
  CHECK(dense({"op", "x"}, base).is_same(base));
  const RowView rows = rows_of({"op", "x"}, odd);
  CHECK(rows.owner.defined());
  CHECK(rows.stride == 4);
  CHECK(reinterpret_cast<uintptr_t>(rows.data) % 4 == 0);
}

TEST_CASE("qparams: values are read through any strides, errors name the position") {
  at::Tensor scales = make({3, 2}).fill_(0.5);
  CHECK(scale_values(kArg, scales.select(1, 1)) == std::vector<float>{0.5f, 0.5f, 0.5f});
  scales[2][1].fill_(-1.0);
  CHECK_THAT(error_text<c10::ValueError>([&] { scale_values(kArg, scales.select(1, 1)); }),
             ContainsSubstring("got -1 at position 2"));
  const at::Tensor zp = make({2}, at::kLong).fill_(7);
  CHECK(zero_point_values(kArg, zp, 0, 255) == std::vector<int32_t>{7, 7});
  CHECK_THAT(error_text<c10::ValueError>([&] { zero_point_values(kArg, zp, 0, 6); }),
             ContainsSubstring("must hold values in [0, 6], got 7 at position 0"));
  CHECK(scale_value(kArg, make({}).fill_(2)) == 2.0);
  CHECK_THAT(error_text<c10::ValueError>([&] { scale_value(kArg, make({2})); }),
             ContainsSubstring("must have 1 element, got sizes [2]"));
  CHECK(check_bounds("op", -128, 127, DType::qs8).lo == -128);
  CHECK_THAT(error_text<c10::ValueError>([] { check_bounds("op", 5, 4, DType::qu8); }),
             ContainsSubstring("argument 'quant_max' must be in [quant_min, 255] = [5, 255], got 4"));
}
