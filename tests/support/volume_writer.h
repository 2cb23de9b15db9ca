// A volume on disk, written the way a server writes one: records and rows by pwrite() at ends it
// remembers, a vacuum by two renames. Test code: whatever goes wrong throws.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle.h"
#include "dataplane/volume/needle_map.h"
#include "dataplane/volume/volume.h"
#include "shm_ring/unique_fd.h"
#include "support/hex_bytes.h"
#include "support/temp_dir.h"

namespace kelp::test {

inline void append_be(std::vector<std::byte>& to, std::uint64_t value, std::size_t count) {
  for (std::size_t i = count; i-- > 0;) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

inline std::vector<std::byte> row_of(const IndexRow& row, OffsetWidth width) {
  std::vector<std::byte> bytes;
  const std::uint64_t units = row.offset_bytes / kNeedleAlignment;
  append_be(bytes, static_cast<std::uint64_t>(row.id), 8);
  append_be(bytes, units & 0xffffffff, 4);
  if (width == OffsetWidth::kFive) append_be(bytes, units >> 32, 1);
  append_be(bytes, static_cast<std::uint32_t>(row.size), 4);
  return bytes;
}

/// What a record holds. Fields are stored when they are set; version 1 stores the data alone.
struct TestNeedle {
  std::uint64_t id = 1;
  std::uint32_t cookie = 0x637037d6;
  std::vector<std::byte> data;
  std::uint8_t extra_flags = 0;  ///< compressed, chunk manifest
  std::optional<std::string> name{};
  std::optional<std::string> mime{};
  std::optional<std::uint64_t> last_modified_s{};
  std::optional<Ttl> ttl{};
  std::optional<std::string> pairs{};
  std::uint64_t append_at_ns = 1'700'000'000'000'000'000;
  std::optional<std::uint32_t> checksum{};  ///< the right one if not set
};

inline std::vector<std::byte> meta_of(const TestNeedle& needle) {
  std::vector<std::byte> meta{std::byte{0}};
  std::uint8_t flags = needle.extra_flags;
  const auto add_text = [&](const std::optional<std::string>& text, std::uint8_t flag,
                            std::size_t length_bytes) {
    if (!text) return;
    flags |= flag;
    append_be(meta, text->size(), length_bytes);
    for (const char c : *text) meta.push_back(static_cast<std::byte>(c));
  };
  add_text(needle.name, kFlagHasName, 1);
  add_text(needle.mime, kFlagHasMime, 1);
  if (needle.last_modified_s) {
    flags |= kFlagHasLastModified;
    append_be(meta, *needle.last_modified_s, 5);
  }
  if (needle.ttl) {
    flags |= kFlagHasTtl;
    append_be(meta, needle.ttl->count, 1);
    append_be(meta, needle.ttl->unit, 1);
  }
  add_text(needle.pairs, kFlagHasPairs, 2);
  meta[0] = static_cast<std::byte>(flags);
  return meta;
}

struct TestRecord {
  std::vector<std::byte> bytes;
  std::int32_t body_bytes = 0;
};

inline TestRecord record_of(const TestNeedle& needle, std::uint8_t version) {
  std::vector<std::byte> body;
  if (version == 1) {
    body = needle.data;
  } else if (!needle.data.empty()) {
    append_be(body, needle.data.size(), 4);
    body.insert(body.end(), needle.data.begin(), needle.data.end());
    const auto meta = meta_of(needle);
    body.insert(body.end(), meta.begin(), meta.end());
  }
  TestRecord record;
  record.body_bytes = static_cast<std::int32_t>(body.size());
  append_be(record.bytes, needle.cookie, 4);
  append_be(record.bytes, needle.id, 8);
  append_be(record.bytes, body.size(), 4);
  record.bytes.insert(record.bytes.end(), body.begin(), body.end());
  append_be(record.bytes, needle.checksum.value_or(crc32c(needle.data)), 4);
  if (version == 3) append_be(record.bytes, needle.append_at_ns, 8);
  record.bytes.resize(record_bytes(record.body_bytes, version), std::byte{0xee});  // garbage
  return record;
}

class VolumeWriter {
 public:
  struct Options {
    OffsetWidth width = OffsetWidth::kFour;
    std::uint8_t version = 3;
    std::uint32_t id = 7;
    std::string collection{};
    bool with_vif = true;
    std::filesystem::path idx_dir{};  ///< where the .idx lies; beside the .dat if empty
  };

  VolumeWriter(const std::filesystem::path& directory, Options options)
      : options_(std::move(options)) {
    const std::string base = (options_.collection.empty() ? "" : options_.collection + "_") +
                             std::to_string(options_.id);
    const std::string data = directory / base;
    const std::filesystem::path idx_dir = options_.idx_dir.empty() ? directory : options_.idx_dir;
    paths_ = {.dat = data + ".dat",
              .idx = idx_dir / (base + ".idx"),
              .vif = data + ".vif",
              .compaction_marker = data + ".cpc",
              .copy_marker = data + ".note"};
    dat_ = create(paths_.dat);
    idx_ = create(paths_.idx);
    dat_end_ = write_super_block(dat_, 0);
    if (options_.with_vif) write_vif(R"({"bytesOffset": )" + width_text() + "}");
  }

  const VolumePaths& paths() const { return paths_; }
  const Options& options() const { return options_; }
  VolumeId id() const { return VolumeId{options_.id}; }
  std::uint64_t dat_end() const { return dat_end_; }
  std::uint64_t idx_end() const { return idx_end_; }
  int dat_fd() const { return dat_.get(); }
  std::size_t row_size() const { return row_bytes(options_.width); }

  /// Appends record and row; the location as the index has it now.
  NeedleLocation put(const TestNeedle& needle) {
    const NeedleLocation at = put_record(needle);
    append_row({NeedleId{needle.id}, at.offset_bytes, at.body_bytes});
    live_[needle.id] = at;
    return at;
  }
  NeedleLocation put(std::uint64_t id, std::string_view text) {
    return put({.id = id, .data = text_bytes(text)});
  }

  NeedleLocation put_record(const TestNeedle& needle) {
    const TestRecord record = record_of(needle, options_.version);
    const NeedleLocation at{dat_end_, record.body_bytes};
    write_at(dat_, record.bytes, dat_end_);
    dat_end_ += record.bytes.size();
    return at;
  }

  /// Appends a tombstone, and its row.
  void remove(std::uint64_t id) {
    const NeedleLocation at = put_record({.id = id, .data = {}});
    append_row({NeedleId{id}, at.offset_bytes, -1});
    live_.erase(id);
  }

  void append_row(const IndexRow& row) { append_to_index(row_of(row, options_.width)); }
  void append_to_index(std::span<const std::byte> bytes) {
    write_at(idx_, bytes, idx_end_);
    idx_end_ += bytes.size();
  }

  /// A batched fsync that failed: the last records are cut off, their rows stay.
  void roll_back_dat(std::uint64_t end) {
    check(::ftruncate(dat_.get(), static_cast<off_t>(end)), "truncate");
    dat_end_ = end;
  }

  /// Copies the live needles in key order into new files; nothing is swapped yet.
  void compact() {
    UniqueFd dat = create(compacted_dat());
    UniqueFd idx = create(compacted_idx());
    std::uint64_t dat_end = write_super_block(dat, static_cast<std::uint16_t>(revision_ + 1));
    std::uint64_t idx_end = 0;
    for (auto& [id, at] : live_) {
      std::vector<std::byte> record(record_bytes(at.body_bytes, options_.version));
      check(::pread(dat_.get(), record.data(), record.size(), static_cast<off_t>(at.offset_bytes)),
            "read");
      write_at(dat, record, dat_end);
      at.offset_bytes = dat_end;
      dat_end += record.size();
      const auto row = row_of({NeedleId{id}, at.offset_bytes, at.body_bytes}, options_.width);
      write_at(idx, row, idx_end);
      idx_end += row.size();
    }
    dat_ = std::move(dat);
    idx_ = std::move(idx);
    dat_end_ = dat_end;
    idx_end_ = idx_end;
    ++revision_;
  }
  // The steps of the commit, for tests that look in between.
  void mark_compaction() { create(paths_.compaction_marker); }
  void swap_dat() { check(::rename(compacted_dat().c_str(), paths_.dat.c_str()), "rename .dat"); }
  void swap_idx() { check(::rename(compacted_idx().c_str(), paths_.idx.c_str()), "rename .idx"); }
  void unmark_compaction() { check(::unlink(paths_.compaction_marker.c_str()), "unlink .cpc"); }
  /// A vacuum up to where only unmark_compaction() is left.
  void begin_commit() {
    compact();
    mark_compaction();
    swap_dat();
    swap_idx();
  }

  void vacuum() {
    begin_commit();
    unmark_compaction();
  }

  /// A backup by hard links, beside the files.
  void snapshot() {
    check(::link(paths_.dat.c_str(), (paths_.dat + ".snap").c_str()), "link");
    check(::link(paths_.idx.c_str(), (paths_.idx + ".snap").c_str()), "link");
  }

  /// What `weed fix` does: the same inode, emptied and filled again.
  void rewrite_idx(std::span<const std::byte> bytes) {
    UniqueFd fd(::open(paths_.idx.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    check(fd.get(), "open .idx");
    write_at(fd, bytes, 0);
    idx_end_ = bytes.size();
  }

  std::vector<std::byte> idx_bytes() const {
    std::vector<std::byte> bytes(idx_end_);
    check(::pread(idx_.get(), bytes.data(), bytes.size(), 0), "read .idx");
    return bytes;
  }

  void truncate_idx(std::uint64_t bytes) {
    check(::ftruncate(idx_.get(), static_cast<off_t>(bytes)), "truncate");
    idx_end_ = bytes;
  }
  void unlink_all() {
    ::unlink(paths_.dat.c_str());
    ::unlink(paths_.idx.c_str());
  }

  void write_vif(std::string_view text) { write_file(paths_.vif, text_bytes(text)); }

  static void write_file(const std::string& path, std::span<const std::byte> bytes) {
    const UniqueFd fd = create(path);
    write_at(fd, bytes, 0);
  }

 private:
  static void check(std::int64_t rc, const char* what) {
    if (rc < 0) throw std::system_error(errno, std::generic_category(), what);
  }
  static UniqueFd create(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    check(fd.get(), path.c_str());
    return fd;
  }
  static void write_at(const UniqueFd& fd, std::span<const std::byte> bytes, std::uint64_t at) {
    if (bytes.empty()) return;
    const ssize_t n = ::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    check(n, "write");
    if (n != static_cast<ssize_t>(bytes.size())) throw std::runtime_error("short write");
  }
  std::uint64_t write_super_block(const UniqueFd& fd, std::uint16_t revision) const {
    std::vector<std::byte> block{std::byte{options_.version}, {}, {}, {}};
    append_be(block, revision, 2);
    append_be(block, 0, 2);
    write_at(fd, block, 0);
    return block.size();
  }
  std::string width_text() const { return std::to_string(static_cast<unsigned>(options_.width)); }
  std::string compacted_dat() const { return sibling(paths_.dat, ".cpd"); }
  std::string compacted_idx() const { return sibling(paths_.idx, ".cpx"); }
  static std::string sibling(const std::string& path, const char* extension) {
    return std::filesystem::path(path).replace_extension(extension);
  }

  Options options_;
  VolumePaths paths_;
  UniqueFd dat_;
  UniqueFd idx_;
  std::uint64_t dat_end_ = 0;
  std::uint64_t idx_end_ = 0;
  std::uint16_t revision_ = 0;
  std::map<std::uint64_t, NeedleLocation> live_;
};

}  // namespace kelp::test
