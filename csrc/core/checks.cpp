#include "core/checks.h"

#include <xmmintrin.h>

#include <algorithm>
#include <cmath>

#include "core/fork.h"
#include "core/result_memory.h"

namespace tae {
namespace {

std::string join(DtypeList dtypes) {
  std::string text;
  size_t i = 0;
  for (at::ScalarType d : dtypes) {
    if (i > 0) text += i + 1 == dtypes.size() ? " or " : ", ";
    text += dtype_name(d);
    ++i;
  }
  return text;
}

std::string describe_place(const at::Tensor& t) {
  if (!t.defined()) return "None";
  if (t.is_nested()) return "a nested tensor";
  if (t.layout() != at::kStrided) return c10::str("a tensor of layout ", t.layout());
  return c10::str("a tensor on device ", t.device());
}

bool contains(DtypeList dtypes, at::ScalarType dtype) {
  for (at::ScalarType d : dtypes)
    if (d == dtype) return true;
  return false;
}

}  // namespace

std::string dtype_name(at::ScalarType dtype) {
  if (dtype == at::ScalarType::Undefined) return "undefined";
  try {
    return std::string(c10::getDtypeNames(dtype).first);
  } catch (const std::exception&) {  // a program may pass any number for a dtype
    return c10::str("dtype number ", static_cast<int>(dtype));
  }
}

void check_tensor(const Arg& arg, const at::Tensor& t, DtypeList dtypes) {
  const bool plain = t.defined() && t.is_cpu() && t.layout() == at::kStrided && !t.is_nested();
  TAE_CHECK_TYPE(plain, arg, "be a dense CPU tensor", describe_place(t));
  TAE_CHECK_TYPE(contains(dtypes, t.scalar_type()), arg, c10::str("have dtype ", join(dtypes)),
                 dtype_name(t.scalar_type()));
}

void check_dtype(const Arg& arg, at::ScalarType dtype, DtypeList dtypes) {
  TAE_CHECK_TYPE(contains(dtypes, dtype), arg, c10::str("be ", join(dtypes)), dtype_name(dtype));
}

void check_rank(const Arg& arg, const at::Tensor& t, int64_t rank) {
  TAE_CHECK_VALUE(t.dim() == rank, arg, c10::str("have ", rank, " dimensions"),
                  c10::str("sizes ", t.sizes()));
}

void check_min_rank(const Arg& arg, const at::Tensor& t, int64_t rank) {
  TAE_CHECK_VALUE(t.dim() >= rank, arg,
                  c10::str("have at least ", rank, rank == 1 ? " dimension" : " dimensions"),
                  c10::str("sizes ", t.sizes()));
}

void check_size(const Arg& arg, const at::Tensor& t, int64_t dim, int64_t size, const char* what) {
  const int64_t d = dim < 0 ? dim + t.dim() : dim;
  TAE_CHECK_VALUE(t.size(d) == size, arg, c10::str("have size(", dim, ") equal to ", what, " (", size, ")"),
                  t.size(d));
}

void check_same_sizes(const Arg& arg, const at::Tensor& t, at::IntArrayRef sizes, const char* what) {
  TAE_CHECK_VALUE(t.sizes() == sizes, arg, c10::str("have the sizes of ", what, " ", sizes),
                  c10::str("sizes ", t.sizes()));
}

void check_per_channel(const Arg& arg, const at::Tensor& t, int64_t channels) {
  const bool fits = t.dim() <= 1 && (t.numel() == 1 || t.numel() == channels);
  TAE_CHECK_VALUE(fits, arg, c10::str("have sizes [1] or [", channels, "]"), c10::str("sizes ", t.sizes()));
}

float nearest_float(double value) {
  constexpr unsigned kChanged = 0xe040;  // rounding mode, flush-to-zero, denormals-are-zero
  const unsigned mode = _mm_getcsr();
  if ((mode & kChanged) == 0) return static_cast<float>(value);
  _mm_setcsr(mode & ~kChanged);
  volatile double from = value;  // volatile: the conversion stays between the two switches
  volatile float rounded = static_cast<float>(from);
  _mm_setcsr(mode);
  return rounded;
}

float check_scale(const Arg& arg, double scale) {
  const float s = nearest_float(scale);
  TAE_CHECK_VALUE(std::isnormal(s) && s > 0.f, arg, "be a finite, normal float32 number above 0", scale);
  return s;
}

int32_t check_zero_point(const Arg& arg, int64_t zero_point, int64_t lo, int64_t hi) {
  TAE_CHECK_VALUE(zero_point >= lo && zero_point <= hi, arg, c10::str("be in [", lo, ", ", hi, "]"),
                  zero_point);
  return static_cast<int32_t>(zero_point);
}

double check_finite(const Arg& arg, double value) {
  TAE_CHECK_VALUE(std::isfinite(value), arg, "be finite", value);
  return value;
}

int64_t check_numel(const Arg& arg, at::IntArrayRef sizes, size_t element_size) {
  int64_t bytes = static_cast<int64_t>(element_size);
  int64_t numel = 1;
  bool overflow = false;
  bool empty = false;
  for (int64_t s : sizes) {
    empty = empty || s == 0;
    overflow = overflow || __builtin_mul_overflow(bytes, s, &bytes);
    numel = static_cast<int64_t>(static_cast<uint64_t>(numel) * static_cast<uint64_t>(s));
  }
  if (empty) return 0;
  TAE_CHECK_VALUE(!overflow, arg, "give an output of fewer than 2^63 bytes",
                  c10::str("output sizes ", sizes));
  return numel;
}

DType dtype_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return DType::f32;
    case at::kBFloat16:
      return DType::bf16;
    case at::kChar:
      return DType::qs8;
    case at::kByte:
      return DType::qu8;
    case at::kInt:
      return DType::s32;
    default:
      break;
  }
  TORCH_INTERNAL_ASSERT(false, "no engine dtype for ", dtype);
}

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return at::kFloat;
    case DType::bf16:
      return at::kBFloat16;
    case DType::qs8:
      return at::kChar;
    case DType::qu8:
      return at::kByte;
    case DType::s32:
      return at::kInt;
  }
  TORCH_INTERNAL_ASSERT(false);
}

