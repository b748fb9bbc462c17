// residual_block BLOCK DATA OUT: one residual block by its operators, as docs/residual_block.md shows.
//   BLOCK  the TorchScript archive of the page, for its weights and ranges
//   DATA   a TorchScript archive with a tensor attribute `x`
//   OUT    the result, for torch.load
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <vector>

namespace {

// An operator by its name; arguments that are not given have the schema's defaults.
at::Tensor call(const char* op, torch::jit::Stack arguments) {
  const c10::OperatorHandle handle = c10::Dispatcher::singleton().findSchemaOrThrow(op, "");
  const auto& declared = handle.schema().arguments();
  while (arguments.size() < declared.size())
    arguments.push_back(declared[arguments.size()].default_value().value());
  handle.callBoxed(arguments);
  return arguments.at(0).toTensor();
}

at::Tensor block(const torch::jit::Module& m, const at::Tensor& x) {
  const auto v = [&](const char* name) { return m.attr(name); };
  const c10::IValue none, one(1), pair(std::vector<int64_t>{1, 1});
  const at::Tensor q = call("torch_ao::quantize_per_tensor",
                            {x, v("x_scale"), v("x_zero"), 0, 255, static_cast<int64_t>(at::kByte)});
  const at::Tensor z =
      call("torch_ao::conv2d_bn_relu",
           {q, v("x_scale"), v("x_zero"), v("w1"), v("s1"), none, none, v("mean"), v("var"), v("gamma"),
            v("beta"), v("eps"), v("z_scale"), v("z_zero"), none, pair, pair, pair, one});
  const at::Tensor y = call("torch_ao::conv2d_add_relu",
                            {z, v("z_scale"), v("z_zero"), v("w2"), v("s2"), none, v("b2"), v("y_scale"),
                             v("y_zero"), none, q, v("x_scale"), v("x_zero"), pair, pair, pair, one});
  return call("torch_ao::dequantize_per_tensor", {y, v("y_scale"), v("y_zero")});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: residual_block BLOCK DATA OUT\n";
    return 2;
  }
  try {
    const c10::InferenceMode inference;
    const at::Tensor x = torch::jit::load(argv[2]).attr("x").toTensor();
    const at::Tensor y = block(torch::jit::load(argv[1]), x);
    const std::vector<char> bytes = torch::jit::pickle_save(y.clone());
    std::ofstream(argv[3], std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
