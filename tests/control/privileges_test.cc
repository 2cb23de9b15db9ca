#include "control/privileges.h"

#include <doctest/doctest.h>
#include <pwd.h>
#include <unistd.h>

using kelp::find_identity;

// Becoming somebody is tested on a whole kelpd, in tests/operator/privileges.py.

TEST_CASE("no user means to stay, and a group without one is refused") {
  const auto none = find_identity("", "");
  REQUIRE(none);
  CHECK_FALSE(*none);
  CHECK_FALSE(find_identity("", "root"));
}

TEST_CASE("names that nobody has are refused by name") {
  const auto user = find_identity("no-such-user", "");
  REQUIRE_FALSE(user);
  CHECK(user.error().what.find("there is no user no-such-user") != std::string::npos);
  const auto group = find_identity("root", "no-such-group");
  REQUIRE_FALSE(group);
  CHECK(group.error().what.find("there is no group no-such-group") != std::string::npos);
}

TEST_CASE("root may become anybody, and others only stay themselves") {
  const passwd* self = ::getpwuid(::geteuid());
  if (self == nullptr) {
    MESSAGE("skipped: this user has no name");
    return;
  }
  const auto found = find_identity(self->pw_name, "");
  REQUIRE(found);
  if (::geteuid() == 0) {
    REQUIRE(*found);
    CHECK((*found)->uid == 0);
    CHECK_FALSE((*found)->groups.empty());
  } else {
    CHECK_FALSE(*found);
    const auto root = find_identity("root", "");
    REQUIRE_FALSE(root);
    CHECK(root.error().what.find("only root") != std::string::npos);
  }
}
