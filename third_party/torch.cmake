# tae::torch: the LibTorch of the Python that runs the build. Found through
# Python, not find_package(Torch): that adds flags and libraries of its own.
if(NOT Python_EXECUTABLE)
  find_program(Python_EXECUTABLE NAMES python3 python REQUIRED)
endif()

execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import os, torch; print(os.path.dirname(torch.__file__), torch.__version__, sep=';')"
  OUTPUT_VARIABLE torch_facts OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE torch_status)
if(NOT torch_status EQUAL 0)
  message(FATAL_ERROR "${Python_EXECUTABLE} cannot import torch; install it first: pip install torch==2.13.0")
endif()
list(GET torch_facts 0 torch_dir)
list(GET torch_facts 1 TAE_TORCH_VERSION)
if(NOT TAE_TORCH_VERSION MATCHES "^2\\.13\\.")
  message(FATAL_ERROR "torch_ao_ext needs torch 2.13.x to build, found ${TAE_TORCH_VERSION}")
endif()

set(TAE_TORCH_LIB_DIR ${torch_dir}/lib)
add_library(tae_torch_interface INTERFACE)
add_library(tae::torch ALIAS tae_torch_interface)
target_include_directories(tae_torch_interface SYSTEM INTERFACE ${torch_dir}/include)
# libgomp: the wheel's own copy, so that one OpenMP runtime is in the process.
target_link_libraries(tae_torch_interface INTERFACE
  ${torch_dir}/lib/libtorch_cpu.so ${torch_dir}/lib/libc10.so ${torch_dir}/lib/libgomp.so.1)
