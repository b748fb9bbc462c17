# Header-only parts: Highway, pthreadpool, FXdiv, FP16 and our cpuinfo shim.
# Highway is used without its library: kernels include hwy/highway.h with static
# dispatch (one file per ISA), so no hwy::SupportedTargets symbol is needed.
install(DIRECTORY "${TAE_SRC_HIGHWAY}/hwy"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "tests" EXCLUDE PATTERN "examples" EXCLUDE)

install(FILES
  "${TAE_SRC_PTHREADPOOL}/include/pthreadpool.h"
  "${TAE_SRC_FXDIV}/include/fxdiv.h"
  "${TAE_SRC_FP16}/include/fp16.h"
  "${CMAKE_CURRENT_LIST_DIR}/cpuinfo_shim/include/cpuinfo.h"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY "${TAE_SRC_FP16}/include/fp16"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
