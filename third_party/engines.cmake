# Third-party engines for the main build:  include(third_party/engines.cmake)
#
#   TAE_ENGINES_DIR   (in, optional) install tree built elsewhere; else build.py
#                     provides one from the cache, building it when the key is new
#   TAE_LICENSES_DIR  (out) folder whose content must be shipped with the library
#
#   tae::dnnl            oneDNN, static. Link with -fopenmp and torch's libgomp.
#   tae::xnnpack         XNNPACK, static. The linking library must define
#                        cpuinfo_initialize, cpuinfo_isa, cpuinfo_get_core and the
#                        pthreadpool_* functions (headers in tae::engine_headers).
#   tae::engine_headers  pthreadpool.h, fxdiv.h, fp16.h, cpuinfo.h (our stand-in)
#   tae::highway         hwy/ headers; no library, so static dispatch only
#   tae::catch2          Catch2 with main, for tests
include_guard(GLOBAL)

set(TAE_ENGINES_DIR "" CACHE PATH "Prebuilt third-party engines (empty: third_party/build.py)")

if(TAE_ENGINES_DIR)
  set(_tae_prefix "${TAE_ENGINES_DIR}")
else()
  find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)
  # A changed pin, patch or filter reaches an existing build folder.
  file(GLOB_RECURSE _tae_inputs "${CMAKE_CURRENT_LIST_DIR}/engines/*"
    "${CMAKE_CURRENT_LIST_DIR}/patches/*.patch")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
    ${_tae_inputs} "${CMAKE_CURRENT_LIST_DIR}/sources.lock")
  # The engines must come from the compiler of the main build: their key contains it.
  set(_tae_env "CXX=${CMAKE_CXX_COMPILER}")
  if(CMAKE_C_COMPILER)
    list(APPEND _tae_env "CC=${CMAKE_C_COMPILER}")
  endif()
  message(STATUS "Third-party engines: third_party/build.py (minutes on the first run)")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env ${_tae_env}
      "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/build.py"
    OUTPUT_VARIABLE _tae_prefix OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE _tae_result)
  if(NOT _tae_result EQUAL 0)
    message(FATAL_ERROR "third_party/build.py failed; see the message above and third_party/README.md")
  endif()
endif()
get_filename_component(_tae_prefix "${_tae_prefix}" ABSOLUTE)
foreach(_tae_file lib/libdnnl.a lib/libXNNPACK.a lib/libCatch2.a include/cpuinfo.h)
  if(NOT EXISTS "${_tae_prefix}/${_tae_file}")
    message(FATAL_ERROR "engines: ${_tae_prefix} must hold ${_tae_file}; wrong TAE_ENGINES_DIR?")
  endif()
endforeach()
message(STATUS "Third-party engines: ${_tae_prefix}")
set(TAE_LICENSES_DIR "${_tae_prefix}/share/licenses")

# All of these share one include folder. It is not a system folder: torch ships other
# versions of the same headers and must come after it (torch as SYSTEM).
foreach(_tae_name engine_headers highway)
  add_library(tae::${_tae_name} INTERFACE IMPORTED GLOBAL)
  set_target_properties(tae::${_tae_name} PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_tae_prefix}/include" SYSTEM OFF)
endforeach()
foreach(_tae_pair dnnl=dnnl xnnpack=XNNPACK catch2=Catch2)
  string(REPLACE "=" ";" _tae_pair "${_tae_pair}")
  list(GET _tae_pair 0 _tae_name)
  list(GET _tae_pair 1 _tae_lib)
  add_library(tae::${_tae_name} STATIC IMPORTED GLOBAL)
  set_target_properties(tae::${_tae_name} PROPERTIES
    IMPORTED_LOCATION "${_tae_prefix}/lib/lib${_tae_lib}.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_tae_prefix}/include" SYSTEM OFF)
endforeach()
# dladdr and pthread primitives; both are part of libc with glibc 2.34 and newer.
set_property(TARGET tae::dnnl PROPERTY INTERFACE_LINK_LIBRARIES ${CMAKE_DL_LIBS})
set_property(TARGET tae::xnnpack PROPERTY INTERFACE_LINK_LIBRARIES tae::engine_headers m)
# Emitted code needs no executable stack; some compilers' objects do not say so.
foreach(_tae_name dnnl xnnpack)
  set_property(TARGET tae::${_tae_name} PROPERTY INTERFACE_LINK_OPTIONS
    LINKER:-z,noexecstack LINKER:--exclude-libs,ALL)
endforeach()
