# Catch2 for the C++ tests. The library comes from the one-file amalgamation (one
# compiler call); tests include the small split headers, same ABI, same version.
add_library(tae_catch2 STATIC "${TAE_SRC_CATCH2}/extras/catch_amalgamated.cpp")
set_target_properties(tae_catch2 PROPERTIES OUTPUT_NAME Catch2)
target_compile_features(tae_catch2 PRIVATE cxx_std_17)
target_compile_options(tae_catch2 PRIVATE -O1)
target_include_directories(tae_catch2 PRIVATE "${TAE_SRC_CATCH2}/extras")
install(TARGETS tae_catch2 ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

# Same defaults as the amalgamation was generated with.
set(CATCH_CONFIG_DEFAULT_REPORTER console)
set(CATCH_CONFIG_CONSOLE_WIDTH 80)
configure_file("${TAE_SRC_CATCH2}/src/catch2/catch_user_config.hpp.in"
  "${CMAKE_CURRENT_BINARY_DIR}/catch2/catch_user_config.hpp")
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/catch2/catch_user_config.hpp"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/catch2)
install(DIRECTORY "${TAE_SRC_CATCH2}/src/catch2"
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")
