#include "engines/input_rows.h"

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>

#include "core/parallel.h"
#include "core/poison.h"
#include "engines/output_rule.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

// A block above this size goes back to the system after the call.
constexpr size_t kKeepBytes = size_t{64} << 20;

uint8_t* allocate(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 64, bytes) != 0) throw std::bad_alloc();
  return static_cast<uint8_t*>(p);
}

struct Block {
  uint8_t* data = nullptr;
  size_t bytes = 0;
  bool busy = false;

  void release() {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
};

// Two: the caller's own and that of a share of its parallel region which runs on
// the calling thread.
thread_local Block blocks[2];
thread_local bool freed_at_exit = false;

// Not a destructor of a thread_local: glibc ends the process when it has no memory to
// note one.
class ThreadExit {
 public:
  ThreadExit() { valid_ = pthread_key_create(&key_, &free_blocks) == 0; }
  ~ThreadExit() {
    if (valid_) pthread_key_delete(key_);
  }
  void watch() {
    if (freed_at_exit) return;
    if (!valid_ || pthread_setspecific(key_, blocks) != 0) throw std::bad_alloc();
    freed_at_exit = true;
  }

 private:
  static void free_blocks(void* of_thread) {
    for (int i = 0; i < 2; ++i) static_cast<Block*>(of_thread)[i].release();
  }
  pthread_key_t key_{};
  bool valid_ = false;
};
ThreadExit thread_exit;

}  // namespace

ScratchMemory::ScratchMemory(size_t bytes) {
  for (int slot = 0; slot < 2; ++slot) {
    Block& block = blocks[slot];
    if (block.busy) continue;
    if (block.bytes < bytes) {
      thread_exit.watch();
      block.release();
      // A quarter more, so that slowly growing batches do not allocate each time.
      const size_t wanted = (bytes + bytes / 4 + 4095) / 4096 * 4096;
      block.data = allocate(wanted);
      block.bytes = wanted;
    }
    block.busy = true;
    poison(block.data, block.bytes);
    unpoison(block.data, bytes);
    data_ = block.data;
    slot_ = slot;
    return;
  }
  data_ = allocate(std::max<size_t>(bytes, 64));
}

ScratchMemory::~ScratchMemory() {
  if (slot_ < 0) {
    std::free(data_);
    return;
  }
  Block& block = blocks[slot_];
  block.busy = false;
  poison(block.data, block.bytes);
  if (block.bytes > kKeepBytes) block.release();
}

InputRows::InputRows(const LinearProblem& p)
    : kernels_(&kernels::row_kernels(best_isa())),
      k_(p.k),
      dynamic_(p.dynamic),
      full_(!p.dynamic_quant.symmetric && !p.dynamic_quant.reduce_range && !has_weight_zero_point(p)),
      rule_(p.dynamic_quant),
      dtype_(p.input_dtype),
      qparams_in_call_(p.qparams_in_call),
      scale_(p.input_scale),
      zero_point_(p.input_zero_point + (p.input_dtype == DType::qs8 ? 128 : 0)) {}

void InputRows::min_max(const LinearArgs& args, int64_t m, float* mn, float* mx) const {
  const int64_t offset = m * args.input_stride;
  if (dtype_ == DType::bf16)
    kernels_->min_max_bf16(static_cast<const uint16_t*>(args.input) + offset, k_, mn, mx);
  else
    kernels_->min_max_f32(static_cast<const float*>(args.input) + offset, k_, mn, mx);
}

InputRows::Call InputRows::begin(const LinearArgs& args) const {
  if (!dynamic_ || rule_.per_row) return {&args, {}};
  const kernels::DefaultFloatEnv env;
  return {&args, tensor_params(args)};
}

kernels::QParams InputRows::tensor_params(const LinearArgs& args) const {
  constexpr int64_t kElementsPerShare = 32768;  // about 3 us of reading
  float mn = 0.f, mx = 0.f;
  std::mutex mutex;
  parallel_for(args.m, std::max<int64_t>(1, kElementsPerShare / std::max<int64_t>(1, k_)),
               [&](int64_t begin, int64_t end) {
                 float low = 0.f, high = 0.f;
                 for (int64_t m = begin; m < end; ++m) {
                   float a, b;
                   min_max(args, m, &a, &b);
                   // A NaN range stays NaN: no comparison with it is true.
                   low = low <= a ? low : a;
                   high = high >= b ? high : b;
                   if (std::isnan(low)) break;
                 }
                 std::lock_guard<std::mutex> lock(mutex);
                 mn = std::isnan(mn) || mn <= low ? mn : low;
                 mx = std::isnan(mx) || mx >= high ? mx : high;
               });
  return kernels::tensor_qparams(mn, mx, rule_.symmetric, rule_.reduce_range);
}

