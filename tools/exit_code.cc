#include "tools/exit_code.h"

namespace kelp {

ExitCode exit_code_of(kelp_status status) noexcept {
  switch (status) {
    case KELP_OK:
      return ExitCode::kOk;
    case KELP_BAD_FID:
    case KELP_INVALID:
    case KELP_USAGE:
      return ExitCode::kUsage;
    case KELP_NOT_FOUND:
      return ExitCode::kNotFound;
    case KELP_WRONG_COOKIE:
      return ExitCode::kWrongCookie;
    case KELP_EXPIRED:
      return ExitCode::kExpired;
    case KELP_CORRUPT:
      return ExitCode::kCorrupt;
    case KELP_USE_HTTP:
      return ExitCode::kUseHttp;
    case KELP_UNAVAILABLE:
      return ExitCode::kUnavailable;
    case KELP_DEADLINE:
      return ExitCode::kTimeout;
    case KELP_BROKEN_GZIP:
      return ExitCode::kBrokenGzip;
    case KELP_RANGE:
      return ExitCode::kRange;
    case KELP_DENIED:
      return ExitCode::kDenied;
    case KELP_DISCONNECTED:
    case KELP_REFUSED:
    case KELP_VERSION:
      return ExitCode::kNoDaemon;
    default:
      return ExitCode::kOther;
  }
}

const char* const kExitCodeHelp =
    "Exit codes:\n"
    "   0  ok                        8  volume not served here now\n"
    "   1  anything else             9  timeout\n"
    "   2  usage, or a bad file id  10  broken gzip\n"
    "   3  not found                11  offset beyond the end\n"
    "   4  wrong cookie             12  denied\n"
    "   5  expired                  13  no daemon, refused or disconnected\n"
    "   6  corrupt                  14  cannot write the output\n"
    "   7  only HTTP can answer     20  loadgen: some requests ended with an error\n";

}  // namespace kelp
