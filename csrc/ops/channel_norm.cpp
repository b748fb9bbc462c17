#include "ops/channel_norm.h"

#include "ops/channels_last.h"

namespace tae {
namespace {

// Columns that one thread sums at a time.
constexpr int64_t kColumns = 64;

// Values of a channel above which a table of its 256 results is faster than the computation.
constexpr int64_t kTableValues = 1024;

bool is_channels_last(const at::Tensor& t, at::IntArrayRef strides) {
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1 && t.stride(d) != strides[d]) return false;
  return true;
}

// A channel of a sample that lies in one piece.
void apply_channel(const ChannelWork& w, int64_t row, float a, float b) {
  const int64_t at = row * w.i.inner;
  uint8_t* dst = w.i.dst + at * w.step();
  if (w.look_up == nullptr) {
    w.k.affine_all(w.finish, w.part_at(at), a, b, w.i.inner, dst);
    return;
  }
  alignas(64) uint8_t every[256], table[256];
  for (int v = 0; v < 256; ++v) every[v] = static_cast<uint8_t>(v);
  kernels::Operand all = w.operand;
  all.data = every;
  kernels::Finish finish = w.finish;
  finish.streams = false;
  w.k.affine_all(finish, all, a, b, 256, table);
  w.look_up(table, w.i.src + at, w.i.inner, dst);
}

// Positions [begin, end) of all samples, channels last.
void apply_positions(const ChannelWork& w, int64_t begin, int64_t end, const float* a, const float* b,
                     float* scratch) {
  const int64_t at = begin * w.i.channels;
  w.k.affine(w.finish, w.part_at(at), a, b, end - begin, w.i.channels, scratch, w.i.dst + at * w.step());
}

}  // namespace

ChannelImages channel_images(const char* op, const at::Tensor& input, at::ScalarType dtype) {
  const Arg arg{op, "input"};
  ChannelImages i;
  check_numel(arg, input.sizes(), c10::elementSize(dtype));
  if (input.is_contiguous()) {
    i.input = input;
    i.output = empty_output(arg, input.sizes(), dtype);
  } else {
    const Sizes strides = channels_last_strides(input.sizes());
    i.channels_last = is_channels_last(input, strides);
    i.input = i.channels_last ? input : dense(arg, input);
    i.output = i.channels_last ? empty_strided(arg, input.sizes(), strides, dtype)
                               : empty_output(arg, input.sizes(), dtype);
  }
  i.samples = input.size(0);
  i.channels = input.size(1);
  if (input.numel() == 0) return i;
  i.inner = input.numel() / (i.samples * i.channels);
  check_storage(arg, i.input);
  i.src = static_cast<const uint8_t*>(i.input.const_data_ptr());
  i.dst = static_cast<uint8_t*>(i.output.mutable_data_ptr());
  return i;
}

ChannelWork channel_work(const ChannelImages& i, const kernels::Operand& operand, const OutputFinish& out,
                         double* factor) {
  const kernels::LookupBytes look_up = kernels::lookup_bytes(best_isa());
  ChannelWork w{kernels::norm_kernels(best_isa()), i, operand, out.finish, nullptr};
  w.finish.streams = streams(i.output);
  if (!is_quantized(w.finish.dtype)) return w;
  if (is_quantized(operand.dtype) && i.inner >= kTableValues &&
      look_up != kernels::lookup_bytes(Isa::portable))
    w.look_up = look_up;
  if (kernels::folds(w.finish)) {
    *factor = static_cast<double>(w.finish.inverse_scale);
    w.finish.inverse_scale = 1.f;
  }
  return w;
}

void sum_channels(const ChannelWork& w, kernels::ByteSums* sums) {
  const ChannelImages& i = w.i;
  const DType dtype = w.operand.dtype;
  if (!i.channels_last) {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / i.inner);
    parallel_for(i.samples * i.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) w.k.sums(i.src + c * i.inner, dtype, i.inner, sums + c);
    });
    return;
  }
  const int64_t blocks = (i.channels + kColumns - 1) / kColumns;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (i.inner * kColumns));
  parallel_for(i.samples * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = b / blocks, first = b % blocks * kColumns;
      w.k.column_sums(i.src + n * i.inner * i.channels + first, dtype, i.inner, i.channels,
                      std::min(kColumns, i.channels - first), sums + n * i.channels + first);
    }
  });
}

void apply_channels(const Arg& arg, const ChannelWork& w, const float* a, const float* b, bool shared) {
  const ChannelImages& i = w.i;
  const int64_t next = shared ? 0 : i.channels;
  if (!i.channels_last) {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / i.inner);
    parallel_for(i.samples * i.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row / i.channels * next + row % i.channels;
        apply_channel(w, row, a[at], b[at]);
      }
    });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kElementGrain / i.channels);
  parallel_for(i.samples * i.inner, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch = make_vector<float>(arg, kernels::lane_floats(i.channels));
    for (int64_t row = begin; row < end;) {  // the rows of one sample at a time
      const int64_t stop = shared ? end : std::min(end, (row / i.inner + 1) * i.inner);
      const int64_t at = row / i.inner * next;
      apply_positions(w, row, stop, a + at, b + at, scratch.data());
      row = stop;
    }
  });
}

int64_t channel_pieces(const ChannelImages& i, const kernels::GroupNumbers& g) {
  return i.channels_last ? i.samples : i.samples * g.groups;
}

void normalize_pieces(const Arg& arg, const ChannelWork& w, const kernels::GroupNumbers& g) {
  const ChannelImages& i = w.i;
  const int64_t pieces = i.channels_last ? 1 : g.groups;  // of a sample
  const int64_t channels = g.channels / pieces;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (channels * i.inner));
  parallel_for(i.samples * pieces, grain, [&](int64_t begin, int64_t end) {
    kernels::GroupNumbers piece = g;  // of this thread: it moves from group to group
    piece.channels = channels;
    piece.groups = g.groups / pieces;
    std::vector<kernels::ByteSums> sums = make_vector<kernels::ByteSums>(arg, channels);
    std::vector<float> a = make_vector<float>(arg, channels), b = make_vector<float>(arg, channels);
    std::vector<float> scratch = make_vector<float>(arg, kernels::lane_floats(channels));
    for (int64_t p = begin; p < end; ++p) {
      const int64_t row = p * channels, first = row % g.channels;
      std::fill(sums.begin(), sums.end(), kernels::ByteSums());
      const uint8_t* src = i.src + row * i.inner;
      if (i.channels_last) {
        w.k.column_sums(src, w.operand.dtype, i.inner, channels, channels, sums.data());
      } else {
        for (int64_t c = 0; c < channels; ++c)
          w.k.sums(src + c * i.inner, w.operand.dtype, i.inner, sums.data() + c);
      }
      if (g.weight != nullptr) piece.weight = g.weight + first;
      if (g.bias != nullptr) piece.bias = g.bias + first;
      kernels::group_coefficients(piece, w.operand, sums.data(), a.data(), b.data());
      if (i.channels_last) {
        apply_positions(w, p * i.inner, (p + 1) * i.inner, a.data(), b.data(), scratch.data());
      } else {
        for (int64_t c = 0; c < channels; ++c) apply_channel(w, row + c, a[c], b[c]);
      }
    }
  });
}

}  // namespace tae
