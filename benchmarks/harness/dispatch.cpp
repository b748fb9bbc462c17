// Calls an operator through PyTorch's dispatcher many times from C++, with arguments that Python gave once.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/extension.h>

class Call {
 public:
  Call(const std::string& name, const std::string& overload, const py::args& args, const py::kwargs& kwargs)
      : operator_(c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str())),
        arguments_(torch::jit::createStackForSchema(operator_.schema(), args, kwargs, std::nullopt)) {}

  void repeat(int64_t count) const {
    const py::gil_scoped_release no_gil;
    for (int64_t i = 0; i < count; ++i) {
      auto stack = arguments_;
      operator_.callBoxed(stack);
    }
  }

 private:
  c10::OperatorHandle operator_;
  torch::jit::Stack arguments_;
};

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::class_<Call>(m, "Call")
      .def(py::init<const std::string&, const std::string&, const py::args&, const py::kwargs&>())
      .def("repeat", &Call::repeat);
}
