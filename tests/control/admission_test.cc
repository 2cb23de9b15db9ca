#include "control/admission.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm_ring/unique_fd.h"

using kelp::AdmissionList;
using kelp::Peer;

namespace {

Peer peer(uid_t uid, gid_t gid, std::vector<gid_t> groups = {}) {
  return {uid, 1, gid, std::move(groups)};
}

}  // namespace

TEST_CASE("with both lists empty whoever may open the socket may attach") {
  CHECK(AdmissionList{}.check(peer(12345, 12345)));
}

TEST_CASE("a user is admitted by uid, by gid, or by a supplementary group, and by nothing else") {
  const AdmissionList list{{1000, 0}, {2000}, false};
  CHECK(list.check(peer(0, 5)));
  CHECK(list.check(peer(1000, 5)));
  CHECK(list.check(peer(5, 2000)));
  CHECK(list.check(peer(5, 5, {7, 2000})));
  CHECK_FALSE(list.check(peer(2000, 1000, {1000})));
  CHECK_FALSE(list.check(peer(5, 5, {7})));
}

TEST_CASE("one list alone does not open the door to those of the other kind") {
  CHECK_FALSE((AdmissionList{{1000}, {}, false}.check(peer(0, 0))));
  CHECK_FALSE((AdmissionList{{}, {1000}, false}.check(peer(0, 0))));
}

TEST_CASE("the process itself comes in where that is wanted, whatever the lists say") {
  Peer self = peer(5, 5);
  self.pid = ::getpid();
  CHECK_FALSE((AdmissionList{{1000}, {}, false}.check(self)));
  CHECK((AdmissionList{{1000}, {}, true}.check(self)));
  self.pid += 1;
  CHECK_FALSE((AdmissionList{{1000}, {}, true}.check(self)));
}

TEST_CASE("who is refused is told their own ids and the keys of the lists") {
  const AdmissionList list{{1000}, {}, false};
  CHECK(list.check(peer(5, 6)).error().what ==
        "uid 5, gid 6 is on neither list of who may attach (client.allow_uids, client.allow_gids)");
}

TEST_CASE("the kernel says who is at the other end of a socket, with all groups") {
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  const kelp::UniqueFd ours(pair[0]);
  const kelp::UniqueFd theirs(pair[1]);
  const auto found = Peer::of(ours.get());
  REQUIRE(found);
  CHECK(found->uid == ::geteuid());
  CHECK(found->gid == ::getegid());
  CHECK(found->pid == ::getpid());
  CHECK(found->groups.size() == static_cast<std::size_t>(::getgroups(0, nullptr)));
  CHECK_FALSE(Peer::of(-1));
}
