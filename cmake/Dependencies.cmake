# Libraries from the distribution; docs/dependencies.md says what each is for.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(tl-expected REQUIRED)
find_package(absl REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)
if(NOT KELP_RING_AND_WORKER_ONLY)
  find_package(CLI11 REQUIRED)
  find_package(Boost REQUIRED)  # headers only
  find_package(ZLIB REQUIRED)
  find_package(spdlog REQUIRED)
  find_package(tomlplusplus REQUIRED)
  pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
  pkg_check_modules(SYSTEMD IMPORTED_TARGET libsystemd)  # without it kelpd tells no service manager
  pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
  pkg_check_modules(LIBJWT REQUIRED IMPORTED_TARGET libjwt)
endif()
if(KELP_TESTS)
  find_package(doctest REQUIRED)
endif()
