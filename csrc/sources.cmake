# Every source of the library by stem, in two groups: torch-free and torch.
# Kernels named `stem__<isa>` are compiled with the flags of that level.
set(TAE_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt -mmovbe -mpclmul)
set(TAE_FLAGS_avxvnni ${TAE_FLAGS_avx2} -mavxvnni)
set(TAE_FLAGS_avx512 ${TAE_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
set(TAE_FLAGS_avx512vnni ${TAE_FLAGS_avx512} -mavx512vnni)
set(TAE_FLAGS_amx ${TAE_FLAGS_avx512vnni} -mamx-tile -mamx-int8)

# tae_sources(VARIABLE FOLDER stem...)
function(tae_sources variable folder)
  set(files ${${variable}})
  foreach(stem ${ARGN})
    set(file ${CMAKE_CURRENT_SOURCE_DIR}/csrc/${folder}/${stem}.cpp)
    if(stem MATCHES "__([a-z0-9]+)$")
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${TAE_FLAGS_${CMAKE_MATCH_1}}")
    endif()
    list(APPEND files ${file})
  endforeach()
  set(${variable} ${files} PARENT_SCOPE)
endfunction()

tae_sources(TAE_ENGINE_SOURCES core cpu_features fork)
tae_sources(TAE_ENGINE_SOURCES kernels
  attention attention__avx2 attention__avx512
  crc32 crc32__avx2
  depthwise depthwise__avx2 depthwise__avx512
  depthwise_lines depthwise_lines__avx512vnni
  elementwise elementwise__avx2 elementwise__avx512
  embedding embedding__avx2 embedding__avx512
  epilogue epilogue__avx2 epilogue__avx512
  fake_quantize fake_quantize__avx2 fake_quantize__avx512
  gemm gemm_pack gemm_portable gemm__avx2 gemm__avxvnni gemm__avx512 gemm__avx512vnni gemm__amx
  histogram histogram__avx2
  lookup lookup__avx512vnni
  matmul matmul__avx2 matmul__avx512 matmul_pack matmul_pack__avx512
  norm norm__avx2 norm__avx512 norm__avx512vnni
  post_ops
  quantize quantize__avx2 quantize__avx512
  requantize
  rnn rnn__avx2 rnn__avx512
  rows rows__avx2 rows__avx512
  scaled_dot_product_attention scaled_dot_product_attention__avx2 scaled_dot_product_attention__avx512
  softmax softmax__avx2 softmax__avx512
  sparse sparse__avx2 sparse__avx512 sparse__avx512vnni
  transpose
  upsample upsample__avx512
  weight_only weight_only__avx2 weight_only__avx512 weight_only__avx512vnni)
tae_sources(TAE_ENGINE_SOURCES engines conv_forms input_rows order output_rule rnn_parts)
tae_sources(TAE_ENGINE_SOURCES engines/native
  attention
  byte_output
  conv
  depthwise_conv depthwise_lines depthwise_lines_task depthwise_taps dilated_conv direct_conv
  embedding
  linear linear_task
  matmul
  plan pointwise_conv
  repeated_channels rnn rnn_input rnn_matrix rnn_rows rnn_step
  sparse_linear sparse_pack
  weight4_pack weight_only weight_only_task)
tae_sources(TAE_ENGINE_SOURCES engines/reference attention conv linear matmul rnn rnn_rows weight_only)
tae_sources(TAE_ENGINE_SOURCES engines/onednn chunk_gemms conv conv_cache conv_piece conv_primitive conv_run conv_weight conv_window linear onednn thread_args)
tae_sources(TAE_ENGINE_SOURCES engines/xnnpack conv xnnpack fully_connected linear operator_pool static_rule pthreadpool_shim cpuinfo_shim)

tae_sources(TAE_TORCH_SOURCES core autograd checks env large_memory parallel qparams result_memory state_key weight_state)
tae_sources(TAE_TORCH_SOURCES ops
  attention
  batch_norm
  cat channel_norm channels_last choose_qparams
  contiguous
  conv conv_bn conv_common conv_dynamic conv_fused conv_input
  crc32
  elementwise elementwise_common
  embedding embedding_bag embedding_common embedding_prepack
  fake_quantize
  group_norm
  histogram
  interpolate
  island island_memory island_operators island_plans island_program
  layer_norm
  linear linear_bn linear_common linear_dynamic linear_weight_only
  lookup
  matmul matmul_common
  matrix_offsets
  memory_format
  norm_common
  pool pool_common
  post_op_tensors post_ops
  quantize_common quantize_per_channel quantize_per_tensor quantize_per_token
  rnn rnn_cells rnn_common rnn_pack
  scaled_dot_product_attention
  service
  softmax
  sparse_linear sparse_weight)
