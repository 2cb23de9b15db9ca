#include "dataplane/transport/tcp/tcp_connection.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/sendfile.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/checksum/crc32c.h"

namespace kelp {
namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;
constexpr std::size_t kMostBytesPerTurn = 1 << 20;
static_assert(kBufferBytes >= TcpConnection::kCopiedBytes + 2 * wire::kMostFrameBytes);

}  // namespace

TcpConnection::TcpConnection(Uring& uring, UniqueFd socket, std::uint64_t id,
                             std::size_t most_queued, std::span<const std::byte> received,
                             User& user)
    : uring_(uring),
      socket_(std::move(socket)),
      id_(id),
      user_(user),
      queue_(most_queued),
      buffer_(std::make_unique<std::byte[]>(kBufferBytes)),
      end_(std::min(received.size(), kBufferBytes)) {
  // sendfile() takes no flags.
  ::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
  if (received.size() > kBufferBytes) break_off("more came with the handshake than fits");
  std::copy_n(received.begin(), end_, buffer_.get());
}

void TcpConnection::start() noexcept {
  take_received();
  watch();
}

void TcpConnection::break_off(const char* why) noexcept {
  if (broken_) return;
  broken_ = true;
  why_ = why;
  // Ends what the kernel has under way.
  ::shutdown(socket_.get(), SHUT_RDWR);
  if (watched_) uring_.cancel(user_of(Tag::kWatch));
  // A socket that is shut down is writable: the wait for that ends by itself.
}

void TcpConnection::fence() noexcept {
  break_off("it was ended here");
}

// ---- out

TcpConnection::Outgoing* TcpConnection::next_outgoing(std::span<const std::byte> frame) noexcept {
  if (broken_) return nullptr;
  if (posted_ - sent_ == queue_.size() || frame.size() > wire::kMostFrameBytes) {
    break_off("more is to be sent than was agreed upon");
    return nullptr;
  }
  Outgoing& next = queue_[posted_++ % queue_.size()];
  std::ranges::copy(frame, next.frame.begin());
  next.frame_bytes = static_cast<std::uint16_t>(frame.size());
  return &next;
}

bool TcpConnection::post(std::span<const std::byte> frame,
                         std::span<const std::byte> payload) noexcept {
  Outgoing* const next = next_outgoing(frame);
  if (next == nullptr) return false;
  next->payload = payload;
  return true;
}

bool TcpConnection::post(std::span<const std::byte> frame, FileBytes payload) noexcept {
  Outgoing* const next = next_outgoing(frame);
  if (next == nullptr) return false;
  next->payload = {};
  next->file = std::move(payload);
  return true;
}

bool TcpConnection::flush() noexcept {
  return !full_ && posted_ != sent_ && send_next();
}

