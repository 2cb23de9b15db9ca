#include "shm_ring/connection.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "shm_ring/channel.h"

namespace kelp {
namespace {

constexpr std::uint32_t kAttachTimeoutMs = 5000;

tl::unexpected<ClientError> fail(kelp_status status, std::string what) {
  return tl::unexpected(ClientError{status, std::move(what)});
}

AttachRequest make_request(const ConnectOptions& options) {
  AttachRequest request;
  request.channels = options.channels;
  request.features = kSupportedFeatures;
  request.data_bytes = options.data_bytes;
  request.submission_entries = options.ring_entries;
  std::copy_n(options.name.begin(), std::min(options.name.size(), request.name.size()),
              request.name.begin());
  return request;
}

bool is_ring_size(std::uint32_t entries) {
  return std::has_single_bit(entries) && entries >= kMinRingEntries &&
         entries <= 2 * kMaxRingEntries;
}

/// A reply this library can work with; says what is wrong otherwise.
ClientResult<SegmentLayout> check_reply(const AttachReply& reply, std::size_t fds) {
  if (reply.magic != kAttachMagic) return fail(KELP_VERSION, "what answers there is not kelpd");
  if (reply.status != KELP_OK) {
    const bool known = reply.status <= KELP_USAGE;
    return fail(
        known ? static_cast<kelp_status>(reply.status) : KELP_REFUSED,
        std::string(reply.message.data(), ::strnlen(reply.message.data(), reply.message.size())));
  }
  if (reply.abi_major != kAbiMajor) {
    return fail(KELP_VERSION, "kelpd speaks ring version " + std::to_string(reply.abi_major) +
                                  ", this library " + std::to_string(kAbiMajor));
  }
  const SegmentLayout layout{reply.workers * reply.channels, reply.submission_entries,
                             reply.completion_entries};
  const bool sane =
      reply.workers >= 1 && reply.workers <= kMaxRingsPerClient && reply.channels >= 1 &&
      reply.channels <= kMaxRingsPerClient && layout.rings <= kMaxRingsPerClient &&
      is_ring_size(layout.submission_entries) && is_ring_size(layout.completion_entries) &&
      layout.completion_entries >= 2 * layout.submission_entries && fds == 2 + 2 * layout.rings &&
      reply.data_bytes > 0 && reply.data_page_bytes >= kPageBytes && reply.max_timeout_us > 0;
  if (!sane) return fail(KELP_VERSION, "kelpd's attach reply makes no sense");
  return layout;
}

}  // namespace

ClientResult<std::unique_ptr<Connection>> Connection::connect(ConnectOptions options) {
  std::unique_ptr<Connection> connection(new Connection(std::move(options)));
  auto attachment = connection->attach();
  if (!attachment) return tl::unexpected(attachment.error());
  connection->attachment_ = std::move(*attachment);
  connection->channels_.resize(connection->attachment_->reply.channels);
  return connection;
}

Connection::~Connection() {
  if (forked() && attachment_ != nullptr) {
    // MADV_DONTFORK: there is nothing of ours mapped at these addresses.
    attachment_->segment.forget();
    attachment_->data.forget();
  }
}

ClientResult<std::unique_ptr<Attachment>> Connection::attach() {
  const std::string path = options_.run_dir + "/" + kAttachSocketName;
  auto socket = connect_seqpacket(path, kAttachTimeoutMs);
  if (!socket) {
    const int error = socket.error().os_error;
    const bool absent = error == ENOENT || error == ECONNREFUSED;
    return fail(
        absent            ? KELP_DISCONNECTED
        : error == EACCES ? KELP_REFUSED
                          : KELP_SYSTEM,
        socket.error().what + (absent            ? "; is kelpd running with this run directory?"
                               : error == EACCES ? "; ask the operator for access to the socket"
                                                 : ""));
  }
  auto attachment = std::make_unique<Attachment>();
  attachment->socket = std::move(*socket);
  // Forgotten before the socket can be closed: a child must not close the number's next owner.
  struct Forget {
    std::atomic<int>& fd;
    ~Forget() { fd.store(-1); }
  };
  attaching_.store(attachment->socket.get());
  const Forget forget{attaching_};

  const AttachRequest request = make_request(options_);
  auto sent = send_message(attachment->socket.get(), std::as_bytes(std::span(&request, 1)), {});
  if (!sent) return fail(KELP_DISCONNECTED, sent.error().what);
  auto received = receive_message(attachment->socket.get(),
                                  std::as_writable_bytes(std::span(&attachment->reply, 1)));
  if (!received && received.error().os_error == EAGAIN) {
    return fail(KELP_DISCONNECTED, "no answer from kelpd within " +
                                       std::to_string(kAttachTimeoutMs / 1000) +
                                       " s; is it stopped or overloaded?");
  }
  if (!received) return fail(KELP_DISCONNECTED, "no answer from kelpd: " + received.error().what);
  if (received->bytes != sizeof(AttachReply)) {
    return fail(KELP_DISCONNECTED, "kelpd closed the connection instead of answering");
  }
  auto layout = check_reply(attachment->reply, received->fds.size());
  if (!layout) return tl::unexpected(layout.error());

  const AttachReply& reply = attachment->reply;
  auto segment = Mapping::map_shared(received->fds[0].get(), layout->segment_bytes(), "the rings");
  if (!segment) return fail(KELP_SYSTEM, segment.error().what);
  attachment->segment = std::move(*segment);
  auto data = Mapping::map_shared(received->fds[1].get(), reply.data_bytes, "the data area");
  if (!data) return fail(KELP_SYSTEM, data.error().what);
  attachment->data = std::move(*data);
  // Here and not in the daemon: the pages are charged to the program that uses them.
  if (::madvise(attachment->data.data(), reply.data_bytes, MADV_POPULATE_WRITE) != 0 &&
      errno != EINVAL) {
    return fail(KELP_NO_MEMORY, "cannot populate a data area of " +
                                    std::to_string(reply.data_bytes) +
                                    " bytes: " + std::strerror(errno));
  }

  attachment->buffers = std::make_unique<BufferPool>(reply.data_bytes);
  for (std::uint32_t ring = 0; ring < layout->rings; ++ring) {
    attachment->rings.push_back(std::make_unique<ClientRing>(
        attachment->segment.data() + layout->ring_offset(ring), *layout, *attachment->buffers,
        std::move(received->fds[2 + ring]), std::move(received->fds[2 + layout->rings + ring])));
  }
  return attachment;
}

ClientResult<void> Connection::reconnect() {
  if (forked()) return fail(KELP_FORKED, "a connection cannot be taken along through fork()");
  const std::lock_guard lock(mutex_);
  const bool any_open = std::any_of(channels_.begin(), channels_.end(),
                                    [](const auto& channel) { return channel != nullptr; });
  if (any_open) return fail(KELP_USAGE, "close every channel before kelp_reconnect()");
  auto attachment = attach();
  if (!attachment) return tl::unexpected(attachment.error());
  attachment_ = std::move(*attachment);
  channels_.clear();
  channels_.resize(attachment_->reply.channels);
  disconnected_.store(false, std::memory_order_relaxed);
  return {};
}

ClientResult<Channel*> Connection::open_channel() {
  if (forked()) return fail(KELP_FORKED, "this connection belongs to the parent process");
  if (disconnected()) return fail(KELP_DISCONNECTED, "kelpd is gone");
  const std::lock_guard lock(mutex_);
  for (std::uint32_t i = 0; i < channels_.size(); ++i) {
    if (channels_[i] != nullptr) continue;
    channels_[i] = std::make_unique<Channel>(*this, i);
    return channels_[i].get();
  }
  return fail(KELP_NO_CHANNEL, "all " + std::to_string(channels_.size()) +
                                   " channels are open; ask for more in kelp_options.channels");
}

void Connection::close_channel(Channel* channel) {
  // A thread of the parent may have held the lock at the moment of the fork; here it never wakes.
  std::unique_lock lock(mutex_, std::defer_lock);
  if (!forked()) lock.lock();
  for (auto& each : channels_) {
    if (each.get() == channel) each.reset();
  }
}

void Connection::reap_closed_channels() {
  const std::lock_guard lock(mutex_);
  const std::uint32_t workers = attachment_->reply.workers;
  for (std::uint32_t channel = 0; channel < channels_.size(); ++channel) {
    if (channels_[channel] != nullptr) continue;
    for (std::uint32_t worker = 0; worker < workers; ++worker) {
      attachment_->rings[channel * workers + worker]->swallow_completions();
    }
  }
}

ClientResult<void*> Connection::alloc_buffer(std::uint64_t bytes) {
  if (forked()) return fail(KELP_FORKED, "this connection belongs to the parent process");
  if (bytes == 0) return fail(KELP_USAGE, "a buffer of 0 bytes");
  auto offset = attachment_->buffers->alloc(bytes);
  if (!offset) {
    reap_closed_channels();
    offset = attachment_->buffers->alloc(bytes);
  }
  if (!offset) {
    return fail(KELP_NO_MEMORY, "no gap of " + std::to_string(bytes) +
                                    " bytes in a data area with " +
                                    std::to_string(attachment_->buffers->free_bytes()) +
                                    " bytes free; ask for a larger one in kelp_options.data_bytes");
  }
  return attachment_->data.data() + *offset;
}

ClientResult<void> Connection::free_buffer(void* buffer) {
  if (buffer == nullptr) return {};
  if (forked()) return fail(KELP_FORKED, "this connection belongs to the parent process");
  const auto* byte = static_cast<std::byte*>(buffer);
  if (!attachment_->data.contains(byte) ||
      !attachment_->buffers->free(static_cast<std::uint64_t>(byte - attachment_->data.data()))) {
    return fail(KELP_BAD_BUFFER, "not a buffer of kelp_buffer_alloc(), or freed already");
  }
  return {};
}

bool Connection::check_alive() noexcept {
  pollfd entry{attachment_->socket.get(), POLLIN | POLLRDHUP, 0};
  // After the reply the daemon sends nothing more: anything readable is the end.
  if (::poll(&entry, 1, 0) > 0 && entry.revents != 0) {
    disconnected_.store(true, std::memory_order_release);
  }
  return !disconnected();
}

void Connection::in_child_of_fork() noexcept {
  // While the child held them, the daemon would not see the parent's death.
  if (const int fd = attaching_.exchange(-1); fd >= 0) ::close(fd);
  if (attachment_ == nullptr) return;
  attachment_->socket.reset();
  for (auto& ring : attachment_->rings) ring->close_descriptors();
}

}  // namespace kelp
