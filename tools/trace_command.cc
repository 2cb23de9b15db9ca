#include "tools/trace_command.h"

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "tools/control_command.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

constexpr std::size_t kBufferBytes = 4u << 20;
// A master on this network answers within one or two pauses; the longest is a master that is down,
// and the next one asked.
constexpr std::chrono::milliseconds kPause{50};
constexpr std::chrono::seconds kLongestResolve{2};

/// What a trace found, as far as it came.
struct Found {
  json paths;  ///< the daemon's answer
  std::optional<kelp_completion> answer;
  std::optional<Microseconds> resolve;
  std::optional<Microseconds> attach;
  std::optional<Microseconds> read;
};

Outcome<json> resolve(const CommonOptions& common, const std::string& fid) {
  const Clock::time_point give_up = Clock::now() + kLongestResolve;
  while (true) {
    Outcome<json> trace = ask_control(common, "/trace?fid=" + fid);
    if (!trace || field(*trace, "resolving") != true || Clock::now() >= give_up) return trace;
    std::this_thread::sleep_for(kPause);
  }
}

/// The steps after the paths are known. Fills `found` as far as it comes.
Outcome<void> read_once(const CommonOptions& common, const TraceOptions& options, Found& found) {
  Clock::time_point began = Clock::now();
  Outcome<Session> session = Session::open(common, kBufferBytes);
  if (!session) return tl::unexpected(session.error());
  found.attach = Clock::now() - began;
  began = Clock::now();
  const Outcome<kelp_completion> done =
      session->read(options.fid, 0, kBufferBytes, options.timeout_ms);
  found.read = Clock::now() - began;
  found.answer = session->last();
  if (!done) return tl::unexpected(done.error());
  return {};
}

// ---- for people -------------------------------------------------------------------------------

std::string time_text(const std::optional<Microseconds>& time) {
  if (!time) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.3f ms", time->count() / 1e3);
  return text;
}

std::string bytes_text(const kelp_completion& done) {
  std::string text = human_bytes(done.bytes);
  if ((done.flags & KELP_FLAG_TRUNCATED) != 0) text += " of " + human_bytes(done.total);
  if ((done.flags & KELP_FLAG_INFLATED) != 0) text += ", inflated";
  return text + ((done.flags & KELP_FLAG_CRC_VERIFIED) != 0 ? ", checksum verified" : "");
}

void add_answer(const kelp_completion& done, FactList& facts) {
  const auto status = static_cast<kelp_status>(done.status);
  facts.add("status", {kelp_status_name(status), status == KELP_OK ? Tone::kGood : Tone::kBad});
  facts.add("served by", {kelp_path_name(static_cast<kelp_path>(done.path))});
  facts.add("attempts", {std::to_string(done.attempts)});
  if (status == KELP_OK) facts.add("bytes", {bytes_text(done)});
}

std::string as_text(const Found& found, bool colour) {
  FactList facts;
  if (found.answer) add_answer(*found.answer, facts);
  facts.add("attach", {time_text(found.attach)});
  facts.add("resolve", {time_text(found.resolve)});
  facts.add("submit to answer", {time_text(found.read)});
  return view_trace(found.paths, colour) + "\n" + facts.text(colour);
}

// ---- for programs -----------------------------------------------------------------------------

json answer_json(const std::optional<kelp_completion>& answer) {
  if (!answer) return nullptr;
  return {{"status", kelp_status_name(static_cast<kelp_status>(answer->status))},
          {"path", kelp_path_name(static_cast<kelp_path>(answer->path))},
          {"attempts", answer->attempts},
          {"bytes", answer->bytes},
          {"total", answer->total},
          {"truncated", (answer->flags & KELP_FLAG_TRUNCATED) != 0},
          {"crc_verified", (answer->flags & KELP_FLAG_CRC_VERIFIED) != 0},
          {"inflated", (answer->flags & KELP_FLAG_INFLATED) != 0}};
}

std::string as_json(const Found& found) {
  const auto us = [](const std::optional<Microseconds>& time) {
    return time ? json(time->count()) : json(nullptr);
  };
  const json about = {
      {"trace", found.paths},
      {"read", answer_json(found.answer)},
      {"stages_us",
       {{"attach", us(found.attach)}, {"resolve", us(found.resolve)}, {"read", us(found.read)}}}};
  return about.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string view_trace(const json& trace, bool colour) {
  FactList facts;
  facts.add("file id", {field_text(trace, "fid")});
  facts.add("volume", {field_text(trace, "volume")});
  facts.add("needle", {field_text(trace, "needle")});
  facts.add("cookie", {field_text(trace, "cookie")});
  const json& paths = field(trace, "paths");
  if (!paths.is_array() || paths.empty()) return facts.text(colour);
  Table table({{"PATH"}, {"SERVER"}, {"USABLE"}, {"WHY"}});
  for (const json& path : paths) {
    const bool usable = field(path, "usable") == true;
    table.add({{field_text(path, "path")},
               {field_text(path, "server")},
               {field_text(path, "usable"), usable ? Tone::kGood : Tone::kWarning},
               {field_text(path, "why")}});
  }
  return facts.text(colour) + "\n" + table.text(colour);
}

Outcome<void> run_trace(const CommonOptions& common, const TraceOptions& options, bool colour) {
  const Outcome<std::string> fid = canonical_fid(options.fid);
  if (!fid) return tl::unexpected(fid.error());
  Found found;
  const Clock::time_point began = Clock::now();
  Outcome<json> paths = resolve(common, *fid);
  if (!paths) return tl::unexpected(paths.error());
  found.resolve = Clock::now() - began;
  found.paths = std::move(*paths);
  const Outcome<void> done = read_once(common, options, found);
  const Outcome<void> shown = write_stdout(common.json ? as_json(found) : as_text(found, colour));
  return shown ? done : shown;
}

}  // namespace kelp
