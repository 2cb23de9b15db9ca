// What a request for /read asks for. Pure, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "shm_ring/file_id.h"
#include "sidecar/query.h"

namespace kelp::sidecar {

struct ReadParams {
  FileId fid{};
  std::uint64_t offset = 0;
  std::uint64_t size = 0;  ///< 0: to the end
  bool json = false;       ///< format=json: about the bytes, in place of them
  /// Views into the query. "host:port"; empty: none, or nothing that is one.
  std::string_view volume_server;
  std::string_view token;  ///< jwt=; empty: none
};

/// The needle is file_id= in any textual form, or volume=, needle= and cookie= as numbers. Nothing:
/// the parameters make no sense, and `problem` is a sentence that says why.
std::optional<ReadParams> parse_read_params(const Query& query, std::string& problem);

}  // namespace kelp::sidecar
