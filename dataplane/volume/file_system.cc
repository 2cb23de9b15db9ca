#include "dataplane/volume/file_system.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <array>
#include <cerrno>
#include <cstdio>

namespace kelp {
namespace {

// Not in linux/magic.h of every distribution, or of none: the modules live outside the kernel tree.
constexpr std::uint32_t kCephMagic = 0x00c36400;
constexpr std::uint32_t kSmb2Magic = 0xfe534d42;
constexpr std::uint32_t kCifsMagic = 0xff534d42;
constexpr std::uint32_t kZfsMagic = 0x2fc12fc1;
constexpr std::uint32_t kLustreMagic = 0x0bd00bd0;
constexpr std::uint32_t kGpfsMagic = 0x47504653;
constexpr std::uint32_t kGfs2Magic = 0x01161970;
constexpr std::uint32_t kOcfs2Magic = 0x7461636f;
constexpr std::uint32_t kBeegfsMagic = 0x19830326;
constexpr std::uint32_t kExfatMagic = 0x2011bab0;
constexpr std::uint32_t kNtfs3Magic = 0x7366746e;
constexpr std::uint32_t kBcachefsMagic = 0xca451a4e;
constexpr std::uint32_t kVirtualBoxMagic = 0x786f4256;

struct Entry {
  std::uint32_t magic;
  FileSystem file_system;
};

constexpr std::array kKnown{
    Entry{EXT4_SUPER_MAGIC, {"ext2/ext3/ext4", true}},
    Entry{XFS_SUPER_MAGIC, {"xfs", true}},
    Entry{BTRFS_SUPER_MAGIC, {"btrfs", true}},
    Entry{TMPFS_MAGIC, {"tmpfs", true}},
    Entry{OVERLAYFS_SUPER_MAGIC, {"overlayfs", true}},
    Entry{NFS_SUPER_MAGIC, {"nfs", false}},
    Entry{SMB_SUPER_MAGIC, {"smb", false}},
    Entry{kSmb2Magic, {"smb2", false}},
    Entry{kCifsMagic, {"cifs", false}},
    Entry{FUSE_SUPER_MAGIC, {"fuse", false}},
    Entry{kCephMagic, {"ceph", false}},
    Entry{V9FS_MAGIC, {"9p", false}},
    Entry{AFS_SUPER_MAGIC, {"afs", false}},
    Entry{AFS_FS_MAGIC, {"afs", false}},
    Entry{CODA_SUPER_MAGIC, {"coda", false}},
    Entry{kZfsMagic, {"zfs", false}},
    Entry{kLustreMagic, {"lustre", false}},
    Entry{kGpfsMagic, {"gpfs", false}},
    Entry{kGfs2Magic, {"gfs2", false}},
    Entry{kOcfs2Magic, {"ocfs2", false}},
    Entry{kBeegfsMagic, {"beegfs", false}},
    Entry{kVirtualBoxMagic, {"vboxsf", false}},
    Entry{ECRYPTFS_SUPER_MAGIC, {"ecryptfs", false}},
    Entry{F2FS_SUPER_MAGIC, {"f2fs", false}},
    Entry{kBcachefsMagic, {"bcachefs", false}},
    Entry{REISERFS_SUPER_MAGIC, {"reiserfs", false}},
    Entry{MSDOS_SUPER_MAGIC, {"vfat", false}},
    Entry{kExfatMagic, {"exfat", false}},
    Entry{kNtfs3Magic, {"ntfs3", false}},
    Entry{SQUASHFS_MAGIC, {"squashfs", false}},
    Entry{ISOFS_SUPER_MAGIC, {"iso9660", false}},
    Entry{RAMFS_MAGIC, {"ramfs", false}},
    Entry{HUGETLBFS_MAGIC, {"hugetlbfs", false}},
    Entry{PROC_SUPER_MAGIC, {"proc", false}},
    Entry{SYSFS_MAGIC, {"sysfs", false}},
};

std::string in_hex(std::uint32_t magic) {
  std::array<char, 12> text{};
  std::snprintf(text.data(), text.size(), "0x%08x", magic);
  return text.data();
}

}  // namespace

FileSystem classify_file_system(std::uint32_t magic) noexcept {
  for (const Entry& entry : kKnown) {
    if (entry.magic == magic) return entry.file_system;
  }
  return {.name = "unknown", .allowed = false};
}

Result<std::string> check_file_system(const std::string& path) {
  struct statfs facts {};
  int rc = 0;
  do {
    rc = ::statfs(path.c_str(), &facts);
  } while (rc != 0 && errno == EINTR);
  if (rc != 0) return system_error("cannot ask which file system " + path + " is on");

  const auto magic = static_cast<std::uint32_t>(facts.f_type);  // signed, and 64 bits wide
  const FileSystem found = classify_file_system(magic);
  if (found.allowed) return std::string(found.name);
  return plain_error(path + " is on file system " + std::string(found.name) + " (" + in_hex(magic) +
                     "), where a file's attributes are not known to be current at once, so stale "
                     "data could be served; keep volumes that Kelp reads on ext4, xfs, btrfs, "
                     "tmpfs or overlayfs, or leave this directory out");
}

}  // namespace kelp
