# Which oneDNN sources are compiled, and how. Regular expressions match the path
# relative to src/. Read together with table 1b of docs on the engines: no int8 path
# of that table may depend on a file dropped here; test/third_party/onednn_impls.cpp
# checks it by name.

# Primitives that are not enabled (their list files stay: they become empty lists).
set(_drop_primitives
  "^cpu/rnn/" "^cpu/x64/rnn/" "^cpu/x64/(lrn|prelu|shuffle)/"
  "^cpu/(ref|simple|ncsp|nspc)_(batch_norm|group_norm|lrn|prelu|reduction|resampling|shuffle|sum|concat)"
  "^cpu/ref_inner_product" "^cpu/gemm_(x8s8s32x_)?inner_product\\.cpp"
  "^cpu/x64/(gemm_bf16_inner_product|jit_brgemm_inner_product)"
  "^cpu/x64/jit_uni_(tbb_)?(batch|group|instance)_normalization"
  "^cpu/x64/jit_uni_(reduction|resampling|xf16_sum)" "^cpu/x64/jit_avx512_core_resampling"
  "^cpu/matmul/ref_sparse_matmul" "^cpu/x64/matmul/jit_uni_sparse_matmul")

# f32 / bf16 convolutions that brgemm covers, training code, convolution through
# inner product, and the AMX code that precedes brgemm (listed after it upstream; its
# kernel file stays, brgemm uses the copy routines in it).
set(_drop_convolutions
  "^cpu/gemm_convolution\\.cpp" "^cpu/x64/(gemm_bf16_convolution|ip_convolution)"
  "^cpu/x64/jit_(avx2|sse41)_(1x1_)?conv" "^cpu/x64/jit_avx512_common_"
  "^cpu/x64/jit_avx512_core_bf16_(1x1_conv|conv|dw_conv)"
  "^cpu/x64/jit_avx512_core_amx_(1x1_conv|convolution|deconv)"
  "^cpu/x64/jit_uni_(dw_conv|ncsp_conv)"
  "^cpu/x64/jit_brgemm_conv_bwd(_w)?\\.cpp" "^cpu/x64/jit_transpose_utils")

# Floating point pooling and reorders of 4 and 8 bit floats.
set(_drop_types
  "^cpu/(nchw|nhwc)_pooling" "^cpu/x64/jit_uni_pool(ing|_kernel)\\.cpp"
  "^cpu/reorder/cpu_reorder_regular_(fp4|fp8|f32_fp8)")

# GEMM: int8 kernels for AVX2, AVX-VNNI, AVX-512 and AMX stay.
set(_drop_gemm
  "^cpu/matmul/gemm_(bf16|f32)_matmul" "^cpu/x64/gemm/(f32|bf16)/" "^cpu/(x64/)?gemm/gemm_pack"
  "^cpu/x64/gemm/s8x8s32/jit_(sse41|avx)_")

# Parts of other builds: foreign CPUs, other thread pools, profilers.
set(_drop_platform
  "^cpu/(aarch64|ppc64|rv64|s390x|sycl)/" "^cpu/jit_utils/linux_perf/"
  "^common/(ittnotify|spdlog)/" "^common/(stream_threadpool|logging)\\.cpp")

# Code emitters. They are big, run once per shape and gain nothing from -O2.
set(_emitter_files
  "^cpu/x64/injectors/" "^cpu/x64/gemm/(s8x8s32|amx)/" "^cpu/x64/brgemm/jit_"
  "^cpu/x64/utils/" "^cpu/x64/matmul/brgemm_matmul_copy_utils"
  "^cpu/x64/jit_.*(_kernel|_utils|cvt|_comp|_post_ops|jit_generator)\\.cpp"
  "^cpu/x64/jit_uni_(reorder|binary|eltwise|eltwise_int|i8i8_pooling|softmax|layer_normalization)")

# Classes whose files are gone; their lines leave the implementation lists.
set(_drop_classes
  "ip_convolution" "jit_avx2_(1x1_|dw_)?convolution" "jit_sse41_(1x1_|dw_)?convolution"
  "jit_avx512_common_" "jit_avx512_core_bf16_" "jit_avx512_core_amx_(1x1_)?(de)?convolution"
  "jit_uni_dw_convolution" "jit_uni_ncsp_convolution" "gemm_bf16_convolution"
  "gemm_convolution_" "brgemm_convolution_bwd_t" "brgemm_convolution_bwd_weights"
  "gemm_bf16_matmul" "gemm_f32_matmul" "(nchw|nhwc)_pooling" "jit_uni_pooling_"
  "rnn_[a-z0-9_]*reorder")
# Lists (under src/) that name such classes.
set(_edited_lists
  cpu/cpu_convolution_list.cpp cpu/cpu_deconvolution_list.cpp cpu/cpu_pooling_list.cpp
  cpu/matmul/cpu_matmul_list.cpp)

function(tae_onednn_edit_list path out)
  file(READ "${TAE_SRC_ONEDNN}/src/${path}" text)
  foreach(class IN LISTS _drop_classes)
    string(REGEX REPLACE "\n *(DNNL_X64_ONLY\\()?CPU_(REORDER_)?INSTANCE[A-Z0-9_]*\\((x64::)?${class}[^\n]*" ""
      text "${text}")
  endforeach()
  # Tables of 4 and 8 bit floats.
  string(REGEX REPLACE "\n *BRGEMM_FP8_[A-Z_]+\\([^\n]*" "" text "${text}")
  string(REGEX REPLACE "\n[^\n]*&regular_(f32_)?fp[48]_impl_list_map[^\n]*" "" text "${text}")
  set(copy "${CMAKE_CURRENT_BINARY_DIR}/onednn/src/${path}")
  file(CONFIGURE OUTPUT "${copy}" CONTENT "${text}" @ONLY)
  set(${out} "${copy}" PARENT_SCOPE)
endfunction()

function(tae_onednn_sources out_fast out_emitters)
  set(root "${TAE_SRC_ONEDNN}/src")
  file(GLOB_RECURSE files RELATIVE "${root}" CONFIGURE_DEPENDS
    "${root}/common/*.cpp" "${root}/cpu/*.cpp")
  string(JOIN "|" drop ${_drop_primitives} ${_drop_convolutions} ${_drop_types}
    ${_drop_gemm} ${_drop_platform})
  string(JOIN "|" emitters ${_emitter_files})
  set(fast_files "${CMAKE_CURRENT_LIST_DIR}/onednn_stubs.cpp")
  set(emitter_files)
  foreach(file IN LISTS files)
    if(file MATCHES "${drop}")
      continue()
    endif()
    if(file IN_LIST _edited_lists OR file MATCHES "^cpu/reorder/cpu_reorder")
      tae_onednn_edit_list("${file}" path)
    else()
      set(path "${root}/${file}")
    endif()
    if(file MATCHES "${emitters}")
      list(APPEND emitter_files "${path}")
    else()
      list(APPEND fast_files "${path}")
    endif()
  endforeach()
  list(LENGTH fast_files n)
  list(LENGTH emitter_files m)
  message(STATUS "oneDNN: ${n} files at -O2, ${m} code emitters at -O1")
  set(${out_fast} "${fast_files}" PARENT_SCOPE)
  set(${out_emitters} "${emitter_files}" PARENT_SCOPE)
endfunction()
