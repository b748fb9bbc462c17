#include "core/autograd.h"

namespace tae::detail {
namespace {

std::string message(const char* op) {
  return c10::str("torch_ao::", op, ": backward is not implemented; this operator is for ",
                  "inference only. Call it under torch.no_grad(), or train with fake quantization");
}

struct RaiseInBackward final : torch::autograd::Error {
  using torch::autograd::Error::Error;
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, msg);
  }
  std::string name() const override { return "TorchAoInferenceOnly"; }
};

}  // namespace

c10::OperatorHandle find_op(const char* name_and_overload) {
  const std::string text = name_and_overload;
  const size_t dot = text.find('.');
  const std::string name = "torch_ao::" + text.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : text.substr(dot + 1);
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
}

void raise_forward_mode(const char* op) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "torch_ao::", op,
                              ": forward-mode differentiation is not implemented; this operator ",
                              "is for inference only");
}

void attach_raising_node(const char* op, const TensorScan& inputs, const at::Tensor& output) {
  if (!output.defined() || !torch::autograd::isDifferentiableType(output.scalar_type())) return;
  torch::autograd::edge_list edges;
  for (const at::Tensor& t : inputs.requires_grad) edges.push_back(torch::autograd::impl::gradient_edge(t));
  auto node = c10::make_intrusive<RaiseInBackward>(message(op), std::move(edges));
  torch::autograd::set_history(output, node);
}

}  // namespace tae::detail
