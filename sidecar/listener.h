// A listening TCP socket. Control thread, before privileges are dropped.
#pragma once

#include <cstdint>
#include <string>

#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp::sidecar {

/// Clients come in crowds: a mount opens 64 connections at once.
constexpr int kBacklog = 4096;

/// Listens at `host`, a name or an address of IPv4 or IPv6 without brackets, and `port`.
/// Non-blocking. What a name stands for is asked once; the first address that does is taken.
Result<UniqueFd> listen_tcp(const std::string& host, std::uint16_t port);

}  // namespace kelp::sidecar
