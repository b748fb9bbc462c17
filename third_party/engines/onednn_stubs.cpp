// Stand-ins for the f32 GEMM that the filtered oneDNN leaves out. The int8 GEMM driver
// is a template that names these functions in branches for f32 operands only, so none of
// them can be reached; "unimplemented" would make a caller take the reference code.
// First: the headers below use dim_t and bfloat16_t without including them.
#include "common/bfloat16.hpp"
#include "common/c_types_map.hpp"

#include "cpu/x64/gemm/f32/jit_avx512_common_gemm_f32.hpp"
#include "cpu/x64/gemm/f32/jit_avx512_core_gemm_smalln_tn_f32_kern.hpp"
#include "cpu/x64/gemm/f32/jit_avx_gemm_f32.hpp"
#include "cpu/x64/gemm/gemm_info.hpp"

namespace dnnl {
namespace impl {
namespace cpu {
namespace x64 {

#define TAE_STUB_GEMM(name) \
  dnnl_status_t name(int, const char*, const char*, const dim_t*, const dim_t*, const dim_t*, \
      const float*, const float*, const dim_t*, const float*, const dim_t*, const float*, \
      float*, const dim_t*, const float*) { \
    return dnnl_unimplemented; \
  }
#define TAE_STUB_NOCOPY() \
  dnnl_status_t sgemm_nocopy_driver(const char*, const char*, dim_t, dim_t, dim_t, \
      const float*, const float*, dim_t, const float*, dim_t, const float*, float*, dim_t, \
      const float*) { \
    return dnnl_unimplemented; \
  }

TAE_STUB_GEMM(jit_avx512_common_gemm_f32)
TAE_STUB_GEMM(jit_avx_gemm_f32)
namespace avx512_common_gemm_f32 {
TAE_STUB_NOCOPY()
}
namespace avx_gemm_f32 {
TAE_STUB_NOCOPY()
}

// Here "unimplemented" is upstream's own answer for int8: go on with the general driver.
template <typename a_t, typename b_t, typename c_t>
dnnl_status_t jump_to_gemm_smalln_tn(const gemm_info_t<a_t, b_t, c_t>*) {
  return dnnl_unimplemented;
}
template dnnl_status_t jump_to_gemm_smalln_tn(const gemm_info_t<int8_t, uint8_t, int32_t>*);
template dnnl_status_t jump_to_gemm_smalln_tn(const gemm_info_t<int8_t, int8_t, int32_t>*);

}  // namespace x64
}  // namespace cpu
}  // namespace impl
}  // namespace dnnl
