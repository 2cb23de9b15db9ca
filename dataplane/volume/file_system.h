// Which file systems volumes may be read from.
// Freshness rests on one property: an fstat here sees at once what the server did to the file. File
// systems that cache attributes, or that let another host or process own the file, break it.
// Set-up code, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shm_ring/result.h"

namespace kelp {

struct FileSystem {
  std::string_view name;  ///< "ext4"; "unknown" for a magic number not in the list
  bool allowed = false;
};

/// What statfs's f_type says. Allowed: ext2/3/4, XFS, Btrfs, tmpfs and overlayfs; nothing else.
FileSystem classify_file_system(std::uint32_t magic) noexcept;

/// The name of the file system `path` is on, or why volumes on it are not read.
Result<std::string> check_file_system(const std::string& path);

}  // namespace kelp
