// Addresses of host names, without waiting: getaddrinfo() runs on a thread of its own, which is
// left behind if it hangs when nobody wants to know any more.
//
// Belongs to one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/peers/socket_address.h"

namespace kelp {

struct NameAnswer {
  std::string host;
  std::vector<SocketAddress> addresses;  ///< their ports are 0; none: `error` says why
  std::string error;
};

class NameLookup {
 public:
  NameLookup();
  ~NameLookup();

  /// Readable when take() has something.
  int fd() const noexcept;
  /// One answer will come for it. A name that is asked for already is not asked for twice.
  void ask(const std::string& host);
  std::optional<NameAnswer> take();

 private:
  struct State;
  static void work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
};

}  // namespace kelp
