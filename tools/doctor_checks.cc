#include "tools/doctor_checks.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "tools/units.h"

namespace kelp {
namespace {

struct KnownFileSystem {
  std::uint32_t magic;
  const char* name;
};
// Those kelpd reads volumes from. Source: linux/magic.h.
constexpr std::array<KnownFileSystem, 5> kFileSystems = {{{0xef53, "ext4"},
                                                          {0x58465342, "XFS"},
                                                          {0x9123683e, "Btrfs"},
                                                          {0x01021994, "tmpfs"},
                                                          {0x794c7630, "overlayfs"}}};

constexpr const char* kReserve = "scripts/hugepages.sh reserve N, or sysctl vm.nr_hugepages=N";

}  // namespace

Finding judge_hugepages(std::uint64_t total, std::uint64_t free, const std::string& setting) {
  const std::string found =
      std::to_string(free) + " of " + std::to_string(total) + " pages of 2 MiB are free";
  if (setting == "off") return {Level::kOk, "hugepages", found + "; the daemon uses none", ""};
  if (free > 0) return {Level::kOk, "hugepages", found, ""};
  if (setting == "require") {
    return {Level::kFail, "hugepages", found + ", and the daemon refuses clients without",
            std::string(kReserve) + "; or client.hugepages = \"prefer\""};
  }
  return {Level::kWarn, "hugepages", found + "; new clients get ordinary ones", kReserve};
}

Finding judge_cpus(std::uint64_t cpus, std::uint64_t workers, bool always_poll) {
  const std::string found = std::to_string(cpus) + " CPUs, " + std::to_string(workers) + " workers";
  if (cpus > workers) return {Level::kOk, "CPUs", found, ""};
  return {always_poll ? Level::kFail : Level::kWarn, "CPUs",
          found + (always_poll ? ", and polling = \"poll\" takes all of them"
                               : ": programs and workers take turns"),
          always_poll ? "worker.polling = \"adaptive\", or fewer workers" : "fewer workers"};
}

Finding judge_memlock(std::optional<std::uint64_t> limit_bytes,
                      const std::optional<RdmaMemory>& rdma) {
  const std::string limit = limit_bytes ? "limit " + human_bytes(*limit_bytes) : "no limit";
  if (!rdma) return {Level::kOk, "memlock", limit + "; nothing is locked without RDMA", ""};
  const std::string found = limit + "; RDMA pins " + human_bytes(rdma->pinned_bytes) +
                            ", and the data area of each program, of up to " +
                            human_bytes(rdma->program_bytes);
  if (!limit_bytes || *limit_bytes >= rdma->pinned_bytes + rdma->program_bytes) {
    return {Level::kOk, "memlock", found, ""};
  }
  return {Level::kWarn, "memlock", found + ": what does not fit is read over TCP",
          "LimitMEMLOCK=infinity of the service, or ulimit -l unlimited"};
}

Finding judge_rdma(const RdmaState& state) {
  const auto joined = [](const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : "; ") + name;
    return text;
  };
  if (!state.used && !state.listens) return {Level::kOk, "RDMA", "switched off (rdma.use)", ""};
  if (!state.usable.empty()) {
    return {Level::kOk, "RDMA", "usable: " + joined(state.usable), ""};
  }
  const char* otherwise = "; needles of other hosts come over TCP or HTTP";
  if (!state.error.empty()) {
    return {Level::kWarn, "RDMA", "devices cannot be listed: " + state.error + otherwise,
            "see docs/rdma.md; rdma.use = false if there is to be none"};
  }
  if (!state.others.empty()) {
    return {Level::kWarn, "RDMA", joined(state.others) + otherwise,
            "kelpctl devices; docs/rdma.md"};
  }
  if (!state.listens) return {Level::kOk, "RDMA", std::string("no device") + otherwise, ""};
  return {Level::kFail, "RDMA", "no device, and rdma.listen names an address of one",
          "install the device's driver, or rdma.listen = []"};
}

Finding judge_io_uring(int error) {
  if (error == 0) return {Level::kOk, "io_uring", "available", ""};
  return {Level::kOk, "io_uring",
          std::string("not available (") + std::strerror(error) +
              "); volumes of other hosts are read over HTTP, not over TCP from their kelpd",
          ""};
}

Finding judge_directory(const std::string& path, int access_error, std::uint32_t magic) {
  const std::string check = "directory " + path;
  if (access_error != 0) {
    const bool denied = access_error == EACCES;
    return {denied ? Level::kWarn : Level::kFail, check, std::strerror(access_error),
            denied ? "fine if the daemon may read it; else give its user a group that may"
                   : "name a directory that is there"};
  }
  const auto* known = std::find_if(kFileSystems.begin(), kFileSystems.end(),
                                   [&](const auto& one) { return one.magic == magic; });
  if (known != kFileSystems.end()) return {Level::kOk, check, known->name, ""};
  return {Level::kFail, check, "its file system may show stale attributes",
          "ext4, XFS, Btrfs, tmpfs or overlayfs of this host; not a network or FUSE file system"};
}

Finding judge_version(const std::string& daemon, const std::string& ours) {
  if (daemon == ours) return {Level::kOk, "version", ours, ""};
  return {Level::kWarn, "version", "kelpd " + daemon + ", kelpctl and libkelp " + ours,
          "install one version, and start kelpd anew"};
}

const char* level_name(Level level) noexcept {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kWarn:
      return "warn";
    case Level::kFail:
      break;
  }
  return "fail";
}

Level worst_of(const std::vector<Finding>& findings) noexcept {
  Level worst = Level::kOk;
  for (const Finding& finding : findings) worst = std::max(worst, finding.level);
  return worst;
}

}  // namespace kelp
