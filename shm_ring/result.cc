#include "shm_ring/result.h"

#include <cerrno>
#include <cstring>

namespace kelp {

tl::unexpected<Error> system_error(std::string what) {
  return system_error(std::move(what), errno);
}

tl::unexpected<Error> system_error(std::string what, int os_error) {
  what += ": ";
  what += std::strerror(os_error);
  return tl::unexpected(Error{os_error, std::move(what)});
}

tl::unexpected<Error> plain_error(std::string what) {
  return tl::unexpected(Error{0, std::move(what)});
}

}  // namespace kelp
