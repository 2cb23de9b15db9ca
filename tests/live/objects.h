// What the live tests' readers share: objects and the bytes that are expected of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "shm_ring/kelp.h"

namespace kelp::live {

struct Object {
  std::string text;  ///< its file id, as it was written
  kelp_fid fid{};
  std::string bytes;
};

/// CLOCK_MONOTONIC
inline long long now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

/// Ends the program unless `status` is KELP_OK.
inline void give_up_unless_ok(const char* what, kelp_status status) {
  if (status == KELP_OK) return;
  std::fprintf(stderr, "%s: %s: %s\n", what, kelp_status_name(status), kelp_error_detail());
  std::exit(1);
}

/// Of a file with a line "FID<TAB>FILE" per object; FILE holds its bytes.
inline std::vector<Object> load_objects(const char* listing_path) {
  std::vector<Object> objects;
  std::ifstream listing(listing_path);
  for (std::string line; std::getline(listing, line);) {
    const std::size_t tab = line.find('\t');
    std::ifstream file(tab == std::string::npos ? "" : line.substr(tab + 1), std::ios::binary);
    if (!file) give_up_unless_ok(line.c_str(), KELP_INVALID);
    Object object{line.substr(0, tab), {}, {std::istreambuf_iterator<char>(file), {}}};
    give_up_unless_ok(line.c_str(), kelp_fid_parse(object.text.c_str(), &object.fid));
    objects.push_back(std::move(object));
  }
  return objects;
}

/// Of a buffer for an object, in whole pages: one byte more than the object at least, since an
/// answer that is too long is one of another length, too.
inline std::uint32_t capacity_for(const Object& object) {
  constexpr std::size_t kPage = 4096;
  return static_cast<std::uint32_t>((object.bytes.size() + kPage) / kPage * kPage);
}

/// Whether `done` is no answer, or the object in `buffer`.
inline bool is_right(const Object& object, const kelp_completion& done, const void* buffer) {
  return done.status != KELP_OK ||
         (done.bytes == object.bytes.size() && done.total == object.bytes.size() &&
          std::memcmp(buffer, object.bytes.data(), object.bytes.size()) == 0);
}

inline const char* status_of(const kelp_completion& done) {
  return kelp_status_name(static_cast<kelp_status>(done.status));
}

inline const char* path_of(const kelp_completion& done) {
  return kelp_path_name(static_cast<kelp_path>(done.path));
}

}  // namespace kelp::live
