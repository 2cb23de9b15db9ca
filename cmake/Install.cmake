# What `cmake --install` puts where: programs, libkelp with kelp.h, pkg-config and CMake package files, units and sample
# configurations, licence and documentation. Debian packages are made from the same (packaging/debian).

include(CMakePackageConfigHelpers)

# kelp-ROLE.service, which reads /etc/kelp/ROLE.toml and has its sockets in /run/RUN_DIR.
function(kelp_unit ROLE RUN_DIR DESCRIPTION)
  configure_file(config/kelp.service.in ${CMAKE_BINARY_DIR}/units/kelp-${ROLE}.service @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/units/kelp-${ROLE}.service DESTINATION lib/systemd/system)
endfunction()

install(TARGETS kelp EXPORT kelpTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT kelpTargets NAMESPACE kelp:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kelp)

configure_file(cmake/kelp.pc.in ${CMAKE_BINARY_DIR}/kelp.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/kelp.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
configure_package_config_file(cmake/kelpConfig.cmake.in ${CMAKE_BINARY_DIR}/kelpConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kelp)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/kelpConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/kelpConfig.cmake ${CMAKE_BINARY_DIR}/kelpConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kelp)
install(FILES docs/man/kelp.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)

if(NOT KELP_RING_AND_WORKER_ONLY)
  install(TARGETS kelpd kelpctl kelp-bench RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES docs/man/kelp-bench.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  # Samples: what stands in /etc/kelp is the operator's alone, and no installation touches it.
  install(FILES config/gateway.toml config/target.toml config/kelpd.toml DESTINATION ${CMAKE_INSTALL_DATADIR}/kelp)
  kelp_unit(gateway kelp "Kelp gateway, which programs of this host read SeaweedFS through")
  kelp_unit(target kelp-target "Kelp target, which answers gateways of other hosts from volumes of this one")
  install(FILES docs/man/kelpctl.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES docs/man/kelpd.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
  # bash-completion looks for a file of the command's name.
  set(completions ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES tools/completion/kelpctl.bash DESTINATION ${completions} RENAME kelpctl)
  install(FILES tools/completion/kelpctl.bash DESTINATION ${completions} RENAME kelpd)
  install(PROGRAMS scripts/hugepages.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/kelp)
  install(FILES config/kelp.sysusers DESTINATION lib/sysusers.d RENAME kelp.conf)
endif()
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN man EXCLUDE)
