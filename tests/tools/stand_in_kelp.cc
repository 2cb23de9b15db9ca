#include "tools/stand_in_kelp.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using kelp::test::stand_in;
using kelp::test::StandIn;

struct kelp_connection {
  std::vector<void*> buffers;
};
struct kelp_channel {};

namespace kelp::test {
StandIn& stand_in() {
  static StandIn instance;
  return instance;
}
}  // namespace kelp::test

namespace {

kelp_channel the_channel;

kelp_completion answer_read(std::uint64_t offset, void* buffer, std::uint32_t length) {
  StandIn& self = stand_in();
  kelp_completion done{};
  done.status = self.status;
  done.path = self.path;
  done.attempts = self.attempts;
  done.total = self.content.size();
  if (self.status == KELP_OK && offset > done.total) done.status = KELP_RANGE;
  if (done.status == KELP_OK) {
    done.bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(length, done.total - offset));
    if (done.bytes != 0) std::memcpy(buffer, self.content.data() + offset, done.bytes);
    if (offset + done.bytes < done.total) done.flags |= KELP_FLAG_TRUNCATED;
    if (done.bytes == done.total) done.flags |= KELP_FLAG_CRC_VERIFIED;
  }
  ++self.reads;
  self.after_read(self);
  return done;
}

kelp_completion answer_stat(void* buffer) {
  const StandIn& self = stand_in();
  kelp_completion done{};
  done.status = self.status;
  done.path = KELP_PATH_LOCAL;
  kelp_stat stat{};
  stat.total = self.content.size();
  stat.stored = self.content.size();
  stat.modified_s = 1700000000;
  stat.append_at_ns = 1700000001000000000;
  stat.crc32c = self.crc32c;
  stat.ttl_minutes = 180;
  stat.flags = self.stat_flags;
  stat.name_bytes = static_cast<std::uint8_t>(self.name.size());
  stat.mime_bytes = static_cast<std::uint8_t>(self.mime.size());
  stat.pairs_bytes = static_cast<std::uint16_t>(self.pairs.size());
  stat.version = 3;
  std::memcpy(buffer, &stat, sizeof stat);
  const std::string texts = self.name + self.mime + self.pairs;
  std::memcpy(static_cast<char*>(buffer) + sizeof stat, texts.data(), texts.size());
  done.bytes = static_cast<std::uint32_t>(sizeof stat + texts.size());
  return done;
}

}  // namespace

kelp_status kelp_connect(const kelp_options* options, kelp_connection** out) {
  stand_in().run_dir = options->run_dir != nullptr ? options->run_dir : "(default)";
  *out = stand_in().connect == KELP_OK ? new kelp_connection : nullptr;
  return stand_in().connect;
}
void kelp_close(kelp_connection* connection) {
  if (connection == nullptr) return;
  for (void* buffer : connection->buffers) std::free(buffer);
  delete connection;
}
const char* kelp_error_detail(void) {
  return "the detail";
}
kelp_status kelp_buffer_alloc(kelp_connection* connection, size_t bytes, void** out) {
  *out = connection->buffers.emplace_back(std::malloc(bytes));
  return KELP_OK;
}
kelp_status kelp_channel_open(kelp_connection*, kelp_channel** out) {
  *out = &the_channel;
  return KELP_OK;
}
kelp_status kelp_hints_put(void*, const kelp_hints* hints) {
  stand_in().token = hints->token;
  stand_in().volume_server = hints->volume_server;
  return KELP_OK;
}
kelp_status kelp_read_many(kelp_channel*, const kelp_request* requests, uint32_t count,
                           kelp_completion* out) {
  for (uint32_t i = 0; i < count; ++i) {
    const kelp_request& each = requests[i];
    out[i] = each.op == KELP_OP_STAT ? answer_stat(each.buffer)
                                     : answer_read(each.offset, each.buffer, each.length);
    const StandIn& self = stand_in();
    const bool hinted = each.hints != nullptr && self.token == self.wanted_token &&
                        self.volume_server == self.wanted_server;
    const bool wanted = !self.wanted_token.empty() || !self.wanted_server.empty();
    if (wanted && !hinted) out[i].status = KELP_DENIED;
  }
  return KELP_OK;
}
kelp_status kelp_fid_parse(const char* text, kelp_fid* out) {
  *out = {3, 0x637037d6, 1};
  return std::strchr(text, ',') != nullptr ? KELP_OK : KELP_BAD_FID;
}
void kelp_fid_format(const kelp_fid*, char out[40]) {
  std::strcpy(out, "3,01637037d6");
}
const char* kelp_status_name(kelp_status status) {
  return status == KELP_NOT_FOUND ? "not-found" : status == KELP_OK ? "ok" : "other";
}
const char* kelp_status_text(kelp_status) {
  return "The sentence.";
}
const char* kelp_path_name(kelp_path path) {
  switch (path) {
    case KELP_PATH_LOCAL:
      return "local";
    case KELP_PATH_VERBS:
      return "verbs";
    case KELP_PATH_TCP:
      return "tcp";
    case KELP_PATH_HTTP:
      return "http";
    default:
      return "none";
  }
}
const char* kelp_version(void) {
  return "0.1.0";
}
