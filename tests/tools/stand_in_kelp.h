// A stand-in for libkelp, without a daemon: what it answers is set by the test.
#pragma once

#include <functional>
#include <string>

#include "shm_ring/kelp.h"

namespace kelp::test {

struct StandIn {
  kelp_status connect = KELP_OK;
  std::string content;            ///< of the one needle there is
  std::string name, mime, pairs;  ///< answered by stat
  std::uint32_t crc32c = 0x1234abcd;
  std::uint32_t stat_flags = 0;
  std::uint8_t status = KELP_OK;                               ///< of every read and stat
  std::uint8_t path = KELP_PATH_LOCAL;                         ///< of every read
  std::uint8_t attempts = 1;                                   ///< and how often it was begun
  std::function<void(StandIn&)> after_read = [](StandIn&) {};  ///< as another client might act
  int reads = 0;
  std::string run_dir = "(none)";  ///< what kelp_connect() was given
  /// Reads without these hints are denied; empty: whatever the hints.
  std::string wanted_token, wanted_server;
  std::string token, volume_server;  ///< what kelp_hints_put() was given
};

/// The one of this process; a test that forks sets it before.
StandIn& stand_in();

}  // namespace kelp::test
