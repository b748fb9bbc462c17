// The error contract of every op: `torch_ao::op: argument 'name' must <rule>, got
// <value>`, as TypeError (dtype, device, layout), ValueError (sizes, numbers,
// names), IndexError (positions) or NotImplementedError (no engine).
//
// Spans are the only way to a data pointer: they compare the size that a kernel
// will read with what the tensor and its storage hold, once.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "core/dtype.h"
#include "core/torch_api.h"

namespace tae {

// Which argument of which op is under check. Both are string literals.
struct Arg {
  const char* op;
  const char* name;
};

#define TAE_MESSAGE(arg, rule, got) \
  "torch_ao::", (arg).op, ": argument '", (arg).name, "' must ", rule, ", got ", got

// `rule` and `got` are evaluated only when the check fails; join parts with
// c10::str().
#define TAE_CHECK_TYPE(cond, arg, rule, got) TORCH_CHECK_TYPE(cond, TAE_MESSAGE(arg, rule, got))
#define TAE_CHECK_VALUE(cond, arg, rule, got) TORCH_CHECK_VALUE(cond, TAE_MESSAGE(arg, rule, got))
#define TAE_CHECK_INDEX(cond, arg, rule, got) TORCH_CHECK_INDEX(cond, TAE_MESSAGE(arg, rule, got))

// Whether an optional tensor argument was given.
inline bool present(const std::optional<at::Tensor>& t) { return t.has_value() && t->defined(); }

using DtypeList = std::initializer_list<at::ScalarType>;

// "uint8", "float32": the names without "torch."
std::string dtype_name(at::ScalarType dtype);

// A defined, dense, plain CPU tensor of one of these dtypes; TypeError.
void check_tensor(const Arg& arg, const at::Tensor& t, DtypeList dtypes);
// The same for an op's dtype argument.
void check_dtype(const Arg& arg, at::ScalarType dtype, DtypeList dtypes);

void check_rank(const Arg& arg, const at::Tensor& t, int64_t rank);
void check_min_rank(const Arg& arg, const at::Tensor& t, int64_t rank);
// `what` says where the wanted size comes from: "input.size(-1)".
void check_size(const Arg& arg, const at::Tensor& t, int64_t dim, int64_t size, const char* what);
void check_same_sizes(const Arg& arg, const at::Tensor& t, at::IntArrayRef sizes, const char* what);
// One value for all channels or one for each: [1], [] or [channels].
void check_per_channel(const Arg& arg, const at::Tensor& t, int64_t channels);

// Rounded to nearest, whatever rounding mode and flush-to-zero state the thread has.
float nearest_float(double value);

// A real scale as every engine needs it: a normal f32 above 0.
float check_scale(const Arg& arg, double scale);
int32_t check_zero_point(const Arg& arg, int64_t zero_point, int64_t lo, int64_t hi);
double check_finite(const Arg& arg, double value);

// Product of sizes, or ValueError before anything is allocated.
int64_t check_numel(const Arg& arg, at::IntArrayRef sizes, size_t element_size);

DType dtype_of(at::ScalarType dtype);  // of checked tensors only
at::ScalarType scalar_type_of(DType dtype);

// Pointer and count that were compared with the tensor.
template <typename T>
class Span {
 public:
  Span() = default;
  Span(T* data, int64_t size) : data_(data), size_(size) {}
  // For a kernel that reads `count` elements; a smaller span is a bug of the op.
  T* first(int64_t count) const {
    TORCH_INTERNAL_ASSERT(count <= size_, "span of ", size_, " elements, ", count, " wanted");
    return data_;
  }
  T& operator[](int64_t i) const { return data_[i]; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Raises unless the tensor's elements lie inside its storage: storage.resize_() can
// shrink it under a tensor. numel() > 0.
void check_storage(const Arg& arg, const at::Tensor& t);

// Runs `make`, which does nothing but allocate a tensor of these sizes and copy into it;
// no memory is an OutOfMemoryError in the words of the contract.
[[noreturn]] void raise_out_of_memory(const Arg& arg, at::IntArrayRef sizes);
template <typename Make>
at::Tensor allocate(const Arg& arg, at::IntArrayRef sizes, const Make& make) {
  try {
    return make();
  } catch (const c10::Error&) {
  } catch (const std::bad_alloc&) {
  }
  raise_out_of_memory(arg, sizes);
}
// A buffer with an element for each of `count` that the caller asked for.
template <typename T>
std::vector<T> make_vector(const Arg& arg, int64_t count) {
  try {
    return std::vector<T>(count);
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  raise_out_of_memory(arg, count);
}
// A contiguous result of checked sizes, not initialized.
at::Tensor empty_output(const Arg& arg, at::IntArrayRef sizes, at::ScalarType dtype);

// Whether a tensor of sizes `from` expands to `to`: dimensions of size 1 repeat, leading ones may be missing.
bool expands(at::IntArrayRef from, at::IntArrayRef to);

// Whether elements lie at multiples of their size. torch.frombuffer gives tensors at any address.
bool is_aligned(const at::Tensor& t);

// The tensor itself when contiguous and aligned, else such a copy.
at::Tensor dense(const Arg& arg, const at::Tensor& t);

// All elements of a contiguous tensor.
template <typename T>
Span<const T> span_of(const Arg& arg, const at::Tensor& t) {
  TORCH_INTERNAL_ASSERT(t.is_contiguous() && sizeof(T) == t.element_size());
  if (t.numel() == 0) return {};
  check_storage(arg, t);
  return {static_cast<const T*>(t.const_data_ptr()), t.numel()};
}

// All bytes of a contiguous tensor.
inline Span<const uint8_t> bytes_of(const Arg& arg, const at::Tensor& t) {
  TORCH_INTERNAL_ASSERT(t.is_contiguous());
  if (t.numel() == 0) return {};
  check_storage(arg, t);
  return {static_cast<const uint8_t*>(t.const_data_ptr()),
          t.numel() * static_cast<int64_t>(t.element_size())};
}

// A fresh output that nobody else has seen.
inline Span<uint8_t> output_bytes(const at::Tensor& t) {
  TORCH_INTERNAL_ASSERT(t.is_contiguous());
  return {static_cast<uint8_t*>(t.mutable_data_ptr()), t.numel() * static_cast<int64_t>(t.element_size())};
}

// [*, cols] as [rows][cols] with one row stride and contiguous elements.
struct RowView {
  at::Tensor owner;  // keeps a copy alive when the layout needed one
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;  // in elements, >= cols
};
RowView rows_of(const Arg& arg, const at::Tensor& t);

}  // namespace tae
