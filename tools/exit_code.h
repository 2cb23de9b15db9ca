// What kelpctl's exit codes mean. They are an interface: scripts depend on them.
#pragma once

#include "shm_ring/kelp.h"

namespace kelp {

enum class ExitCode : int {
  kOk = 0,
  kOther = 1,
  kUsage = 2,
  kNotFound = 3,
  kWrongCookie = 4,
  kExpired = 5,
  kCorrupt = 6,
  kUseHttp = 7,
  kUnavailable = 8,
  kTimeout = 9,
  kBrokenGzip = 10,
  kRange = 11,
  kDenied = 12,
  kNoDaemon = 13,
  kCannotWrite = 14,
  kReadsFailed = 20,  ///< of many; what each ended with is in the output
};

/// The exit code of a call or read that ended with `status`.
ExitCode exit_code_of(kelp_status status) noexcept;

/// The table of exit codes as --help prints it.
extern const char* const kExitCodeHelp;

}  // namespace kelp
