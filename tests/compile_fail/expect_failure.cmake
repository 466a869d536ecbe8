# SPDX-License-Identifier: Apache-2.0
# Compiles SOURCE twice: as it is, which must fail and say EXPECTED, and with ATTNMUX_RIGHT, which must succeed.
set(command ${COMPILER} -std=c++20 -fsyntax-only -I${INCLUDE} ${SOURCE})

execute_process(COMMAND ${command} -DATTNMUX_RIGHT RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} must compile with ATTNMUX_RIGHT, but:\n${output}")
endif()

execute_process(COMMAND ${command} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, but must not")
endif()
if(NOT output MATCHES "${EXPECTED}")
  message(FATAL_ERROR "${SOURCE} does not compile, but the compiler does not say \"${EXPECTED}\":\n${output}")
endif()
