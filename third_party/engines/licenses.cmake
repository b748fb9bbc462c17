# share/licenses holds what the shipped library links and goes into the wheel as it
# is; share/licenses-test holds what only the tests link.
set(_share ${CMAKE_INSTALL_DATADIR})
if(TAE_BUILD_ONEDNN)
  install(FILES "${TAE_SRC_ONEDNN}/LICENSE" "${TAE_SRC_ONEDNN}/THIRD-PARTY-PROGRAMS"
    DESTINATION ${_share}/licenses/onednn)
endif()
foreach(name xnnpack pthreadpool fxdiv fp16)
  string(TOUPPER ${name} upper)
  install(FILES "${TAE_SRC_${upper}}/LICENSE" DESTINATION ${_share}/licenses/${name})
endforeach()
install(FILES "${TAE_SRC_HIGHWAY}/LICENSE" "${TAE_SRC_HIGHWAY}/LICENSE-BSD3"
  DESTINATION ${_share}/licenses/highway)
install(FILES "${TAE_SRC_CATCH2}/LICENSE.txt" DESTINATION ${_share}/licenses-test/catch2)
