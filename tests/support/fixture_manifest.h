// The fixture volumes under tests/fixtures (see the README there): file reading and manifest rows.
// Test code: a missing fixture throws, and the test that asked for it fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace kelp::test {

inline std::filesystem::path fixtures_dir() {
  return std::filesystem::path(KELP_TESTS_DIR) / "fixtures";
}

/// The two fixture families: written by a server with 4-byte and with 5-byte offsets.
inline const std::vector<std::string>& fixture_families() {
  static const std::vector<std::string> families{"v4b", "v5b"};
  return families;
}

inline std::vector<std::byte> read_fixture(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path.string());
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto* const first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

/// One line of manifest.jsonl. `fields` holds all of it; the README names them.
struct ManifestRow {
  std::string family;  ///< "v4b" or "v5b"
  std::string set;     ///< "vs", "broken", or "ec", which is packed and has no folder
  std::string collection;
  std::string kind;
  std::string fid;
  std::uint32_t volume = 0;
  nlohmann::json fields;

  bool has(const std::string& name) const { return fields.contains(name); }

  /// A field as a number or a string; absent reads as 0 or "".
  template <class T>
  T get(const std::string& name) const {
    return fields.value(name, T{});
  }

  /// ".dat" or ".idx" of the row's volume.
  std::filesystem::path file(const std::string& extension) const {
    const std::string prefix = collection.empty() ? "" : collection + "_";
    return fixtures_dir() / family / set / (prefix + std::to_string(volume) + extension);
  }
};

inline std::vector<ManifestRow> read_manifest(const std::string& family) {
  std::ifstream file(fixtures_dir() / family / "manifest.jsonl");
  if (!file) throw std::runtime_error("no manifest of fixture family " + family);
  std::vector<ManifestRow> rows;
  for (std::string line; std::getline(file, line);) {
    nlohmann::json fields = nlohmann::json::parse(line);
    rows.push_back({.family = family,
                    .set = fields.at("set"),
                    .collection = fields.at("collection"),
                    .kind = fields.at("kind"),
                    .fid = fields.at("fid"),
                    .volume = fields.at("volume"),
                    .fields = fields});
  }
  return rows;
}

/// Every row of both families whose record can be looked at here: it has an offset, and is not EC.
inline std::vector<ManifestRow> rows_with_records() {
  std::vector<ManifestRow> found;
  for (const std::string& family : fixture_families()) {
    for (ManifestRow& row : read_manifest(family)) {
      if (row.has("dat_offset") && row.set != "ec") found.push_back(std::move(row));
    }
  }
  return found;
}

}  // namespace kelp::test
