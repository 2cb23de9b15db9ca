// How a command of kelpctl fails: an exit code and one sentence.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "tools/exit_code.h"

namespace kelp {

struct Failure {
  ExitCode code;
  std::string what;       ///< empty: nothing to say, as when the reader of our stdout has left
  std::string word = {};  ///< kelp_status_name(), where there is a status
};

/// A value, or why the command ends.
template <class T>
using Outcome = tl::expected<T, Failure>;

inline tl::unexpected<Failure> fail(ExitCode code, std::string what) {
  return tl::unexpected(Failure{code, std::move(what)});
}

}  // namespace kelp
