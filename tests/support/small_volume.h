// Writes a version 3 volume with 4-byte offsets, a needle at a time, the way a server does: the
// record first, then its index row. Just enough for tests of the worker.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataplane/volume/crc32c.h"
#include "dataplane/volume/needle.h"
#include "shm_ring/kelp.h"
#include "shm_ring/unique_fd.h"

namespace kelp::test {

/// Bytes that differ from needle to needle and from place to place.
inline std::vector<std::byte> pattern(std::size_t length, std::uint64_t seed) {
  std::vector<std::byte> bytes(length);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

class SmallVolume {
 public:
  /// Creates <dir>/<id>.dat, .idx and .vif, empty.
  SmallVolume(const std::filesystem::path& dir, std::uint32_t id) : id_(id) {
    const std::string base = (dir / std::to_string(id)).string();
    std::ofstream(base + ".vif") << R"({"version":3,"bytesOffset":4})";
    dat_ = create(base + ".dat");
    append(dat_.get(), std::vector<std::byte>{std::byte{3}, {}, {}, {}, {}, {}, {}, {}});
    idx_ = create(base + ".idx");
  }

  /// Appends a needle with nothing but data and `flags`.
  kelp_fid put(std::uint64_t needle, std::uint32_t cookie, std::span<const std::byte> data,
               std::uint8_t flags = 0) {
    const auto offset = static_cast<std::uint64_t>(::lseek(dat_.get(), 0, SEEK_END));
    const auto body = static_cast<std::int32_t>(data.empty() ? 0 : data.size() + 5);
    std::vector<std::byte> record;
    put_be(record, cookie, 4);
    put_be(record, needle, 8);
    put_be(record, static_cast<std::uint32_t>(body), 4);
    if (!data.empty()) {
      put_be(record, data.size(), 4);
      record.insert(record.end(), data.begin(), data.end());
      put_be(record, flags, 1);
    }
    put_be(record, crc32c(data), 4);
    put_be(record, 1'700'000'000'000'000'000, 8);
    record.resize(record.size() + padding_bytes(body, 3));
    append(dat_.get(), record);
    add_row(needle, offset / 8, body);
    return {id_, cookie, needle};
  }

  void remove(std::uint64_t needle) { add_row(needle, 0, -1); }

 private:
  static UniqueFd create(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644));
    if (!fd) throw std::runtime_error("cannot create " + path);
    return fd;
  }
  static void append(int fd, std::span<const std::byte> bytes) {
    if (::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("cannot write a test volume");
    }
  }
  static void put_be(std::vector<std::byte>& to, std::uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; --i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  void add_row(std::uint64_t needle, std::uint64_t offset, std::int32_t size) {
    std::vector<std::byte> row;
    put_be(row, needle, 8);
    put_be(row, offset, 4);
    put_be(row, static_cast<std::uint32_t>(size), 4);
    append(idx_.get(), row);
  }

  std::uint32_t id_;
  UniqueFd dat_;
  UniqueFd idx_;
};

}  // namespace kelp::test
