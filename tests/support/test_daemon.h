// A stand-in for the attach listener, for tests that ask for it by name: it admits everyone, and
// hands the rings to one real Worker. The socket, the descriptors and the protocol are the real
// ones, so libkelp connects to it.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/worker/client.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/attach.h"
#include "shm_ring/kelp.h"
#include "support/temp_dir.h"

namespace kelp::test {

/// Generous: what a test waits for something that happens at once on an idle machine.
inline constexpr std::chrono::seconds kPatience{30};

template <class Condition>
bool eventually(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// A SOCK_SEQPACKET socket listening at `path`.
inline UniqueFd listen_at(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("path too long: " + path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ::unlink(path.c_str());
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), 8) != 0) {
    throw std::runtime_error("cannot listen at " + path);
  }
  return fd;
}

struct TestDaemonOptions {
  enum class Drive {
    kStepped,  ///< the test calls step()
    kPumped,   ///< a thread calls poll_once(), and can be paused: the worker as if SIGSTOPped
    kThread,   ///< the worker's own thread, which sleeps and wakes
  };
  Drive drive = Drive::kPumped;
  std::uint32_t ring_entries = 4;  ///< where the client names none
  WorkerOptions worker;
  Waker* remote_reader = nullptr;  ///< of the worker's remote lane, where it has one
};

class TestDaemon {
 public:
  using Drive = TestDaemonOptions::Drive;

  explicit TestDaemon(TestDaemonOptions options = {})
      : options_(std::move(options)),
        worker_(std::make_unique<Worker>(options_.worker)),
        listener_(listen_at(socket_path())),
        listening_([this] { listen(); }) {
    if (RemoteLane* const lane = worker_->remote_lane()) lane->reader = options_.remote_reader;
    switch (options_.drive) {
      case Drive::kStepped:
        break;
      case Drive::kPumped:
        pump_ = std::thread([this] { pump(); });
        break;
      case Drive::kThread:
        if (!worker_->start(control_)) throw std::runtime_error("cannot start the worker");
        break;
    }
  }

  ~TestDaemon() {
    stop_.store(true);
    listening_.join();
    if (pump_.joinable()) pump_.join();
    worker_.reset();  // before the memory it may still write into
  }

  std::string run_dir() const { return dir_.path().string(); }
  std::string socket_path() const { return run_dir() + "/" + kAttachSocketName; }
  Worker& worker() { return *worker_; }

  bool step() { return worker_->poll_once(); }

  /// Steps until `condition` holds.
  template <class Condition>
  bool step_until(Condition&& condition) {
    return eventually([&] {
      for (int i = 0; i < 512; ++i) step();
      return condition();
    });
  }

  /// After pause() returned the worker does nothing until resume().
  void pause() {
    paused_.store(true);
    const std::lock_guard lock(turn_mutex_);
  }
  void resume() { paused_.store(false); }

  /// What a client sees of the daemon's death; the worker goes on unless paused.
  void close_sockets() {
    dead_.store(true);
    eventually([&] { return sockets_closed_.load(); });
  }
  /// The daemon is started again on the same path.
  void listen_again() {
    sockets_closed_.store(false);
    dead_.store(false);
    eventually([&] { return listening_now_.load(); });
  }

  void drain() { command({WorkerCommand::Kind::kDrain, nullptr}); }

  std::uint32_t attached() const { return attached_.load(); }
  std::uint32_t broken_rings() const { return broken_.load(); }
  bool drained() const { return drained_.load(); }
  /// Clients whose memory is still held.
  std::size_t clients() {
    const std::lock_guard lock(mutex_);
    return clients_.size();
  }
  /// Looks at the newest client's segment.
  ClientSegment& newest_segment() {
    const std::lock_guard lock(mutex_);
    return *clients_.back()->client.segment;
  }

 private:
  struct Attached {
    Client client;
    UniqueFd socket;
    std::size_t rings_left = 0;
    bool leaving = false;
  };

  void pump() {
    while (!stop_.load()) {
      bool worked = false;
      if (!paused_.load()) {
        const std::lock_guard lock(turn_mutex_);
        // Timers are looked at every 256 turns, and each yield() may cost a time slice.
        for (int i = 0; i < 256 && !paused_.load(); ++i) worked |= worker_->poll_once();
      }
      if (!worked) std::this_thread::yield();
    }
  }

