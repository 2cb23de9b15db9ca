# A room is a directory, a static library and an include root.
#
# The include root of a room holds one link, to that room's directory, so `#include "dataplane/volume/needle.h"` is found
# only by targets that link kelp_volume: an arrow in the wrong direction does not compile (tests/arrows proves it).
#
#   kelp_room(volume PATH dataplane/volume SOURCES needle.cc ... USES shm_ring LIBRARIES PkgConfig::ISAL)
function(kelp_room name)
  cmake_parse_arguments(ROOM "" "PATH" "SOURCES;USES;LIBRARIES" ${ARGN})
  set(root ${CMAKE_BINARY_DIR}/rooms/${name})
  get_filename_component(parent ${root}/${ROOM_PATH} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${ROOM_PATH} ${root}/${ROOM_PATH} SYMBOLIC)

  add_library(kelp_${name} STATIC)
  target_sources(kelp_${name} PRIVATE ${ROOM_SOURCES})
  target_include_directories(kelp_${name} PUBLIC ${root})
  list(TRANSFORM ROOM_USES PREPEND kelp_)
  target_link_libraries(kelp_${name} PUBLIC ${ROOM_USES} ${ROOM_LIBRARIES} PRIVATE kelp_compiler)
endfunction()