kernels::RowParams InputRows::static_params(const LinearArgs& args) const {
  if (qparams_in_call_) return {args.input_scale, args.input_zero_point, 0};
  return {scale_, zero_point_, 0};
}

void InputRows::quantize(const Call& call, int64_t m, int64_t count, uint8_t* dst, int64_t dst_stride,
                         kernels::RowParams* params) const {
  const LinearArgs& args = *call.args;
  if (!dynamic_) {
    for (int64_t i = 0; i < count; ++i) params[i] = copy_row(args, m + i, dst + i * dst_stride, dst_stride);
    return;
  }
  const kernels::DefaultFloatEnv env;
  if (!rule_.per_row) {
    for (int64_t i = 0; i < count; ++i)
      params[i] = quantize_row(args, call.tensor, m + i, dst + i * dst_stride, dst_stride);
    return;
  }
  // Several rows a step: what a row's scale waits for (reductions, divisions) then runs
  // beside that of the others, and not before the row's values (1.7x at k = 384).
  constexpr int64_t kMostRows = 16, kInputBytes = 16 << 10;  // in half of L1
  const int64_t row_bytes = std::max<int64_t>(1, k_ * static_cast<int64_t>(size_of(dtype_)));
  const int64_t step = std::clamp<int64_t>(kInputBytes / row_bytes, 1, kMostRows);
  float low[kMostRows], high[kMostRows];
  for (int64_t i = 0; i < count; i += step) {
    const int64_t rows = std::min(step, count - i);
    for (int64_t j = 0; j < rows; ++j) min_max(args, m + i + j, low + j, high + j);
    kernels::QParams q[kMostRows];
    for (int64_t j = 0; j < rows; ++j)
      q[j] = kernels::row_qparams(low[j], high[j], rule_.symmetric, rule_.reduce_range);
    for (int64_t j = 0; j < rows; ++j)
      params[i + j] = quantize_row(args, q[j], m + i + j, dst + (i + j) * dst_stride, dst_stride);
  }
}

kernels::RowParams InputRows::copy_row(const LinearArgs& args, int64_t m, uint8_t* dst,
                                       int64_t dst_stride) const {
  const int64_t offset = m * args.input_stride;
  kernels::RowParams row = static_params(args);
  row.sum = dtype_ == DType::qs8
                ? kernels_->shift_s8(static_cast<const int8_t*>(args.input) + offset, k_, dst, dst_stride)
                : kernels_->copy_u8(static_cast<const uint8_t*>(args.input) + offset, k_, dst, dst_stride);
  return row;
}

kernels::RowParams InputRows::quantize_row(const LinearArgs& args, kernels::QParams q, int64_t m,
                                           uint8_t* dst, int64_t dst_stride) const {
  if (!std::isfinite(q.scale)) {
    std::memset(dst, 0, static_cast<size_t>(dst_stride));
    return {std::numeric_limits<float>::quiet_NaN(), 0, 0};
  }
  const int64_t offset = m * args.input_stride;
  const kernels::QRange range = kernels::dynamic_range(rule_.symmetric, rule_.reduce_range);
  kernels::RowParams row{q.scale, q.zero_point + range.shift, 0};
  const int32_t lo = range.lo + range.shift, hi = range.hi + range.shift;
  const float inverse = 1.f / q.scale;
  if (full_) {
    if (dtype_ == DType::bf16)
      kernels_->quantize_full_bf16(static_cast<const uint16_t*>(args.input) + offset, k_, inverse,
                                   row.zero_point, dst, dst_stride);
    else
      kernels_->quantize_full_f32(static_cast<const float*>(args.input) + offset, k_, inverse, row.zero_point,
                                  dst, dst_stride);
    return row;
  }
  row.sum = dtype_ == DType::bf16
                ? kernels_->quantize_bf16(static_cast<const uint16_t*>(args.input) + offset, k_, inverse,
                                          row.zero_point, lo, hi, dst, dst_stride)
                : kernels_->quantize_f32(static_cast<const float*>(args.input) + offset, k_, inverse,
                                         row.zero_point, lo, hi, dst, dst_stride);
  return row;
}

}  // namespace tae
