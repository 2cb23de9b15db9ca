// Files that hold secrets: small, regular, and not for everybody.
#pragma once

#include <string>

#include "shm_ring/result.h"

namespace kelp {

/// All of a regular file of at most 4 KiB. `doing` begins the sentence of an error ("cannot read
/// the key from /x"). Errors: cannot be read, is too large, all users may use it.
Result<std::string> read_secret_file(const std::string& path, const std::string& doing);

}  // namespace kelp