  void command(WorkerCommand command) {
    const std::lock_guard lock(command_mutex_);
    while (!worker_->command(command)) std::this_thread::yield();
  }

  void listen() {
    while (!stop_.load()) {
      if (dead_.load()) {
        if (!sockets_closed_.load()) close_all();
      } else if (!listener_) {
        listener_ = listen_at(socket_path());
        listening_now_.store(true);
      }
      take_reports();
      std::vector<pollfd> entries{{listener_.get(), POLLIN, 0}};
      {
        const std::lock_guard lock(mutex_);
        for (const auto& each : clients_) {
          entries.push_back({each->leaving ? -1 : each->socket.get(), POLLIN | POLLRDHUP, 0});
        }
      }
      if (::poll(entries.data(), entries.size(), 2) <= 0) continue;
      for (std::size_t i = 1; i < entries.size(); ++i) {
        if (entries[i].revents != 0) start_leaving(*clients_[i - 1]);
      }
      if ((entries[0].revents & POLLIN) != 0) admit();
    }
  }

  void close_all() {
    listener_.reset();
    listening_now_.store(false);
    ::unlink(socket_path().c_str());
    for (auto& each : clients_) {
      if (!each->leaving) start_leaving(*each);
      each->socket.reset();
    }
    sockets_closed_.store(true);
  }

  void start_leaving(Attached& attached) {
    attached.leaving = true;
    attached.rings_left = attached.client.rings.size();
    for (auto& ring : attached.client.rings) {
      command({WorkerCommand::Kind::kRemoveRing, ring.get()});
    }
  }

  void take_reports() {
    while (const std::optional<WorkerReport> report = worker_->take_report()) {
      switch (report->kind) {
        case WorkerReport::Kind::kRingBroken:
          broken_.fetch_add(1);
          break;
        case WorkerReport::Kind::kDrained:
          drained_.store(true);
          break;
        case WorkerReport::Kind::kRingRemoved:
          ring_removed(report->ring);
          break;
      }
    }
  }

  void ring_removed(ServerRing* ring) {
    const Client* const owner = &ring->client();
    const std::lock_guard lock(mutex_);
    std::erase_if(clients_, [&](const std::unique_ptr<Attached>& each) {
      return owner == &each->client && --each->rings_left == 0;
    });
  }

