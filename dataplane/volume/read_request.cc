#include "dataplane/volume/read_request.h"

#include <algorithm>
#include <cstring>

namespace kelp {

static_assert(KELP_STAT_COMPRESSED == kFlagCompressed && KELP_STAT_HAS_NAME == kFlagHasName &&
              KELP_STAT_HAS_MIME == kFlagHasMime &&
              KELP_STAT_HAS_MODIFIED == kFlagHasLastModified && KELP_STAT_HAS_TTL == kFlagHasTtl &&
              KELP_STAT_HAS_PAIRS == kFlagHasPairs &&
              KELP_STAT_CHUNK_MANIFEST == kFlagChunkManifest);

bool Io::advance(std::size_t bytes) noexcept {
  offset_bytes += bytes;
  while (bytes > 0 && first < count) {
    iovec& part = parts[first];
    const std::size_t step = std::min(bytes, part.iov_len);
    part.iov_base = static_cast<std::byte*>(part.iov_base) + step;
    part.iov_len -= step;
    bytes -= step;
    if (part.iov_len == 0) ++first;
  }
  return first == count;
}

void settle_range(std::uint64_t offset, std::uint64_t capacity, std::uint64_t total,
                  ReadOutcome& outcome) noexcept {
  outcome.total_bytes = total;
  if (offset > total) {
    outcome.status = KELP_RANGE;
    return;
  }
  outcome.status = KELP_OK;
  outcome.bytes = static_cast<std::uint32_t>(std::min(capacity, total - offset));
  if (offset + outcome.bytes < total) outcome.flags |= KELP_FLAG_TRUNCATED;
}

void write_stat(const ReadRequest& request, const RecordShape& shape, const NeedleMeta& meta,
                const NeedleTail& tail, std::uint64_t total_bytes, std::uint32_t crc32c,
                ReadOutcome& outcome) noexcept {
  kelp_stat stat{};
  stat.total = total_bytes;
  stat.stored = shape.data_bytes;
  stat.modified_s = meta.last_modified_s;
  stat.append_at_ns = tail.append_at_ns;
  stat.crc32c = crc32c;
  stat.ttl_minutes = meta.ttl.minutes();
  stat.flags = meta.flags;
  stat.pairs_bytes = static_cast<std::uint16_t>(meta.pairs.size());
  stat.name_bytes = static_cast<std::uint8_t>(meta.name.size());
  stat.mime_bytes = static_cast<std::uint8_t>(meta.mime.size());
  stat.version = request.record.version;

  outcome.status = KELP_OK;
  outcome.total_bytes = total_bytes;
  std::size_t at = 0;
  const auto append = [&](const void* bytes, std::size_t count) {
    const std::size_t fits = std::min(count, request.destination.size() - at);
    if (fits > 0) std::memcpy(request.destination.data() + at, bytes, fits);
    at += fits;
    if (fits < count) outcome.flags |= KELP_FLAG_TRUNCATED;
  };
  append(&stat, sizeof stat);
  append(meta.name.data(), meta.name.size());
  append(meta.mime.data(), meta.mime.size());
  append(meta.pairs.data(), meta.pairs.size());
  outcome.bytes = static_cast<std::uint32_t>(at);
}

}  // namespace kelp
