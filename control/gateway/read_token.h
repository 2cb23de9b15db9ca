// Tokens for volume servers that want one of readers (jwt.signing.read).
// Source: format reference, 6.7; SeaweedFS weed/security/jwt.go.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "shm_ring/result.h"

namespace kelp {

/// A key as SeaweedFS takes it: the bytes of the text itself. Of a regular file of at most 4 KiB;
/// one line end at its end does not count. Errors: cannot be read, empty, readable by all users.
Result<std::string> load_read_key(const std::string& path);

/// HS256 over {"fid": fid, "exp": now + 60 s}, by libjwt; "" where that fails (no memory).
/// `fid` exactly as it stands in the URL.
std::string sign_read_token(const std::string& key, const std::string& fid,
                            std::chrono::system_clock::time_point now);

}  // namespace kelp
