#include "dataplane/volume/file_system.h"

#include <doctest/doctest.h>
#include <linux/magic.h>

#include <cerrno>

using kelp::check_file_system;
using kelp::classify_file_system;

TEST_CASE("file systems whose attributes are current at once are allowed") {
  for (const std::uint32_t magic : {std::uint32_t{EXT4_SUPER_MAGIC}, std::uint32_t{XFS_SUPER_MAGIC},
                                    std::uint32_t{BTRFS_SUPER_MAGIC}, std::uint32_t{TMPFS_MAGIC},
                                    std::uint32_t{OVERLAYFS_SUPER_MAGIC}}) {
    CHECK(classify_file_system(magic).allowed);
  }
  CHECK(classify_file_system(0xef53).name == "ext2/ext3/ext4");
}

TEST_CASE("network, FUSE and unknown file systems are refused by name") {
  CHECK(classify_file_system(0x6969).name == "nfs");
  CHECK(classify_file_system(0xff534d42).name == "cifs");
  CHECK(classify_file_system(0xfe534d42).name == "smb2");
  CHECK(classify_file_system(0x517b).name == "smb");
  CHECK(classify_file_system(0x65735546).name == "fuse");
  CHECK(classify_file_system(0x00c36400).name == "ceph");
  CHECK(classify_file_system(0x01021997).name == "9p");
  CHECK(classify_file_system(0x2fc12fc1).name == "zfs");
  CHECK(classify_file_system(0x12345678).name == "unknown");
  CHECK(classify_file_system(0).name == "unknown");
  for (const std::uint32_t magic : {0x6969u, 0xff534d42u, 0xfe534d42u, 0x517bu, 0x65735546u,
                                    0x00c36400u, 0x01021997u, 0x2fc12fc1u, 0x12345678u, 0u}) {
    CAPTURE(magic);
    CHECK_FALSE(classify_file_system(magic).allowed);
  }
}

TEST_CASE("a refusal names the path, the file system and the way out") {
  const auto refused = check_file_system("/proc");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().os_error == 0);
  CHECK(refused.error().what.find("/proc is on file system proc (0x00009fa0)") == 0);
  CHECK(refused.error().what.find("ext4, xfs, btrfs, tmpfs or overlayfs") != std::string::npos);
}

TEST_CASE("a path that cannot be asked about is an error with errno") {
  const auto missing = check_file_system("/nonexistent/directory");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().os_error == ENOENT);
}

TEST_CASE("the shared-memory file system is allowed") {
  const auto found = check_file_system("/dev/shm");
  if (!found) {
    MESSAGE("skipped: /dev/shm is no tmpfs here: " << found.error().what);
    return;
  }
  CHECK(*found == "tmpfs");
}
