#include "dataplane/volume/volume_name.h"

#include <charconv>

namespace kelp {
namespace {

std::optional<VolumeId> parse_volume_id(std::string_view text) {
  if (text.size() > 1 && text.front() == '0') return std::nullopt;
  std::uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stopped != end) return std::nullopt;
  return VolumeId{number};
}

/// A name that comes from elsewhere than a directory must not lead out of one.
bool could_be_an_entry(std::string_view name) {
  return name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

std::optional<VolumeName> parse_volume_name(std::string_view entry_name) {
  if (!could_be_an_entry(entry_name)) return std::nullopt;
  const std::size_t dot = entry_name.rfind('.');
  if (dot == std::string_view::npos || dot + 1 == entry_name.size()) return std::nullopt;

  const std::string_view base = entry_name.substr(0, dot);
  const std::size_t underscore = base.rfind('_');
  const bool has_collection = underscore != std::string_view::npos && underscore > 0;
  const auto id = parse_volume_id(has_collection ? base.substr(underscore + 1) : base);
  if (!id) return std::nullopt;
  return VolumeName{.collection = std::string(base.substr(0, has_collection ? underscore : 0)),
                    .id = *id,
                    .extension = entry_name.substr(dot)};
}

std::string volume_base_name(std::string_view collection, VolumeId id) {
  std::string name(collection);
  if (!name.empty()) name += '_';
  return name += std::to_string(static_cast<std::uint32_t>(id));
}

}  // namespace kelp
