#include "tools/bench/expected.h"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

#include "tools/bench/http_connection.h"
#include "tools/bench/prepare.h"
#include "tools/session.h"

namespace kelp::bench {
namespace {

constexpr std::uint64_t kMostBytes = 2ULL << 30;
constexpr std::size_t kChunkBytes = 4 << 20;
constexpr std::string_view kHttp = "http://";

Outcome<void> too_much(std::uint64_t bytes) {
  if (bytes <= kMostBytes) return {};
  return fail(ExitCode::kUsage, "--verify keeps all objects in memory, at most 2 GiB: name fewer");
}

Outcome<void> fetch_over_http(std::string server, std::vector<Object>& objects) {
  if (server.ends_with('/')) server.pop_back();
  auto connection = HttpConnection::open(server);
  if (!connection) return fail(ExitCode::kOther, connection.error().what);
  std::uint64_t bytes = 0;
  for (Object& object : objects) {
    const auto answer = connection->get(object.path);
    if (!answer) return fail(ExitCode::kOther, answer.error().what);
    // Anything but 200: not readable, so Kelp must not answer it either.
    if (answer->status != 200) continue;
    bytes += answer->body.size();
    if (auto fits = too_much(bytes); !fits) return fits;
    object.expected.emplace(answer->body.begin(), answer->body.end());
  }
  return {};
}

/// Lower-case hex, as sha256sum prints it.
std::string sha256(std::span<const char> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  ::EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, ::EVP_sha256(), nullptr);
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    char hex[3];
    std::snprintf(hex, sizeof hex, "%02x", digest[i]);
    text += hex;
  }
  return text;
}

/// Lines "SHA256  FID", as sha256sum prints them; the file id may be in any form.
Outcome<std::map<std::string, std::string>> load_sums(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(ExitCode::kUsage, "cannot open " + path + ": " + std::strerror(errno));
  std::map<std::string, std::string> sums;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty() || line.starts_with('#')) continue;
    const std::size_t space = line.find(' ');
    const std::size_t name =
        space == std::string::npos ? space : line.find_first_not_of(" *", space);
    kelp_fid fid;
    if (space != 64 || name == std::string::npos ||
        line.find_first_not_of("0123456789abcdef") != space ||
        kelp_fid_parse(line.c_str() + name, &fid) != KELP_OK) {
      return fail(ExitCode::kUsage, path + ", line " + std::to_string(number) +
                                        ": not a SHA-256 in hex, spaces and a file id");
    }
    char canonical[40];
    kelp_fid_format(&fid, canonical);
    sums[canonical] = line.substr(0, space);
  }
  return sums;
}

Outcome<std::vector<char>> read_whole(Session& session, const std::string& fid,
                                      std::uint32_t timeout_ms) {
  std::vector<char> bytes;
  while (true) {
    const auto done = session.read(fid, bytes.size(), kChunkBytes, timeout_ms);
    if (!done) return tl::unexpected(done.error());
    const auto* from = reinterpret_cast<const char*>(session.buffer());
    bytes.insert(bytes.end(), from, from + done->bytes);
    if ((done->flags & KELP_FLAG_TRUNCATED) == 0) return bytes;
    if (auto fits = too_much(bytes.size()); !fits) return tl::unexpected(fits.error());
  }
}

Outcome<void> fetch_by_sums(const Options& options, std::vector<Object>& objects) {
  const auto sums = load_sums(options.verify);
  if (!sums) return tl::unexpected(sums.error());
  Outcome<Session> session = Session::open(options.common, kChunkBytes);
  if (!session) return tl::unexpected(session.error());
  std::uint64_t total = 0;
  for (Object& object : objects) {
    const auto sum = sums->find(object.name());
    if (sum == sums->end()) {
      return fail(ExitCode::kUsage, options.verify + " has no sum of " + object.name());
    }
    auto bytes = read_whole(*session, object.name(), options.timeout_ms);
    if (!bytes) return tl::unexpected(bytes.error());
    if (const std::string found = sha256(*bytes); found != sum->second) {
      return fail(kWrongBytes, object.name() + ": wrong bytes: the SHA-256 is " + found + ", and " +
                                   options.verify + " says " + sum->second);
    }
    total += bytes->size();
    if (auto fits = too_much(total); !fits) return fits;
    object.expected = std::move(*bytes);
  }
  return {};
}

}  // namespace

Outcome<void> fetch_expected(const Options& options, std::vector<Object>& objects) {
  if (options.verify.starts_with(kHttp)) {
    return fetch_over_http(options.verify.substr(kHttp.size()), objects);
  }
  return fetch_by_sums(options, objects);
}

}  // namespace kelp::bench