void check_storage(const Arg& arg, const at::Tensor& t) {
  if (t.numel() == 0) return;  // needs no memory
  int64_t extent = 1;
  for (int64_t d = 0; d < t.dim(); ++d) extent += (t.size(d) - 1) * t.stride(d);
  const int64_t held = static_cast<int64_t>(t.storage().nbytes() / t.element_size());
  TAE_CHECK_VALUE(
      extent <= held - t.storage_offset(), arg,
      c10::str("have a storage of at least ", extent, " elements from its offset ", t.storage_offset()),
      c10::str("a storage of ", held, " elements"));
}

void raise_out_of_memory(const Arg& arg, at::IntArrayRef sizes) {
  TORCH_CHECK_WITH(OutOfMemoryError, false,
                   TAE_MESSAGE(arg, "need no more memory than there is", c10::str("sizes ", sizes)));
  TORCH_INTERNAL_ASSERT(false);
}

at::Tensor empty_output(const Arg& arg, at::IntArrayRef sizes, at::ScalarType dtype) {
  return allocate(arg, sizes, [&] { return new_tensor(sizes, dtype); });
}

bool expands(at::IntArrayRef from, at::IntArrayRef to) {
  if (from.size() > to.size()) return false;
  return std::equal(from.rbegin(), from.rend(), to.rbegin(),
                    [](int64_t size, int64_t wanted) { return size == 1 || size == wanted; });
}

bool is_aligned(const at::Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.storage().data()) % t.element_size() == 0;
}

at::Tensor dense(const Arg& arg, const at::Tensor& t) {
  if (t.is_contiguous() && is_aligned(t)) return t;
  if (t.numel() > 0) check_storage(arg, t);
  SerialAfterFork serial;  // the copy is torch's and may be parallel
  return allocate(arg, t.sizes(), [&] { return t.clone(at::MemoryFormat::Contiguous); });
}

RowView rows_of(const Arg& arg, const at::Tensor& t) {
  const int64_t dim = t.dim();
  const int64_t cols = t.size(dim - 1);
  RowView view;
  if (t.numel() == 0) {
    view.rows = cols == 0 ? 1 : 0;
    if (cols == 0)
      for (int64_t d = 0; d + 1 < dim; ++d) view.rows *= t.size(d);
    view.stride = cols;
    return view;
  }
  view.rows = t.numel() / cols;
  check_storage(arg, t);
  const bool aligned = is_aligned(t);
  if (aligned && t.is_contiguous()) {
    view.stride = cols;
    view.data = t.const_data_ptr();
    return view;
  }
  // Leading dimensions that step like one: the innermost of them with size > 1
  // gives the row stride, each outer one must continue it.
  bool mergeable = aligned && (t.stride(dim - 1) == 1 || cols == 1);
  int64_t stride = 0;
  int64_t next = 0;  // the stride that the next outer dimension must have
  for (int64_t d = dim - 2; d >= 0 && mergeable; --d) {
    if (t.size(d) == 1) continue;
    if (stride == 0) {
      stride = t.stride(d);
      mergeable = stride >= cols;
    } else {
      mergeable = t.stride(d) == next;
    }
    next = t.stride(d) * t.size(d);
  }
  if (!mergeable) {
    view.owner = dense(arg, t);
    view.stride = cols;
    view.data = view.owner.const_data_ptr();
    return view;
  }
  view.stride = stride == 0 ? cols : stride;
  view.data = t.const_data_ptr();
  return view;
}

}  // namespace tae
