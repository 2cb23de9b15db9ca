#include "control/client_quotas.h"

#include <doctest/doctest.h>

#include <cstdint>

using kelp::ClientQuotas;
using kelp::QuotaShare;

TEST_CASE("without limits everybody fits, whatever they ask for") {
  ClientQuotas quotas({});
  for (int i = 0; i < 10; ++i) {
    CHECK(quotas.check(7, {64, UINT64_MAX}));
    quotas.take(7, {64, 1ULL << 40});
  }
}

TEST_CASE("each quota refuses by name, with what is used, what is asked for and the limit") {
  ClientQuotas quotas({.clients = 2, .channels = 5, .data_bytes = 1000});
  quotas.take(7, {3, 600});
  CHECK(quotas.check(7, {2, 400}));
  CHECK(quotas.check(7, {3, 0}).error().what ==
        "uid 7 uses 3 of its 5 channels and asks for 3 more (client.max_channels_per_uid)");
  CHECK(quotas.check(7, {1, 401}).error().what ==
        "uid 7 uses 600 of its 1000 bytes of data areas and asks for 401 more "
        "(client.max_data_bytes_per_uid)");
  CHECK_FALSE(quotas.check(7, {1, UINT64_MAX}));  // 600 + that wraps
  quotas.take(7, {1, 0});
  CHECK(quotas.check(7, {1, 1}).error().what ==
        "uid 7 uses 2 of its 2 clients and asks for 1 more (client.max_clients_per_uid)");
}

TEST_CASE("what one user holds is no other user's trouble, and comes back") {
  ClientQuotas quotas({.clients = 1, .channels = 0, .data_bytes = 100});
  quotas.take(7, {1, 100});
  CHECK_FALSE(quotas.check(7, {1, 1}));
  CHECK(quotas.check(8, {1, 100}));
  quotas.give_back(8, {1, 100});  // was never taken: nothing happens
  quotas.give_back(7, {1, 100});
  CHECK(quotas.check(7, {1, 100}));
  CHECK(quotas.users() == 0);
}
