// A read as a gateway's link puts it on the wire; where its bytes are to land the link adds.
#pragma once

#include <cstdint>

#include "dataplane/transport/link.h"
#include "dataplane/wire/request_slots.h"

namespace kelp {

/// Whether a link that was granted such slices can ask for it at all.
inline bool may_be_asked(const LinkRead& read, std::uint32_t max_slice_bytes) noexcept {
  return !read.buffer.empty() && read.buffer.size() <= max_slice_bytes &&
         read.token.size() <= wire::kMostTokenBytes;
}

inline wire::Request request_of(const LinkRead& read, wire::GatewaySlots::Taken taken) noexcept {
  wire::Request request;
  request.slot = taken.slot;
  request.generation = taken.generation;
  request.kind = read.stat ? wire::RequestKind::kStat : wire::RequestKind::kRead;
  request.volume = static_cast<std::uint32_t>(read.fid.volume);
  request.needle = static_cast<std::uint64_t>(read.fid.needle);
  request.cookie = static_cast<std::uint32_t>(read.fid.cookie);
  request.offset_bytes = read.offset_bytes;
  request.length_bytes = static_cast<std::uint32_t>(read.buffer.size());
  request.timeout_us = read.timeout_us;
  return request;
}

}  // namespace kelp
