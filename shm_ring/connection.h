// A program's attachment to one kelpd: the mapped segments, the buffers, the channels.
//
// kelp.h says which thread may call what. After fork() the parent's connection is unusable in the
// child: the mappings are not inherited (MADV_DONTFORK), the descriptors are closed by an atfork
// handler, and a sentinel page that the kernel wipes tells every call so.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "shm_ring/attach.h"
#include "shm_ring/buffer_pool.h"
#include "shm_ring/client_ring.h"
#include "shm_ring/fork_guard.h"
#include "shm_ring/kelp.h"
#include "shm_ring/mapping.h"
#include "shm_ring/result.h"

namespace kelp {

/// Why a call of the client library failed.
struct ClientError {
  kelp_status status;
  std::string what;
};
template <class T>
using ClientResult = tl::expected<T, ClientError>;

struct ConnectOptions {
  std::string run_dir;
  std::string name;
  std::uint32_t channels = 1;
  std::uint64_t data_bytes = KELP_DEFAULT_DATA_BYTES;
  std::uint32_t ring_entries = 0;
  std::uint32_t timeout_us = 5'000'000;
  std::uint32_t spin_us = 100;
};

class Channel;

/// Everything one attach brings, and that a reconnect replaces as a whole.
struct Attachment {
  UniqueFd socket;
  Mapping segment;
  Mapping data;
  AttachReply reply;
  std::unique_ptr<BufferPool> buffers;
  std::vector<std::unique_ptr<ClientRing>> rings;  // channel * workers + worker
};

class Connection : public ForkObserver {
 public:
  static ClientResult<std::unique_ptr<Connection>> connect(ConnectOptions options);
  ~Connection() override;

  ClientResult<void> reconnect();

  ClientResult<Channel*> open_channel();
  void close_channel(Channel* channel);

  ClientResult<void*> alloc_buffer(std::uint64_t bytes);
  ClientResult<void> free_buffer(void* buffer);

  const ConnectOptions& options() const noexcept { return options_; }
  Attachment& attachment() noexcept { return *attachment_; }

  bool forked() const noexcept { return sentinel_.wiped(); }
  /// Acquire pairs with the release in check_alive(): a ring that is looked at afterwards has
  /// everything the daemon wrote before it went, whichever thread found out that it did.
  bool disconnected() const noexcept { return disconnected_.load(std::memory_order_acquire); }

  /// Asks the kernel whether the daemon's end of the socket is open; one system call.
  bool check_alive() noexcept;

  void in_child_of_fork() noexcept override;

 private:
  explicit Connection(ConnectOptions options) : options_(std::move(options)) {}
  ClientResult<std::unique_ptr<Attachment>> attach();
  void reap_closed_channels();

  ConnectOptions options_;
  ForkSentinel sentinel_;
  std::atomic<bool> disconnected_{false};
  std::mutex mutex_;  // channels_ and the attachment's identity
  std::unique_ptr<Attachment> attachment_;
  std::atomic<int> attaching_{-1};  // a socket that asks, and is not in attachment_ yet
  std::vector<std::unique_ptr<Channel>> channels_;
};

}  // namespace kelp
