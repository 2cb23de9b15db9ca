#include "tools/session.h"

namespace kelp {
namespace {

/// A page beside the buffer.
constexpr std::size_t kHintsRoom = 4096;

tl::unexpected<Failure> refused(const char* what, kelp_status status) {
  return tl::unexpected(Failure{exit_code_of(status),
                                std::string(what) + ": " + kelp_error_detail(),
                                kelp_status_name(status)});
}

}  // namespace

Outcome<std::string> canonical_fid(const std::string& fid) {
  kelp_fid parsed;
  char text[40];
  if (kelp_fid_parse(fid.c_str(), &parsed) != KELP_OK) {
    return fail(ExitCode::kUsage, "\"" + fid + "\" is not a file id, like 3,01637037d6");
  }
  kelp_fid_format(&parsed, text);
  return text;
}

Outcome<Session> Session::open(const CommonOptions& options, std::size_t buffer_bytes) {
  kelp_options wanted = KELP_OPTIONS_INIT;
  wanted.data_bytes = buffer_bytes + kHintsRoom;
  wanted.run_dir = options.run_dir ? options.run_dir->c_str() : nullptr;
  wanted.name = "kelpctl";
  kelp_connection* raw = nullptr;
  kelp_status status = kelp_connect(&wanted, &raw);
  Connection connection(raw);
  if (status != KELP_OK) return refused("cannot connect", status);

  kelp_channel* channel = nullptr;
  void* buffer = nullptr;
  status = kelp_channel_open(raw, &channel);
  if (status != KELP_OK) return refused("cannot open a channel", status);
  status = kelp_buffer_alloc(raw, buffer_bytes, &buffer);
  if (status != KELP_OK) return refused("cannot take a buffer", status);
  return Session(std::move(connection), channel, static_cast<std::byte*>(buffer), buffer_bytes);
}

Outcome<kelp_completion> Session::judge(const std::string& fid, kelp_status status,
                                        const kelp_completion& done, bool of_daemon) {
  if (status == KELP_OK) return done;
  const char* name = kelp_status_name(status);
  const char* why = of_daemon ? kelp_status_text(status) : kelp_error_detail();
  return tl::unexpected(Failure{exit_code_of(status), fid + ": " + name + ": " + why, name});
}

Outcome<void> Session::give_hints(const std::string& token, const std::string& volume_server) {
  if (token.empty() && volume_server.empty()) return {};
  kelp_status status = kelp_buffer_alloc(connection_.get(), KELP_HINTS_BYTES, &hints_);
  if (status != KELP_OK) return refused("cannot take a buffer for hints", status);
  const kelp_hints hints{token.c_str(), volume_server.c_str()};
  status = kelp_hints_put(hints_, &hints);
  if (status != KELP_OK) return refused("cannot give hints", status);
  return {};
}

/// Of this library, or the completion's own.
kelp_status Session::run(kelp_request& request, kelp_completion& done) {
  request.buffer = buffer_;
  request.hints = hints_;
  const kelp_status status = kelp_read_many(channel_, &request, 1, &done);
  return status == KELP_OK ? static_cast<kelp_status>(done.status) : status;
}

Outcome<kelp_completion> Session::read(const std::string& fid, std::uint64_t offset,
                                       std::uint32_t length, std::uint32_t timeout_ms) {
  kelp_completion done{};
  kelp_request request{};
  kelp_status status = kelp_fid_parse(fid.c_str(), &request.fid);
  if (status != KELP_OK) return judge(fid, status, done, false);
  request.offset = offset;
  request.length = length;
  request.timeout_us = timeout_ms * 1000;
  status = run(request, done);
  last_ = done;
  last_.status = static_cast<std::uint8_t>(status);
  // Statuses below 64 travel in completions; above, the library has a sentence of its own.
  if (status == KELP_OK && done.bytes > length) {
    return fail(ExitCode::kOther, fid + ": the daemon claims more bytes than were asked for");
  }
  return judge(fid, status, done, status < KELP_DISCONNECTED);
}

Outcome<void> Session::ping(std::uint32_t timeout_ms) {
  kelp_completion done{};
  kelp_request request{};
  request.op = KELP_OP_NOP;
  request.timeout_us = timeout_ms * 1000;
  kelp_status status = kelp_read_many(channel_, &request, 1, &done);
  if (status == KELP_OK) status = static_cast<kelp_status>(done.status);
  if (status != KELP_OK) return refused("no answer", status);
  return {};
}

Outcome<kelp_completion> Session::stat(const std::string& fid, std::uint32_t timeout_ms) {
  kelp_completion done{};
  kelp_request request{};
  kelp_status status = kelp_fid_parse(fid.c_str(), &request.fid);
  if (status != KELP_OK) return judge(fid, status, done, true);
  request.op = KELP_OP_STAT;
  request.length = static_cast<std::uint32_t>(buffer_bytes_);
  request.timeout_us = timeout_ms * 1000;
  status = run(request, done);
  if (status == KELP_OK && (done.bytes < sizeof(kelp_stat) || done.bytes > buffer_bytes_)) {
    return fail(ExitCode::kOther, fid + ": the daemon's answer to a stat has a size of its own");
  }
  return judge(fid, status, done, status < KELP_DISCONNECTED);
}

}  // namespace kelp
