// What set-up and control code answers: a value, or an error an operator can act on.
// The data path does not use it; there a one-byte Status travels in the completion.
#pragma once

#include <string>
#include <tl/expected.hpp>

namespace kelp {

struct Error {
  int os_error = 0;  ///< errno, or 0 where no system call failed
  std::string what;  ///< what was tried, on what, and what to do
};

template <class T>
using Result = tl::expected<T, Error>;

/// An error from what was tried and errno as it is now: "cannot open /x: Permission denied".
tl::unexpected<Error> system_error(std::string what);

/// The same for an errno kept from earlier.
tl::unexpected<Error> system_error(std::string what, int os_error);

/// An error that no system call caused.
tl::unexpected<Error> plain_error(std::string what);

}  // namespace kelp
