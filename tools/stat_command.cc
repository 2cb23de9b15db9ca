#include "tools/stat_command.h"

#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tools/session.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp {
namespace {

// Name and MIME have at most 255 bytes, pairs 64 KiB: this holds any answer whole.
constexpr std::size_t kAnswerBytes = 128 * 1024;

/// A kelp_stat and the texts behind it.
struct NeedleFacts {
  kelp_stat stat;
  std::string name;
  std::string mime;
  std::string pairs;
  kelp_path path;
};

/// Shape: kelp_stat | name | mime | pairs; texts may be cut where the buffer ends.
NeedleFacts decode(const std::byte* answer, const kelp_completion& done) {
  NeedleFacts facts{};
  std::memcpy(&facts.stat, answer, sizeof facts.stat);
  facts.path = static_cast<kelp_path>(done.path);
  std::string_view rest(reinterpret_cast<const char*>(answer), done.bytes);
  rest.remove_prefix(sizeof facts.stat);
  const auto take = [&rest](std::size_t bytes) {
    const std::string_view text = rest.substr(0, bytes);
    rest.remove_prefix(text.size());
    return std::string(text);
  };
  facts.name = take(facts.stat.name_bytes);
  facts.mime = take(facts.stat.mime_bytes);
  facts.pairs = take(facts.stat.pairs_bytes);
  return facts;
}

std::string hex8(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", value);
  return text;
}

std::string as_json(const std::string& fid, const NeedleFacts& facts) {
  const kelp_stat& stat = facts.stat;
  nlohmann::json about = {
      {"fid", fid},
      {"total", stat.total},
      {"stored", stat.stored},
      {"compressed", (stat.flags & KELP_STAT_COMPRESSED) != 0},
      {"chunk_manifest", (stat.flags & KELP_STAT_CHUNK_MANIFEST) != 0},
      {"crc32c", hex8(stat.crc32c)},
      {"modified_s", stat.modified_s},
      {"append_at_ns", stat.append_at_ns},
      {"ttl_minutes", stat.ttl_minutes},
      {"name", facts.name},
      {"mime", facts.mime},
      {"version", stat.version},
      {"path", kelp_path_name(facts.path)},
  };
  // Pairs are an object; should they not parse, they are shown as the text they are.
  nlohmann::json pairs = nlohmann::json::parse(facts.pairs, nullptr, false);
  if (!facts.pairs.empty())
    about["pairs"] = pairs.is_object() ? pairs : nlohmann::json(facts.pairs);
  return about.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string sized(std::uint64_t bytes) {
  const std::string exact = std::to_string(bytes) + " B";
  return bytes < 1024 ? exact : exact + " (" + human_bytes(bytes) + ")";
}

std::string as_text(const std::string& fid, const NeedleFacts& facts, bool colour) {
  const kelp_stat& stat = facts.stat;
  const bool compressed = (stat.flags & KELP_STAT_COMPRESSED) != 0;
  FactList list;
  list.add("file id", {fid});
  list.add("size", {sized(stat.total)});
  list.add("stored", {sized(stat.stored) + (compressed ? ", gzip" : "")});
  list.add("crc32c", {hex8(stat.crc32c)});
  list.add("modified", {human_time(stat.modified_s)});
  if (stat.append_at_ns != 0) list.add("appended", {human_time(stat.append_at_ns / 1000000000)});
  list.add("ttl", {human_ttl(stat.ttl_minutes)});
  if (!facts.name.empty()) list.add("name", {facts.name});
  if (!facts.mime.empty()) list.add("mime", {facts.mime});
  if (!facts.pairs.empty()) list.add("pairs", {facts.pairs});
  if ((stat.flags & KELP_STAT_CHUNK_MANIFEST) != 0) {
    list.add("manifest",
             {"yes: the content is in other needles; read it over HTTP", Tone::kWarning});
  }
  list.add("version", {std::to_string(stat.version)});
  list.add("path", {kelp_path_name(facts.path)});
  return list.text(colour);
}

}  // namespace

Outcome<std::string> run_stat(const CommonOptions& common, const std::string& fid,
                              std::uint32_t timeout_ms, bool colour) {
  const Outcome<std::string> canonical = canonical_fid(fid);
  if (!canonical) return tl::unexpected(canonical.error());
  Outcome<Session> session = Session::open(common, kAnswerBytes);
  if (!session) return tl::unexpected(session.error());
  const Outcome<kelp_completion> done = session->stat(fid, timeout_ms);
  if (!done) return tl::unexpected(done.error());
  const NeedleFacts facts = decode(session->buffer(), *done);
  return common.json ? as_json(*canonical, facts) : as_text(*canonical, facts, colour);
}

}  // namespace kelp
