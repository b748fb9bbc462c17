# oneDNN with a filtered file list. Upstream compiles every source whatever its build
# options say (they only empty the implementation lists): 50 CPU minutes. Here
#   1. files of primitives and data types we do not use are left out,
#   2. the implementation lists that name their classes are compiled from a copy in
#      the build folder with those lines removed (onednn_filter.cmake),
#   3. files that only emit code are compiled with -O1: they run once per kernel shape,
#      the code they emit does not depend on the level.
# patches/onednn-int8-gemm-only.patch does the same inside x64/gemm.
include(onednn_filter.cmake)

# --- configuration header -----------------------------------------------------------
set(DNNL_CPU_RUNTIME OMP)
set(DNNL_CPU_THREADING_RUNTIME OMP)
set(DNNL_GPU_RUNTIME NONE)
set(DNNL_GPU_VENDOR NONE)
set(DNNL_EXPERIMENTAL_UKERNEL ON)
set(BUILD_INFERENCE ON)
set(BUILD_PRIMITIVE_CPU_ISA_ALL ON)
set(BUILD_GEMM_KERNELS_ALL ON)
# No INNER_PRODUCT: none of its int8 implementations takes zero points, linear is
# matmul. DECONVOLUTION keeps the int8 backward-data convolutions registered.
foreach(primitive BINARY CONVOLUTION DECONVOLUTION ELTWISE LAYER_NORMALIZATION MATMUL
    POOLING REORDER SOFTMAX)
  set(BUILD_${primitive} ON)
endforeach()
# 3.7.2 sources plus the upstream 3.7.3 fixes (see sources.lock).
set(DNNL_VERSION_MAJOR 3)
set(DNNL_VERSION_MINOR 7)
set(DNNL_VERSION_PATCH 3)
set(DNNL_VERSION_HASH "N/A")

set(_inc "${TAE_SRC_ONEDNN}/include/oneapi/dnnl")
set(_geninc "${CMAKE_CURRENT_BINARY_DIR}/onednn/include")
foreach(header config version version_hash)
  configure_file("${_inc}/dnnl_${header}.h.in" "${_geninc}/oneapi/dnnl/dnnl_${header}.h")
endforeach()

# --- sources ------------------------------------------------------------------------
tae_onednn_sources(_fast _emitters)

find_package(OpenMP REQUIRED COMPONENTS CXX)

add_library(tae_dnnl STATIC)
foreach(part fast emitters)
  add_library(tae_dnnl_${part} OBJECT ${_${part}})
  target_include_directories(tae_dnnl_${part} PRIVATE
    "${_geninc}" "${TAE_SRC_ONEDNN}/include" "${TAE_SRC_ONEDNN}/src")
  target_compile_definitions(tae_dnnl_${part} PRIVATE
    DNNL_X64=1 DNNL_ENABLE_MAX_CPU_ISA DNNL_ENABLE_CPU_ISA_HINTS
    DNNL_ENABLE_JIT_PROFILING=0 __STDC_LIMIT_MACROS __STDC_CONSTANT_MACROS)
  # Compile with -fopenmp, but name no OpenMP library: the final link takes the one
  # that torch brings.
  target_compile_options(tae_dnnl_${part} PRIVATE ${OpenMP_CXX_FLAGS}
    -Wno-psabi -Wno-unused-function)
  set_target_properties(tae_dnnl_${part} PROPERTIES
    CXX_STANDARD 11 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  target_sources(tae_dnnl PRIVATE $<TARGET_OBJECTS:tae_dnnl_${part}>)
endforeach()
# After CMAKE_CXX_FLAGS_RELEASE on the command line, so these win over its -O3.
target_compile_options(tae_dnnl_fast PRIVATE -O2)
target_compile_options(tae_dnnl_emitters PRIVATE -O1)
target_precompile_headers(tae_dnnl_emitters PRIVATE
  "${TAE_SRC_ONEDNN}/src/cpu/x64/jit_generator.hpp"
  "${TAE_SRC_ONEDNN}/src/cpu/x64/jit_primitive_conf.hpp"
  "${TAE_SRC_ONEDNN}/src/common/primitive_attr.hpp")

set_target_properties(tae_dnnl PROPERTIES OUTPUT_NAME dnnl LINKER_LANGUAGE CXX)
install(TARGETS tae_dnnl ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY "${TAE_SRC_ONEDNN}/include/oneapi" "${_geninc}/oneapi"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp"
  PATTERN "*graph*" EXCLUDE PATTERN "*sycl*" EXCLUDE PATTERN "*ocl*" EXCLUDE)
