#include "shm_ring/result.h"

#include <doctest/doctest.h>

#include <cerrno>

TEST_CASE("a system error carries errno and its words") {
  errno = ENOENT;
  const tl::unexpected<kelp::Error> error = kelp::system_error("cannot open /nowhere");
  CHECK(error.value().os_error == ENOENT);
  CHECK(error.value().what == "cannot open /nowhere: No such file or directory");
}

TEST_CASE("a plain error has no errno") {
  CHECK(kelp::plain_error("no").value().os_error == 0);
}
