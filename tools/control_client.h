// Asks the daemon's control socket, as any HTTP client would.
#pragma once

#include <string>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

struct ControlAnswer {
  long status = 0;  ///< of HTTP
  std::string body;
};

/// The control socket of --run-dir, else of $KELP_RUN_DIR, else of /run/kelp: as libkelp chooses.
std::string control_socket_path(const CommonOptions& common);

/// GET of `path` ("/health"). Waits for at most 5 s; at most 64 MiB of answer.
Outcome<ControlAnswer> control_get(const CommonOptions& common, const std::string& path);
/// POST without a body, bounded in the same way.
Outcome<ControlAnswer> control_post(const CommonOptions& common, const std::string& path);

/// GET of a URL of somebody else's, an http one: the status, or why there is none. Waits for 2 s.
Outcome<long> http_status(const std::string& url);

}  // namespace kelp
