#include "dataplane/transport/tcp/tcp_target_link.h"

#include <fcntl.h>

#include "dataplane/checksum/crc32c.h"
#include "shm_ring/kelp.h"

namespace kelp {

using wire::FrameKind;

TcpTargetLink::TcpTargetLink(Uring& uring, UniqueFd socket, std::uint64_t id,
                             const wire::Agreement& agreement, std::span<const std::byte> received,
                             TargetLink::User& user)
    : user_(user),
      slots_(agreement.slots),
      requests_(agreement.slots),
      credits_(agreement.slots),
      max_slice_bytes_(agreement.max_slice_bytes),
      rooms_(std::size_t{agreement.slots} * agreement.max_slice_bytes),
      // An answer for each slot; an answer that has arrived but is still queued here as sent;
      // Pongs.
      connection_(uring, std::move(socket), id, 2 * std::size_t{agreement.slots} + 8, received,
                  *this) {}

std::span<std::byte> TcpTargetLink::room(std::uint16_t slot) {
  return rooms_.bytes().subspan(std::size_t{slot} * max_slice_bytes_, requests_[slot].length_bytes);
}

void TcpTargetLink::answer(wire::Answer answer, const AnswerBytes& bytes) {
  answer.generation = requests_[answer.slot].generation;
  const std::span<const std::byte> payload =
      room(answer.slot).first(answer.status == KELP_OK ? answer.bytes : 0);
  answer.bytes = static_cast<std::uint32_t>(payload.size());
  slots_.end(answer.slot);
  const bool from_file = bytes.file >= 0 && answer.bytes != 0;
  answer.crc32c = answer.bytes != 0 && bytes.crc32c ? *bytes.crc32c : crc32c(payload);
  UniqueFd file(from_file ? ::fcntl(bytes.file, F_DUPFD_CLOEXEC, 0) : -1);
  if (from_file && !file) {  // as many descriptors as there may be
    answer.status = KELP_UNAVAILABLE;
    answer.bytes = answer.crc32c = 0;
  }
  wire::seal(answer, FrameKind::kAnswer);
  const auto frame = std::as_bytes(std::span(&answer, 1));
  if (file) {
    connection_.post(frame, {std::move(file), bytes.offset_bytes, answer.bytes});
  } else {
    connection_.post(frame, payload.first(answer.bytes));
  }
}

void TcpTargetLink::drain() {
  wire::Drain drain;
  wire::seal(drain, FrameKind::kDrain);
  connection_.post(std::as_bytes(std::span(&drain, 1)));
}

bool TcpTargetLink::take_frame(FrameKind kind, std::span<const std::byte> frame,
                               TcpConnection::Payload&) {
  switch (kind) {
    case FrameKind::kRequest: {
      const auto read = wire::read_request(frame, credits_, max_slice_bytes_);
      // Its slot may be asked again before our side has seen that the last answer went: the gateway
      // has received all of it, so nothing reads its room any more.
      if (!read || !slots_.begin(read->request.slot, read->request.generation)) return false;
      requests_[read->request.slot] = {read->request.generation, read->request.length_bytes};
      user_.asked(*this, read->request, read->token);
      return true;
    }
    case FrameKind::kCancel: {
      const auto cancel = wire::copy_frame<wire::Cancel>(frame);
      if (cancel.slot >= credits_) return false;
      if (slots_.is_under_way(cancel.slot, cancel.generation)) user_.cancelled(*this, cancel.slot);
      return true;
    }
    case FrameKind::kPing: {
      auto echo = wire::copy_frame<wire::Echo>(frame);
      wire::seal(echo, FrameKind::kPong);
      return connection_.post(std::as_bytes(std::span(&echo, 1)));
    }
    case FrameKind::kPong:
      return true;
    default:
      return false;
  }
}

}  // namespace kelp
