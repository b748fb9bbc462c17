// Whole sequences through int8 LSTM, GRU and RNN layers; formulas, quantization rules and
// every rounding are in engines/rnn.h.
//
// input [T, N, K] float32 or bfloat16, or packed [rows, K] with batch_sizes [T] (as in
// PackedSequence: descending, sum = rows). h0, c0 [layers * directions, N, ...]; None is
// zeros. weights: for each layer and direction W_ih [G*H, K], W_hh [G*H, R] (and W_hr [R, H]),
// int8 and int16, or all bfloat16 (int8 without per_row); a float32 scale [1] or [rows] for
// each; biases b_ih, b_hh float32 or none.
// Output [T, N, directions * R] (packed: [rows, ...]) and the final states, input's dtype.
#include "core/autograd.h"
#include "ops/rnn_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;

std::tuple<Tensor, Tensor, Tensor> lstm(const Tensor& input, const OptTensor& batch_sizes,
                                        const OptTensor& h0, const OptTensor& c0, at::TensorList weights,
                                        at::TensorList scales, at::TensorList biases, int64_t num_layers,
                                        bool bidirectional, bool per_row, bool reduce_range) {
  const RnnRule rule{per_row, reduce_range};
  RnnResult r = run_rnn({"lstm", RnnKind::lstm, weights, scales, biases, num_layers, bidirectional, rule},
                        input, batch_sizes, h0, c0);
  return {r.y, r.h, r.c};
}

std::tuple<Tensor, Tensor> gru(const Tensor& input, const OptTensor& batch_sizes, const OptTensor& h0,
                               at::TensorList weights, at::TensorList scales, at::TensorList biases,
                               int64_t num_layers, bool bidirectional, bool per_row, bool reduce_range) {
  const RnnRule rule{per_row, reduce_range};
  RnnResult r = run_rnn({"gru", RnnKind::gru, weights, scales, biases, num_layers, bidirectional, rule},
                        input, batch_sizes, h0, std::nullopt);
  return {r.y, r.h};
}

std::tuple<Tensor, Tensor> rnn(const Tensor& input, const OptTensor& batch_sizes, const OptTensor& h0,
                               at::TensorList weights, at::TensorList scales, at::TensorList biases,
                               int64_t num_layers, bool bidirectional, std::string_view nonlinearity,
                               bool per_row, bool reduce_range) {
  const RnnKind kind = rnn_kind_of("rnn", nonlinearity);
  const RnnRule rule{per_row, reduce_range};
  RnnResult r = run_rnn({"rnn", kind, weights, scales, biases, num_layers, bidirectional, rule}, input,
                        batch_sizes, h0, std::nullopt);
  return {r.y, r.h};
}

// Packs as the first call with these weights would.
void prepack(std::string_view kind, at::TensorList weights, at::TensorList scales, at::TensorList biases,
             int64_t num_layers, bool bidirectional, std::optional<at::ScalarType> input_dtype, bool per_row,
             bool reduce_range) {
  const char* op = "_prepack_rnn";
  const at::ScalarType dtype = input_dtype.value_or(at::kFloat);
  check_dtype({op, "input_dtype"}, dtype, {at::kFloat, at::kBFloat16});
  const bool plain = kind == "tanh" || kind == "relu";
  TAE_CHECK_VALUE(plain || kind == "lstm" || kind == "gru", (Arg{op, "kind"}),
                  "be 'lstm', 'gru', 'tanh' or 'relu'", c10::str("'", kind, "'"));
  const RnnKind k = plain ? rnn_kind_of(op, kind) : kind == "lstm" ? RnnKind::lstm : RnnKind::gru;
  prepack_rnn({op, k, weights, scales, biases, num_layers, bidirectional, {per_row, reduce_range}}, dtype);
}

// Under a fake or meta tensor there is nothing to pack.
void prepack_meta(std::string_view, at::TensorList, at::TensorList, at::TensorList, int64_t, bool,
                  std::optional<at::ScalarType>, bool, bool) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "lstm(Tensor input, Tensor? batch_sizes, Tensor? h0, Tensor? c0, Tensor[] weights, "
      "Tensor[] weight_scales, Tensor[] biases, int num_layers=1, bool bidirectional=False, "
      "bool per_row=True, bool reduce_range=False) -> (Tensor, Tensor, Tensor)");
  m.def(
      "gru(Tensor input, Tensor? batch_sizes, Tensor? h0, Tensor[] weights, Tensor[] weight_scales, "
      "Tensor[] biases, int num_layers=1, bool bidirectional=False, bool per_row=True, "
      "bool reduce_range=False) -> (Tensor, Tensor)");
  m.def(
      "rnn(Tensor input, Tensor? batch_sizes, Tensor? h0, Tensor[] weights, Tensor[] weight_scales, "
      "Tensor[] biases, int num_layers=1, bool bidirectional=False, str nonlinearity='tanh', "
      "bool per_row=True, bool reduce_range=False) -> (Tensor, Tensor)");
  m.def(
      "_prepack_rnn(str kind, Tensor[] weights, Tensor[] weight_scales, Tensor[] biases, "
      "int num_layers=1, bool bidirectional=False, ScalarType? input_dtype=None, "
      "bool per_row=True, bool reduce_range=False) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("lstm", TORCH_FN(lstm));
  m.impl("gru", TORCH_FN(gru));
  m.impl("rnn", TORCH_FN(rnn));
  m.impl("_prepack_rnn", TORCH_FN(prepack));
}

TORCH_LIBRARY_IMPL(torch_ao, Meta, m) { m.impl("_prepack_rnn", TORCH_FN(prepack_meta)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("lstm", TORCH_FN((InferenceOnly<"lstm", lstm>::call)));
  m.impl("gru", TORCH_FN((InferenceOnly<"gru", gru>::call)));
  m.impl("rnn", TORCH_FN((InferenceOnly<"rnn", rnn>::call)));
  m.impl("_prepack_rnn", TORCH_FN((InferenceOnly<"_prepack_rnn", prepack>::call)));
}

}  // namespace tae
