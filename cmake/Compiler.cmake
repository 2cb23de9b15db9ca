# What every target of ours is compiled with. Debug builds here are sanitizer builds: -O1 keeps them usable.

add_library(kelp_compiler INTERFACE)
target_compile_options(kelp_compiler INTERFACE
  -Wall -Wextra -Wshadow -Wundef
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual>
  -fno-omit-frame-pointer)
if(KELP_WERROR)
  target_compile_options(kelp_compiler INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(kelp_compiler INTERFACE -O1)
endif()

if(KELP_SANITIZE)
  target_compile_options(kelp_compiler INTERFACE
    -fsanitize=${KELP_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(kelp_compiler INTERFACE -fsanitize=${KELP_SANITIZE})
  if(KELP_SANITIZE MATCHES "thread")
    # The thread sanitizer does not model fences; see shm_ring/wake_flag.h for what takes their place.
    target_compile_options(kelp_compiler INTERFACE -Wno-tsan)
  endif()
endif()

# Files that are all library templates (CLI11, toml++, doctest's main) take minutes under UBSan and prove nothing of ours.
function(kelp_without_ubsan)
  if(KELP_SANITIZE MATCHES "undefined")
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "-fno-sanitize=undefined")
  endif()
endfunction()

find_program(CCACHE ccache)
if(CCACHE)
  # Below build/ a tree knows what another one has compiled with the same flags: the packages' that of the tests.
  set(CMAKE_C_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
endif()