  void admit() {
    auto attached = std::make_unique<Attached>();
    attached->socket.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const timeval limit{5, 0};
    ::setsockopt(attached->socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    AttachRequest request;
    const auto received =
        receive_message(attached->socket.get(), std::as_writable_bytes(std::span(&request, 1)));
    if (!received || received->bytes != sizeof request) return;

    const std::uint32_t entries =
        request.submission_entries != 0 ? request.submission_entries : options_.ring_entries;
    const SegmentLayout layout{request.channels, entries, 2 * entries};
    auto segment = ClientSegment::create(layout, request.data_bytes, HugepageUse::kOff);
    if (!segment) return;
    Client& client = attached->client;
    client.id = attached_.load() + 1;
    client.segment = std::move(*segment);

    std::vector<UniqueFd> theirs;
    std::vector<int> fds{client.segment->segment_fd(), client.segment->data_fd()};
    std::vector<int> worker_wakes;
    for (std::uint32_t ring = 0; ring < layout.rings; ++ring) {
      int pair[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return;
      UniqueFd ours(pair[0]);
      fds.push_back(pair[1]);
      theirs.emplace_back(pair[1]);
      UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      worker_wakes.push_back(wake.get());
      client.rings.push_back(
          std::make_unique<ServerRing>(client, ring, std::move(ours), std::move(wake)));
    }
    fds.insert(fds.end(), worker_wakes.begin(), worker_wakes.end());

    AttachReply reply;
    reply.data_bytes = client.segment->data_bytes();
    reply.data_page_bytes = client.segment->page_bytes();
    reply.workers = 1;
    reply.channels = layout.rings;
    reply.submission_entries = layout.submission_entries;
    reply.completion_entries = layout.completion_entries;
    reply.max_timeout_us = options_.worker.max_timeout_us;
    for (auto& ring : client.rings) command({WorkerCommand::Kind::kAddRing, ring.get()});
    const int socket = attached->socket.get();
    {
      const std::lock_guard lock(mutex_);
      clients_.push_back(std::move(attached));
    }
    attached_.fetch_add(1);
    // A client that hung up meanwhile is found by the next poll().
    static_cast<void>(send_message(socket, std::as_bytes(std::span(&reply, 1)), fds));
  }

  const TestDaemonOptions options_;
  TempDir dir_;
  Waker control_;
  std::mutex mutex_;  // clients_
  std::vector<std::unique_ptr<Attached>> clients_;
  std::unique_ptr<Worker> worker_;
  std::mutex command_mutex_;  // several threads command here; the worker knows one producer
  std::mutex turn_mutex_;
  UniqueFd listener_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> paused_{false};
  std::atomic<bool> dead_{false};
  std::atomic<bool> sockets_closed_{false};
  std::atomic<bool> listening_now_{true};
  std::atomic<bool> drained_{false};
  std::atomic<std::uint32_t> attached_{0};
  std::atomic<std::uint32_t> broken_{0};
  std::thread listening_;
  std::thread pump_;
};

/// A connection with one channel and one buffer, closed at the end.
class TestClient {
 public:
  explicit TestClient(const TestDaemon& daemon, std::uint32_t channels = 1,
                      std::uint64_t data_bytes = 1 << 20, std::uint32_t spin_us = 100)
      : TestClient(daemon.run_dir(), channels, data_bytes, spin_us) {}
  TestClient(const std::string& run_dir, std::uint32_t channels, std::uint64_t data_bytes = 1 << 20,
             std::uint32_t spin_us = 100) {
    kelp_options options = KELP_OPTIONS_INIT;
    options.run_dir = run_dir.c_str();
    options.channels = channels;
    options.data_bytes = data_bytes;
    options.spin_us = spin_us;
    if (kelp_connect(&options, &connection) != KELP_OK ||
        kelp_channel_open(connection, &channel) != KELP_OK ||
        kelp_buffer_alloc(connection, 64 * 1024, &buffer) != KELP_OK) {
      throw std::runtime_error(kelp_error_detail());
    }
  }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;
  ~TestClient() { kelp_close(connection); }

  kelp_request nop(std::uint64_t tag, std::uint32_t timeout_us = 0) const {
    kelp_request request{};
    request.tag = tag;
    request.op = KELP_OP_NOP;
    request.timeout_us = timeout_us;
    return request;
  }
  kelp_request read(const kelp_fid& fid, std::uint64_t tag = 0, std::uint32_t length = 64 * 1024,
                    std::uint32_t timeout_us = 0) const {
    kelp_request request{};
    request.tag = tag;
    request.fid = fid;
    request.buffer = buffer;
    request.length = length;
    request.timeout_us = timeout_us;
    return request;
  }
  kelp_status submit(const kelp_request& request) {
    return kelp_submit(channel, &request, 1, nullptr);
  }
  /// All that come within `timeout_us` of waiting for the first.
  std::vector<kelp_completion> reap(std::uint64_t timeout_us = 10'000'000) {
    std::vector<kelp_completion> batch(32);
    std::uint32_t count = 0;
    last_status = kelp_reap(channel, batch.data(), 32, timeout_us, &count);
    batch.resize(count);
    return batch;
  }
  /// Submits one request and waits for its answer.
  kelp_completion run(const kelp_request& request) {
    kelp_completion done{};
    if (kelp_read_many(channel, &request, 1, &done) != KELP_OK) {
      throw std::runtime_error(kelp_error_detail());
    }
    return done;
  }
  /// Reads until the daemon has found the volume.
  kelp_completion read_when_served(const kelp_fid& fid) {
    kelp_completion done{};
    eventually([&] { return (done = run(read(fid))).status != KELP_UNAVAILABLE; });
    return done;
  }

  kelp_connection* connection = nullptr;
  kelp_channel* channel = nullptr;
  void* buffer = nullptr;
  kelp_status last_status = KELP_OK;
};

}  // namespace kelp::test