/// What is in memory, up to a file's bytes. The flags it is to be sent with.
int TcpConnection::prepare_message() noexcept {
  std::size_t count = 0;
  std::size_t skip = sent_of_first_;
  const auto add = [&](std::span<const std::byte> bytes) {
    const std::size_t skipped = std::min(skip, bytes.size());
    skip -= skipped;
    bytes = bytes.subspan(skipped);
    // Not written to, whatever the type says.
    if (!bytes.empty()) parts_[count++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  };
  int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  for (std::uint64_t at = sent_; at != posted_ && count + 2 <= kMostParts; ++at) {
    const Outgoing& each = queue_[at % queue_.size()];
    add(std::span(each.frame).first(each.frame_bytes));
    add(each.payload);
    if (each.file.bytes == 0) continue;
    flags |= MSG_MORE;
    break;
  }
  message_ = {};
  message_.msg_iov = parts_.data();
  message_.msg_iovlen = count;
  return flags;
}

ssize_t TcpConnection::send_some() noexcept {
  const Outgoing& first = queue_[sent_ % queue_.size()];
  if (sent_of_first_ < first.in_memory()) {
    const int flags = prepare_message();
    if (message_.msg_iovlen > 1) return ::sendmsg(socket_.get(), &message_, flags);
    return ::send(socket_.get(), parts_[0].iov_base, parts_[0].iov_len, flags);
  }
  const std::size_t done = sent_of_first_ - first.in_memory();
  auto offset = static_cast<off_t>(first.file.offset_bytes + done);
  const ssize_t sent =
      ::sendfile(socket_.get(), first.file.fd.get(), &offset, first.file.bytes - done);
  if (sent == 0) break_off("a file ended before what was to be sent of it");
  return sent;
}

/// Not all at once, to a peer that takes it as fast as it comes: others wait for their turn.
bool TcpConnection::send_next() noexcept {
  std::size_t done = 0;
  while (!broken_ && posted_ != sent_) {
    if (done >= kMostBytesPerTurn) return true;
    const ssize_t sent = send_some();
    if (sent > 0) {
      take_sent(static_cast<std::size_t>(sent));
      done += static_cast<std::size_t>(sent);
    } else if (sent < 0 && errno == EAGAIN) {
      full_ = true;
      uring_.wait_writable(socket_.get(), user_of(Tag::kSend));
      return false;
    } else if (sent < 0 && errno != EINTR) {
      break_off("it cannot be sent to");
    }
  }
  return false;
}

void TcpConnection::take_sent(std::size_t bytes) noexcept {
  bytes += sent_of_first_;
  while (sent_ != posted_) {
    Outgoing& first = queue_[sent_ % queue_.size()];
    const std::size_t whole = first.in_memory() + first.file.bytes;
    if (bytes < whole) break;
    bytes -= whole;
    ++sent_;
    if (first.file.bytes != 0) first.file = {};
  }
  sent_of_first_ = bytes;
}

// ---- in

bool TcpConnection::completed(const Uring::Completion& completion) noexcept {
  if (completion.user == user_of(Tag::kSend)) {
    full_ = false;
    flush();
  } else if (completion.last) {
    watched_ = false;
    watch();
  }
  if (completion.user == user_of(Tag::kWatch) && completion.result > 0)
    hung_up_ = hung_up_ || (completion.result & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  if (fenced()) user_.has_ended();
  return !broken_ && completion.user == user_of(Tag::kWatch);
}

void TcpConnection::watch() noexcept {
  if (broken_ || watched_ || asked_often_) return;
  watched_ = true;
  uring_.watch(socket_.get(), user_of(Tag::kWatch));
}

void TcpConnection::stop_watching() noexcept {
  asked_often_ = true;
  if (watched_) uring_.cancel(user_of(Tag::kWatch));
}

void TcpConnection::watch_again() noexcept {
  asked_often_ = false;
  watch();
  // It may have broken while nothing was there that would have told.
  if (fenced()) user_.has_ended();
}

TcpConnection::Received TcpConnection::receive() noexcept {
  if (broken_) return Received::kNothing;
  const std::span<std::byte> room = prepare_receive();
  const ssize_t got = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
  if (got > 0) {
    take_bytes(static_cast<std::size_t>(got));
  } else if (got == 0) {
    break_off("the peer closed it");
  } else if (errno == EAGAIN) {
    return Received::kNothing;
  } else if (errno != EINTR) {
    break_off("it cannot be received from");
  }
  if (fenced()) user_.has_ended();
  // Behind the last bytes of a peer that is gone is its end, and nobody is told of that again.
  const bool all = got > 0 && static_cast<std::size_t>(got) < room.size() && !hung_up_;
  return all ? Received::kAll : Received::kPart;
}

void TcpConnection::take_bytes(std::size_t bytes) noexcept {
  if (!receives_straight_) {
    end_ += bytes;
  } else {
    const std::size_t done = payload_.bytes - payload_left_;
    payload_crc_ = crc32c_extend(payload_crc_, payload_.destination.subspan(done, bytes));
    payload_left_ -= static_cast<std::uint32_t>(bytes);
    if (payload_left_ == 0) end_payload();
  }
  take_received();
}

void TcpConnection::take_received() noexcept {
  while (!broken_ && take_one()) {
  }
}

/// The next frame or payload, as far as it has come. False: more is needed.
bool TcpConnection::take_one() noexcept {
  if (payload_left_ != 0) return take_payload_bytes();
  const std::span<const std::byte> stream(buffer_.get() + begin_, end_ - begin_);
  const wire::Peeked next = wire::peek_frame(stream);
  if (next.state == wire::Peek::kMore) return false;
  payload_ = {};
  if (next.state == wire::Peek::kBroken ||
      !user_.take_frame(next.kind, stream.first(next.bytes), payload_)) {
    break_off("the peer sent what is no frame, or could not come now");
    return false;
  }
  begin_ += next.bytes;
  payload_left_ = payload_.bytes;
  payload_crc_ = 0;
  return true;
}

bool TcpConnection::take_payload_bytes() noexcept {
  const std::span<const std::byte> here(buffer_.get() + begin_, end_ - begin_);
  const bool copied = payload_.bytes <= kCopiedBytes;
  if (copied && here.size() < payload_left_ && !payload_.destination.empty()) return false;
  const std::size_t count = std::min<std::size_t>(here.size(), payload_left_);
  if (count == 0) return false;
  const auto part = here.first(count);
  payload_crc_ = crc32c_extend(payload_crc_, part);
  const bool fits = !copied || payload_crc_ == payload_.crc32c;
  if (!payload_.destination.empty() && fits) {
    std::memcpy(payload_.destination.data() + (payload_.bytes - payload_left_), part.data(), count);
  }
  begin_ += count;
  payload_left_ -= static_cast<std::uint32_t>(count);
  if (payload_left_ == 0) end_payload();
  return true;
}

void TcpConnection::end_payload() noexcept {
  user_.take_payload(payload_crc_ == payload_.crc32c);
}

/// Where what comes next goes; says so in receives_straight_.
std::span<std::byte> TcpConnection::prepare_receive() noexcept {
  const bool copied = payload_.bytes <= kCopiedBytes;
  receives_straight_ = payload_left_ != 0 && !copied && !payload_.destination.empty();
  if (receives_straight_) {
    // All that was here has been taken.
    begin_ = end_ = 0;
    return payload_.destination.subspan(payload_.bytes - payload_left_);
  }
  if (begin_ != 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return std::span(buffer_.get() + end_, kBufferBytes - end_);
}

}  // namespace kelp
