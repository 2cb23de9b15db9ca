// Tells systemd how the daemon is (sd_notify), and that it is alive. Does nothing where nobody
// asks, that is without $NOTIFY_SOCKET, or where libsystemd was not there at the build. Control
// thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace kelp {

class ServiceManager {
 public:
  ServiceManager();

  void ready();                              ///< clients are admitted
  void reloading();                          ///< until the next ready()
  void stopping();                           ///< drains, then ends
  void status(const std::string& sentence);  ///< sent where it is another than last time
  void alive();

  /// The silence after which systemd kills the service; nothing: never.
  std::optional<std::chrono::microseconds> watchdog() const noexcept { return watchdog_; }

 private:
  std::optional<std::chrono::microseconds> watchdog_;
  std::string status_;
};

}  // namespace kelp
