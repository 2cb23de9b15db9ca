#include "tools/read_command.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tools/output_file.h"
#include "tools/session.h"

namespace kelp {
namespace {

constexpr std::uint32_t kChunkBytes = 4u << 20;
constexpr std::uint32_t kSmallestBuffer = 4096;

/// What tells one content of a needle from another.
struct Identity {
  std::uint64_t total;
  std::uint64_t stored;
  std::uint64_t append_at_ns;
  std::uint32_t crc32c;
  friend bool operator==(const Identity&, const Identity&) = default;
};

/// A read on its way: what has been written so far, and what the daemon said about it.
class Reading {
 public:
  Reading(Session& session, OutputFile& output, const ReadOptions& options)
      : session_(session), output_(output), options_(options) {}

  Outcome<void> run() {
    Outcome<kelp_completion> first = next_chunk();
    if (!first) return tl::unexpected(first.error());
    if (ends_with(*first)) return take(*first);
    // More than one chunk: both looks at the needle's identity must enclose every read, so the
    // first chunk is read again after the first look.
    const Outcome<Identity> before = look();
    if (!before) return tl::unexpected(before.error());
    while (true) {
      const Outcome<kelp_completion> chunk = next_chunk();
      if (!chunk) return tl::unexpected(chunk.error());
      if (chunk->total != before->total) return changed();
      if (Outcome<void> taken = take(*chunk); !taken) return taken;
      if (ends_with(*chunk, 0)) break;
      if (chunk->bytes == 0) {
        return fail(ExitCode::kOther, options_.fid + ": the daemon answers no bytes and no end");
      }
    }
    const Outcome<Identity> after = look();
    if (!after) return tl::unexpected(after.error());
    return *after == *before ? Outcome<void>() : changed();
  }

  /// About the read, for --json.
  std::string summary() const {
    const nlohmann::json about = {
        {"fid", options_.fid},
        {"status", "ok"},
        {"path", kelp_path_name(static_cast<kelp_path>(last_.path))},
        {"offset", options_.offset},
        {"bytes", written_},
        {"total", last_.total},
        {"requests", requests_},
        {"attempts", attempts_},
        {"crc_verified", crc_verified_},
        {"inflated", (last_.flags & KELP_FLAG_INFLATED) != 0},
    };
    return about.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }

 private:
  std::uint64_t wanted() const { return options_.size ? *options_.size - written_ : UINT64_MAX; }

  Outcome<kelp_completion> next_chunk() {
    const auto length =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted(), session_.buffer_bytes()));
    return session_.read(options_.fid, options_.offset + written_, length, options_.timeout_ms);
  }

  /// True if nothing more is to be read once `pending` bytes of this chunk are written.
  bool ends_with(const kelp_completion& chunk, std::uint64_t pending) const {
    return (chunk.flags & KELP_FLAG_TRUNCATED) == 0 || wanted() <= pending;
  }
  bool ends_with(const kelp_completion& chunk) const { return ends_with(chunk, chunk.bytes); }

  Outcome<void> take(const kelp_completion& chunk) {
    last_ = chunk;
    ++requests_;
    attempts_ = std::max<unsigned>(attempts_, chunk.attempts);
    crc_verified_ = crc_verified_ && (chunk.flags & KELP_FLAG_CRC_VERIFIED) != 0;
    written_ += chunk.bytes;
    return output_.write(session_.buffer(), chunk.bytes);
  }

  Outcome<Identity> look() {
    const Outcome<kelp_completion> done = session_.stat(options_.fid, options_.timeout_ms);
    if (!done) return tl::unexpected(done.error());
    kelp_stat stat{};
    std::memcpy(&stat, session_.buffer(), sizeof stat);
    return Identity{stat.total, stat.stored, stat.append_at_ns, stat.crc32c};
  }

  Outcome<void> changed() const {
    return fail(ExitCode::kOther,
                options_.fid + ": the needle was overwritten while it was read; read it again");
  }

  Session& session_;
  OutputFile& output_;
  const ReadOptions& options_;
  kelp_completion last_{};
  std::uint64_t written_ = 0;
  std::uint64_t requests_ = 0;
  unsigned attempts_ = 0;
  bool crc_verified_ = true;
};

std::size_t buffer_for(const ReadOptions& options) {
  return std::clamp<std::uint64_t>(options.size.value_or(kChunkBytes), kSmallestBuffer,
                                   kChunkBytes);
}

}  // namespace

Outcome<void> run_read(const CommonOptions& common, const ReadOptions& options) {
  if (const auto fid = canonical_fid(options.fid); !fid) return tl::unexpected(fid.error());
  Outcome<Session> session = Session::open(common, buffer_for(options));
  if (!session) return tl::unexpected(session.error());
  if (Outcome<void> given = session->give_hints(options.token, options.volume_server); !given) {
    return given;
  }
  Outcome<OutputFile> output = OutputFile::open(options.output);
  if (!output) return tl::unexpected(output.error());

  Reading reading(*session, *output, options);
  Outcome<void> done = reading.run();
  if (done) done = output->commit();
  if (done && common.json) std::fputs(reading.summary().c_str(), stderr);
  return done;
}

}  // namespace kelp
