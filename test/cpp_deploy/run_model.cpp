// run_model MODEL DATA OUT: runs an int8 model and saves its result.
//   MODEL  a TorchScript archive (.pt) or a package of AOTInductor (.pt2)
//   DATA   a TorchScript archive with a tensor attribute `x`
//   OUT    the result, for torch.load
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace {

at::Tensor run(const std::string& path, const at::Tensor& x) {
  const c10::InferenceMode inference;
  if (path.ends_with(".pt2")) {
    torch::inductor::AOTIModelPackageLoader loader(path);
    return loader.run({x}).at(0);
  }
  torch::jit::Module model = torch::jit::load(path);
  model.eval();
  return model.forward({x}).toTensor();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: run_model MODEL DATA OUT\n";
    return 2;
  }
  try {
    const at::Tensor x = torch::jit::load(argv[2]).attr("x").toTensor();
    const at::Tensor y = run(argv[1], x);
    const std::vector<char> bytes = torch::jit::pickle_save(y.clone());
    std::ofstream(argv[3], std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    std::cout << y.sizes() << '\n';
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
