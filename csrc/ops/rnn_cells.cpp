// One step: the sequence ops with T = 1 and 2-D tensors. input [N, K], h [N, H], c [N, H].
#include "core/autograd.h"
#include "ops/rnn_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;

struct CellWeights {
  const Tensor& weight_ih;
  const Tensor& scale_ih;
  const Tensor& weight_hh;
  const Tensor& scale_hh;
  const OptTensor& bias_ih;
  const OptTensor& bias_hh;
  RnnRule rule;
};

constexpr RnnNames kNames = {
    .weights = {"weight_ih", "weight_hh"},
    .scales = {"weight_ih_scale", "weight_hh_scale"},
    .biases = {"bias_ih", "bias_hh"},
    .h = "h",
    .c = "c",
    .rows = "weight_ih.size(0)",
    .columns = "weight_ih.size(1)",
};

RnnResult step(const char* op, RnnKind kind, const Tensor& input, const OptTensor& h, const OptTensor& c,
               const CellWeights& w) {
  TAE_CHECK_VALUE(present(w.bias_ih) == present(w.bias_hh), (Arg{op, "bias_hh"}),
                  "be given with bias_ih, or both None", present(w.bias_hh) ? "a tensor" : "None");
  const Tensor weights[] = {w.weight_ih, w.weight_hh}, scales[] = {w.scale_ih, w.scale_hh};
  std::vector<Tensor> biases;
  if (present(w.bias_ih)) biases = {*w.bias_ih, *w.bias_hh};
  RnnResult r = run_rnn({op, kind, weights, scales, biases, 1, false, w.rule, kNames, /*one_step=*/true},
                        input, std::nullopt, h, c);
  r.h = r.h.squeeze(0);
  if (r.c.defined()) r.c = r.c.squeeze(0);
  return r;
}

std::tuple<Tensor, Tensor> lstm_cell(const Tensor& input, const OptTensor& h, const OptTensor& c,
                                     const Tensor& weight_ih, const Tensor& scale_ih, const Tensor& weight_hh,
                                     const Tensor& scale_hh, const OptTensor& bias_ih,
                                     const OptTensor& bias_hh, bool per_row, bool reduce_range) {
  const RnnResult r =
      step("lstm_cell", RnnKind::lstm, input, h, c,
           {weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh, {per_row, reduce_range}});
  return {r.h, r.c};
}

Tensor gru_cell(const Tensor& input, const OptTensor& h, const Tensor& weight_ih, const Tensor& scale_ih,
                const Tensor& weight_hh, const Tensor& scale_hh, const OptTensor& bias_ih,
                const OptTensor& bias_hh, bool per_row, bool reduce_range) {
  return step("gru_cell", RnnKind::gru, input, h, std::nullopt,
              {weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh, {per_row, reduce_range}})
      .h;
}

Tensor rnn_cell(const Tensor& input, const OptTensor& h, const Tensor& weight_ih, const Tensor& scale_ih,
                const Tensor& weight_hh, const Tensor& scale_hh, const OptTensor& bias_ih,
                const OptTensor& bias_hh, std::string_view nonlinearity, bool per_row, bool reduce_range) {
  return step("rnn_cell", rnn_kind_of("rnn_cell", nonlinearity), input, h, std::nullopt,
              {weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh, {per_row, reduce_range}})
      .h;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "lstm_cell(Tensor input, Tensor? h, Tensor? c, Tensor weight_ih, Tensor weight_ih_scale, "
      "Tensor weight_hh, Tensor weight_hh_scale, Tensor? bias_ih=None, Tensor? bias_hh=None, "
      "bool per_row=True, bool reduce_range=False) -> (Tensor, Tensor)");
  m.def(
      "gru_cell(Tensor input, Tensor? h, Tensor weight_ih, Tensor weight_ih_scale, Tensor weight_hh, "
      "Tensor weight_hh_scale, Tensor? bias_ih=None, Tensor? bias_hh=None, bool per_row=True, bool "
      "reduce_range=False) -> Tensor");
  m.def(
      "rnn_cell(Tensor input, Tensor? h, Tensor weight_ih, Tensor weight_ih_scale, Tensor weight_hh, "
      "Tensor weight_hh_scale, Tensor? bias_ih=None, Tensor? bias_hh=None, str nonlinearity='tanh', "
      "bool per_row=True, bool reduce_range=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("lstm_cell", TORCH_FN(lstm_cell));
  m.impl("gru_cell", TORCH_FN(gru_cell));
  m.impl("rnn_cell", TORCH_FN(rnn_cell));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("lstm_cell", TORCH_FN((InferenceOnly<"lstm_cell", lstm_cell>::call)));
  m.impl("gru_cell", TORCH_FN((InferenceOnly<"gru_cell", gru_cell>::call)));
  m.impl("rnn_cell", TORCH_FN((InferenceOnly<"rnn_cell", rnn_cell>::call)));
}

}  // namespace tae
