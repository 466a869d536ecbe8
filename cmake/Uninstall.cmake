# SPDX-License-Identifier: Apache-2.0
# cmake -DMANIFEST=…/install_manifest.txt -P Uninstall.cmake: removes the files that the manifest lists, then attnmux's
# own folders where they are empty.

if(NOT EXISTS ${MANIFEST})
  message(FATAL_ERROR "Nothing to uninstall: there is no ${MANIFEST}.")
endif()
file(STRINGS ${MANIFEST} files)
set(folders "")
foreach(file IN LISTS files)
  set(file "$ENV{DESTDIR}${file}")
  if(EXISTS ${file} OR IS_SYMLINK ${file})
    message(STATUS "Removing ${file}")
    file(REMOVE ${file})
  endif()
  cmake_path(GET file PARENT_PATH folder)
  list(APPEND folders ${folder})
endforeach()

# A folder with attnmux in its path below the prefix is ours: …/include/attnmux/c, …/lib/cmake/attnmux.
list(REMOVE_DUPLICATES folders)
list(SORT folders ORDER DESCENDING)
foreach(folder IN LISTS folders)
  while(folder MATCHES "/(include|cmake|doc)/attnmux(/|$)")
    file(GLOB rest ${folder}/*)
    if(rest OR NOT EXISTS ${folder})
      break()
    endif()
    file(REMOVE_RECURSE ${folder})
    cmake_path(GET folder PARENT_PATH folder)
  endwhile()
endforeach()
file(REMOVE ${MANIFEST})
