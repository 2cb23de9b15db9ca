// What kelpctl doctor concludes from what it finds. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kelp {

enum class Level : std::uint8_t { kOk, kWarn, kFail };

struct Finding {
  Level level = Level::kOk;
  std::string check;   ///< "hugepages"
  std::string detail;  ///< what was found
  std::string remedy;  ///< what to do; empty where all is well
};

/// `setting` is client.hugepages of the daemon; "prefer" where nobody could be asked.
Finding judge_hugepages(std::uint64_t total, std::uint64_t free, const std::string& setting);

/// Programs that spin need a CPU beside those of the workers.
Finding judge_cpus(std::uint64_t cpus, std::uint64_t workers, bool always_poll);

/// The daemon's limit of locked memory; nothing: there is none. `pinned_bytes` is what RDMA pins
/// before a program comes, `program_bytes` what one program may add; nothing: RDMA is not used.
struct RdmaMemory {
  std::uint64_t pinned_bytes = 0;
  std::uint64_t program_bytes = 0;
};
Finding judge_memlock(std::optional<std::uint64_t> limit_bytes,
                      const std::optional<RdmaMemory>& rdma);

/// What /devices says, and what [rdma] asks for.
struct RdmaState {
  bool used = true;                 ///< rdma.use
  bool listens = false;             ///< rdma.listen names something
  std::vector<std::string> usable;  ///< ports: "rxe0 port 1"
  std::vector<std::string> others;  ///< those that are not, with why
  std::string error;                ///< why devices could not be listed
};
Finding judge_rdma(const RdmaState& state);

/// `error` is what io_uring_setup() failed with; 0: it works.
Finding judge_io_uring(int error);

/// A directory of volumes as the one who asks sees it. `magic` is f_type of statfs().
Finding judge_directory(const std::string& path, int access_error, std::uint32_t magic);

Finding judge_version(const std::string& daemon, const std::string& ours);

/// "ok", "warn", "fail"
const char* level_name(Level level) noexcept;
Level worst_of(const std::vector<Finding>& findings) noexcept;

}  // namespace kelp
