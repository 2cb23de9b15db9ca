#include "control/privileges.h"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace kelp {
namespace {

constexpr std::size_t kRecordBytes = 16384;  // of a line in passwd or group
constexpr int kMostGroups = 65536;           // NGROUPS_MAX

Result<Identity> find_user(const std::string& name) {
  std::vector<char> buffer(kRecordBytes);
  passwd entry{};
  passwd* found = nullptr;
  const int failed = ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return Identity{name, found->pw_uid, found->pw_gid, {}};
  if (failed != 0) return system_error("cannot look up the user " + name, failed);
  return plain_error("there is no user " + name +
                     " on this host: create it (systemd-sysusers does, from kelp.conf), or change "
                     "daemon.user");
}

Result<gid_t> find_group(const std::string& name) {
  std::vector<char> buffer(kRecordBytes);
  group entry{};
  group* found = nullptr;
  const int failed = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return found->gr_gid;
  if (failed != 0) return system_error("cannot look up the group " + name, failed);
  return plain_error("there is no group " + name +
                     " on this host: create it, or change daemon.group");
}

Result<std::vector<gid_t>> groups_of(const Identity& identity) {
  int count = 64;
  while (true) {
    std::vector<gid_t> groups(static_cast<std::size_t>(count));
    if (::getgrouplist(identity.name.c_str(), identity.gid, groups.data(), &count) >= 0) {
      groups.resize(static_cast<std::size_t>(count));
      std::sort(groups.begin(), groups.end());
      return groups;
    }
    if (count > kMostGroups) return plain_error("too many groups for " + identity.name);
  }
}

Result<void> clear_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) {
    return system_error("cannot give up capabilities");
  }
  return {};
}

/// What the kernel says we are now.
bool is_now(const Identity& identity) {
  uid_t real_uid = 0, effective_uid = 0, saved_uid = 0;
  gid_t real_gid = 0, effective_gid = 0, saved_gid = 0;
  if (::getresuid(&real_uid, &effective_uid, &saved_uid) != 0 ||
      ::getresgid(&real_gid, &effective_gid, &saved_gid) != 0) {
    return false;
  }
  const int count = ::getgroups(0, nullptr);
  if (count < 0) return false;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  if (::getgroups(count, groups.data()) != count) return false;
  std::sort(groups.begin(), groups.end());
  return real_uid == identity.uid && effective_uid == identity.uid && saved_uid == identity.uid &&
         real_gid == identity.gid && effective_gid == identity.gid && saved_gid == identity.gid &&
         groups == identity.groups && ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

}  // namespace

Result<std::optional<Identity>> find_identity(const std::string& user, const std::string& group) {
  if (user.empty()) {
    if (group.empty()) return std::optional<Identity>();
    return plain_error("daemon.group = \"" + group + "\" without daemon.user: name the user too");
  }
  Result<Identity> identity = find_user(user);
  if (!identity) return tl::unexpected(identity.error());
  if (!group.empty()) {
    const Result<gid_t> gid = find_group(group);
    if (!gid) return tl::unexpected(gid.error());
    identity->gid = *gid;
  }
  if (::geteuid() != 0) {
    if (identity->uid == ::geteuid() && identity->gid == ::getegid()) {
      return std::optional<Identity>();
    }
    return plain_error("daemon.user = \"" + user +
                       "\": only root can become another user; start kelpd as root, or as that "
                       "user and group");
  }
  Result<std::vector<gid_t>> groups = groups_of(*identity);
  if (!groups) return tl::unexpected(groups.error());
  identity->groups = std::move(*groups);
  return std::optional(std::move(*identity));
}

Result<void> drop_privileges(const Identity& identity) {
  const std::string doing = "cannot become the user " + identity.name;
  if (::setgroups(identity.groups.size(), identity.groups.data()) != 0 ||
      ::setresgid(identity.gid, identity.gid, identity.gid) != 0 ||
      ::setresuid(identity.uid, identity.uid, identity.uid) != 0) {
    return system_error(doing);
  }
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return system_error(doing);
  if (auto cleared = clear_capabilities(); !cleared) return cleared;
  if (!is_now(identity)) return plain_error(doing + ": the kernel says it is done, and it is not");
  // The proof of the pudding; for root as daemon.user there is none.
  if (identity.uid != 0 && ::setuid(0) == 0) {
    return plain_error(doing + ": the way back to root is still open");
  }
  return {};
}

}  // namespace kelp
