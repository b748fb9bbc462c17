#include "ops/memory_format.h"

#include <algorithm>

#include "core/result_memory.h"
#include "kernels/transpose.h"
#include "ops/channels_last.h"

namespace tae {
namespace {

constexpr int64_t kChannels = 16;  // of a block
constexpr int64_t kPixels = 256;

Sizes contiguous_strides(at::IntArrayRef sizes) {
  Sizes strides(sizes.size(), 1);
  uint64_t step = 1;  // of an empty tensor it may wrap
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = static_cast<int64_t>(step);
    step *= std::max<uint64_t>(static_cast<uint64_t>(sizes[d]), 1);
  }
  return strides;
}

}  // namespace

Formatted::Formatted(const char* op, const at::Tensor& input, at::ScalarType dtype,
                     std::optional<at::MemoryFormat> format) {
  const Arg arg{op, "input"};
  src_size_ = size_of_element(input);
  dst_size_ = static_cast<int64_t>(c10::elementSize(dtype));
  if (!format || *format == at::MemoryFormat::Preserve) {
    e_ = elementwise(arg, input, dtype);
  } else {
    set_order(arg, input, dtype, *format);
  }
}

void Formatted::set_order(const Arg& arg, const at::Tensor& input, at::ScalarType dtype,
                          at::MemoryFormat format) {
  const bool known = format == at::MemoryFormat::Contiguous || format == at::MemoryFormat::ChannelsLast ||
                     format == at::MemoryFormat::ChannelsLast3d;
  TAE_CHECK_VALUE(known, (Arg{arg.op, "memory_format"}),
                  "be contiguous_format, preserve_format, channels_last or channels_last_3d",
                  static_cast<int64_t>(format));
  const bool last = format != at::MemoryFormat::Contiguous;
  const int64_t rank = input.dim();
  if (last)
    TAE_CHECK_VALUE(format == at::MemoryFormat::ChannelsLast3d ? rank == 5 : rank >= 3 && rank <= 5, arg,
                    format == at::MemoryFormat::ChannelsLast3d
                        ? "have 5 dimensions with memory_format=torch.channels_last_3d"
                        : "have 3 to 5 dimensions with memory_format=torch.channels_last",
                    c10::str("sizes ", input.sizes()));
  check_numel(arg, input.sizes(), static_cast<size_t>(dst_size_));
  const bool moves = rank >= 3 && (last ? dst_size_ : src_size_) == 1;  // bytes alone are transposed
  const Sizes plain = contiguous_strides(input.sizes());
  const Sizes wanted = last ? channels_last_strides(input.sizes()) : plain;
  at::Tensor source = input;
  if (input.numel() > 0 && !lies_as(input, wanted)) {
    check_storage(arg, input);
    if (moves && lies_as(input, last ? plain : channels_last_strides(input.sizes()))) {
      move_ = last ? Move::to_channels_last : Move::from_channels_last;
      channels_ = input.size(1);
      pixels_ = input.numel() / input.size(0) / channels_;
    } else {
      source = copy_as(arg, input, wanted);
    }
  }
  e_ = as_they_lie(arg, source, empty_strided(arg, input.sizes(), wanted, dtype));
}

void Formatted::for_runs(c10::function_ref<void(const Run&)> body) const {
  if (e_.numel == 0) return;
  if (move_ == Move::none) {
    parallel_for(e_.numel, kElementGrain, [&](int64_t begin, int64_t end) {
      body({e_.src + begin * src_size_, e_.dst + begin * dst_size_, end - begin});
    });
    return;
  }
  const int64_t grain = std::max(kChannels, kElementGrain / channels_);
  parallel_for(e_.numel / channels_, grain, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end;) {
      const int64_t count = std::min({end - first, pixels_ - first % pixels_, kPixels});
      if (move_ == Move::to_channels_last) {
        to_channels_last(first, count, end, body);
      } else {
        from_channels_last(first, count, body);
      }
      first += count;
    }
  });
}

// `count` pixels of one sample from pixel `first` of all on; the thread's own end at `end`.
void Formatted::to_channels_last(int64_t first, int64_t count, int64_t end,
                                 c10::function_ref<void(const Run&)> body) const {
  alignas(64) uint8_t bytes[kChannels * kPixels];
  const int64_t sample = first / pixels_, pixel = first % pixels_;
  const auto move_channels = [&](int64_t channel, int64_t channels) {
    for (int64_t i = 0; i < channels; ++i) {
      const int64_t at = (sample * channels_ + channel + i) * pixels_ + pixel;
      body({e_.src + at * src_size_, bytes + i * count, count});
    }
    kernels::transpose_bytes({bytes, channels, count}, 0, count,
                             {e_.dst + first * channels_ + channel, channels_, e_.dst + end * channels_});
  };
  // The last channels first: bytes behind them are written too.
  const int64_t whole = channels_ / kChannels * kChannels;
  if (whole < channels_) move_channels(whole, channels_ - whole);
  for (int64_t c = 0; c < whole; c += kChannels) move_channels(c, kChannels);
}

void Formatted::from_channels_last(int64_t first, int64_t count,
                                   c10::function_ref<void(const Run&)> body) const {
  alignas(64) uint8_t bytes[kChannels * kPixels];
  const int64_t sample = first / pixels_, pixel = first % pixels_;
  const kernels::ByteRows matrix = {e_.src + first * channels_, count, channels_};
  for (int64_t c = 0; c < channels_; c += kChannels) {
    const int64_t channels = std::min(kChannels, channels_ - c);
    kernels::transpose_bytes(matrix, c, c + channels, {bytes, count, bytes + sizeof(bytes)});
    for (int64_t i = 0; i < channels; ++i) {
      const int64_t at = (sample * channels_ + c + i) * pixels_ + pixel;
      body({bytes + i * count, e_.dst + at * dst_size_, count});
    }
  }
}

}  // namespace tae
