// The real AttachServer and a real Worker, on threads of their own, with the loop the daemon has.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "control/attach_server.h"
#include "control/log.h"
#include "control/unix_listener.h"
#include "dataplane/worker/waker.h"
#include "dataplane/worker/worker.h"
#include "support/temp_dir.h"
#include "support/test_daemon.h"

namespace kelp::test {

class ServedAttach {
 public:
  explicit ServedAttach(AttachLimits limits = {}, WorkerOptions options = {})
      : listener_(
            UnixListener::create(socket_path(), {.kind = UnixSocketKind::kSeqPacket}).value()),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        worker_(std::make_unique<Worker>(std::move(options))) {
    set_log_level(LogLevel::kError);
    if (limits.hugepages == HugepageUse::kPrefer) limits.hugepages = HugepageUse::kOff;
    if (!worker_->start(control_)) throw std::runtime_error("cannot start the worker");
    server_ = std::make_unique<AttachServer>(listener_.fd(), epoll_.get(), std::move(limits),
                                             std::vector<Worker*>{worker_.get()});
    if (!server_->start(kListener)) throw std::runtime_error("cannot start the server");
    thread_ = std::thread([this] { loop(); });
  }
  ~ServedAttach() {
    stop_.store(true);
    thread_.join();
    worker_->stop();
    server_.reset();
  }

  std::string run_dir() const { return dir_.path().string(); }
  std::string socket_path() const { return run_dir() + "/" + kAttachSocketName; }
  Worker& worker() { return *worker_; }

  /// What the server knows, between two turns of its thread.
  std::vector<ClientReport> reports() {
    const std::lock_guard lock(turn_);
    return server_->client_reports();
  }
  std::size_t clients() { return reports().size(); }
  /// Turns of the loop so far: one that spins takes many.
  std::uint64_t turns() const { return turns_.load(); }

 private:
  static constexpr std::uint64_t kListener = 16;

  void loop() {
    while (!stop_.load()) {
      std::array<epoll_event, 64> events;
      const int count =
          ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 2);
      const std::lock_guard lock(turn_);
      for (int i = 0; i < count; ++i) {
        const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
        if (id == kListener) {
          server_->accept_some();
        } else {
          server_->handle(id);
        }
      }
      while (const std::optional<WorkerReport> report = worker_->take_report()) {
        server_->handle(*report);
      }
      server_->expire();
      turns_.fetch_add(1);
    }
  }

  TempDir dir_;
  UnixListener listener_;
  UniqueFd epoll_;
  Waker control_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<AttachServer> server_;
  std::mutex turn_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> turns_{0};
  std::thread thread_;
};

}  // namespace kelp::test
