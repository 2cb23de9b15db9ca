#include "sidecar/read_params.h"

#include <array>

namespace kelp::sidecar {
namespace {

constexpr std::uint64_t kMostVolume = UINT32_MAX;
constexpr std::uint64_t kMostCookie = UINT32_MAX;

/// Those of /read, and that of /benchmark, which names a needle as /read does. Others are ignored.
constexpr std::array<std::string_view, 10> kKnown = {
    "file_id", "volume", "needle",        "cookie", "offset",
    "size",    "format", "volume_server", "jwt",    "iterations"};

std::string wrong(std::string_view name, std::string_view wanted) {
  return "parameter " + std::string(name) + " is not " + std::string(wanted);
}

/// A number up to `most` under that name; nothing where it is missing or not one.
std::optional<std::uint64_t> number(const Query& query, std::string_view name, std::uint64_t most,
                                    std::string& problem) {
  const std::optional<std::string_view> text = query.find(name);
  if (!text) {
    problem =
        "a needle is named by file_id, or by volume, needle and cookie: " + std::string(name) +
        " is missing";
    return std::nullopt;
  }
  const std::optional<std::uint64_t> value = parse_number(*text);
  if (!value || *value > most) {
    problem = wrong(
        name, "a whole number from 0 to " + std::to_string(most) + ", in decimal or as 0x...");
    return std::nullopt;
  }
  return value;
}

std::optional<FileId> needle_of(const Query& query, std::string& problem) {
  if (const std::optional<std::string_view> text = query.find("file_id")) {
    for (const std::string_view other : {"volume", "needle", "cookie"}) {
      if (!query.find(other)) continue;
      problem = "file_id says all of it: " + std::string(other) + " is one too many";
      return std::nullopt;
    }
    // The parser takes the URL forms of weed too; those end in what is no part of the id.
    const std::optional<FileId> fid = text->size() < 4096 ? parse_file_id(*text) : std::nullopt;
    if (!fid) problem = "file_id is not a file id; one looks like 3,01637037d6";
    return fid;
  }
  const auto volume = number(query, "volume", kMostVolume, problem);
  if (!volume) return std::nullopt;
  const auto needle = number(query, "needle", UINT64_MAX, problem);
  if (!needle) return std::nullopt;
  const auto cookie = number(query, "cookie", kMostCookie, problem);
  if (!cookie) return std::nullopt;
  return FileId{VolumeId{static_cast<std::uint32_t>(*volume)}, NeedleId{*needle},
                Cookie{static_cast<std::uint32_t>(*cookie)}};
}

/// 0 where it is missing. False: it is there and not a number.
bool extent(const Query& query, std::string_view name, std::uint64_t& value, std::string& problem) {
  const std::optional<std::string_view> text = query.find(name);
  if (!text) return true;
  const std::optional<std::uint64_t> given = parse_decimal(*text);
  if (!given) {
    problem = wrong(name, "a whole number of bytes in decimal, from 0 to 2^64-1");
    return false;
  }
  value = *given;
  return true;
}

/// "127.0.0.1:8080" of "http://127.0.0.1:8080/"; the daemon judges it.
std::string_view without_scheme(std::string_view url) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (url.starts_with(scheme)) url.remove_prefix(scheme.size());
  }
  while (url.ends_with('/')) url.remove_suffix(1);
  return url;
}

}  // namespace

std::optional<ReadParams> parse_read_params(const Query& query, std::string& problem) {
  if (const std::string_view name = query.repeated(kKnown); !name.empty()) {
    problem = "parameter " + std::string(name) + " is given more than once";
    return std::nullopt;
  }
  ReadParams params;
  const std::optional<FileId> fid = needle_of(query, problem);
  if (!fid) return std::nullopt;
  params.fid = *fid;
  if (!extent(query, "offset", params.offset, problem) ||
      !extent(query, "size", params.size, problem)) {
    return std::nullopt;
  }
  if (params.size > UINT64_MAX - params.offset) {
    problem = "offset and size together are more than 2^64-1";
    return std::nullopt;
  }
  if (const std::optional<std::string_view> format = query.find("format")) {
    params.json = *format == "json";
    if (!params.json && *format != "raw") {
      problem = wrong("format", "json or raw");
      return std::nullopt;
    }
  }
  params.volume_server = without_scheme(query.find("volume_server").value_or(""));
  params.token = query.find("jwt").value_or("");
  return params;
}

}  // namespace kelp::sidecar
