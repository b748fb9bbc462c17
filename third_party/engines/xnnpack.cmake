# XNNPACK: production microkernels and operators in one archive, without cpuinfo
# and pthreadpool code. The final library supplies cpuinfo_initialize, cpuinfo_isa,
# cpuinfo_get_core (so that the ISA cap reaches XNNPACK) and the pthreadpool_*
# functions over ATen's thread pool.
set(XNNPACK_LIBRARY_TYPE static CACHE STRING "" FORCE)
foreach(off BUILD_TESTS BUILD_BENCHMARKS BUILD_ALL_MICROKERNELS
    ENABLE_ASSEMBLY ENABLE_SPARSE ENABLE_KLEIDIAI USE_SYSTEM_LIBS)
  set(XNNPACK_${off} OFF CACHE BOOL "" FORCE)
endforeach()
# More than 9 (25) taps of a depthwise filter without this fall to igemm.
set(XNNPACK_ENABLE_DWCONV_MULTIPASS ON CACHE BOOL "" FORCE)

# Defining the folders and targets beforehand stops upstream from downloading.
set(CPUINFO_SOURCE_DIR "${CMAKE_CURRENT_LIST_DIR}/cpuinfo_shim")
set(PTHREADPOOL_SOURCE_DIR "${TAE_SRC_PTHREADPOOL}")
set(FXDIV_SOURCE_DIR "${TAE_SRC_FXDIV}")
foreach(dep cpuinfo pthreadpool fxdiv)
  add_library(${dep} INTERFACE)
endforeach()
target_include_directories(cpuinfo INTERFACE "${CPUINFO_SOURCE_DIR}/include")
target_include_directories(pthreadpool INTERFACE "${PTHREADPOOL_SOURCE_DIR}/include")
target_include_directories(fxdiv INTERFACE "${FXDIV_SOURCE_DIR}/include")

add_subdirectory("${TAE_SRC_XNNPACK}" xnnpack EXCLUDE_FROM_ALL)

# Upstream spreads the library over two archives and a set of object libraries.
set(_objects)
foreach(part XNNPACK microkernels-prod allocator cache datatype hardware-config
    indirection logging memory microkernel-utils microparams-init mutex
    normalization operators operator-run operator-utils packing
    reference-ukernels subgraph)
  list(APPEND _objects $<TARGET_OBJECTS:${part}>)
endforeach()
add_library(tae_xnnpack STATIC ${_objects})
set_target_properties(tae_xnnpack PROPERTIES
  OUTPUT_NAME XNNPACK LINKER_LANGUAGE CXX)
install(TARGETS tae_xnnpack ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES "${TAE_SRC_XNNPACK}/include/xnnpack.h"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
