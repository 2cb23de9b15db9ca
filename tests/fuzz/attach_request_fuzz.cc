// What a program sends to the daemon's attach socket, against the real server of that socket.
//
// Input: mode u8 | descriptors u8 | the message. Mode: 1 the program is gone before it is heard,
// 2 magic and version are put right, 4 a second message follows the first.
//
// Promises: an answer is one whole reply; a refusal says why and brings no descriptors; a grant
// brings exactly its descriptors, over memory as large as it says; when the program has gone no
// client is left, and no descriptor.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <memory>

#include "control/attach_server.h"
#include "control/log.h"
#include "fuzz/fuzz.h"
#include "shm_ring/kelp.h"
#include "support/test_daemon.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

constexpr std::uint64_t kListenerId = 1;

class Door {
 public:
  static Door& instance() {
    static Door door;
    return door;
  }

  UniqueFd connect() const {
    auto connected = connect_seqpacket(path_, 5000);
    must(connected.has_value(), "a connection");
    ::fcntl(connected->get(), F_SETFL, O_NONBLOCK);
    return std::move(*connected);
  }

  /// What the daemon's loop does until nothing more is to be done.
  void run() {
    std::array<epoll_event, 16> events;
    for (int turns = 0;; ++turns) {
      must(turns < 10'000, "the server comes to rest");
      const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), 0);
      for (int i = 0; i < count; ++i) {
        const std::uint64_t id = events[static_cast<std::size_t>(i)].data.u64;
        if (id == kListenerId) {
          server_.accept_some();
        } else {
          server_.handle(id);
        }
      }
      bool worked = worker_->poll_once();
      while (const auto report = worker_->take_report()) {
        server_.handle(*report);
        worked = true;
      }
      if (count <= 0 && !worked) return;
    }
  }

  std::size_t clients() const { return server_.clients(); }

 private:
  Door()
      : path_(directory_.path() / kAttachSocketName),
        listener_(test::listen_at(path_)),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        worker_(std::make_unique<Worker>(WorkerOptions{.ops = 64, .loader = {}})),
        server_(listener_.get(), epoll_.get(), limits(), {worker_.get()}) {
    set_log_level(LogLevel::kError);
    ::fcntl(listener_.get(), F_SETFL, O_NONBLOCK);
    must(server_.start(kListenerId).has_value(), "a listener");
  }

  static AttachLimits limits() {
    return {.ring_entries = 16,
            .max_clients = 2,
            .max_channels = 8,
            .max_data_bytes = 1 << 20,
            .max_timeout_us = 60'000'000,
            .hugepages = HugepageUse::kOff};
  }

  test::TempDir directory_;
  std::string path_;
  UniqueFd listener_;
  UniqueFd epoll_;
  std::unique_ptr<Worker> worker_;
  AttachServer server_;
};

std::uint64_t file_bytes(const UniqueFd& fd) {
  struct stat facts {};
  must(::fstat(fd.get(), &facts) == 0, "a descriptor");
  return static_cast<std::uint64_t>(facts.st_size);
}

void judge(const AttachReply& reply, const ReceivedMessage& message) {
  must(message.bytes == sizeof reply, "a reply is whole");
  must(reply.magic == kAttachMagic && reply.abi_major == kAbiMajor, "and says what it is");
  if (reply.status != KELP_OK) {
    must(message.fds.empty(), "a refusal brings nothing");
    must(reply.message[0] != '\0' && reply.message.back() == '\0', "but a sentence");
    return;
  }
  const SegmentLayout layout{reply.workers * reply.channels, reply.submission_entries,
                             reply.completion_entries};
  must(layout.rings >= 1 && message.fds.size() == 2 + 2 * layout.rings, "a grant is complete");
  must(file_bytes(message.fds[0]) >= layout.segment_bytes(), "the rings are there");
  must(file_bytes(message.fds[1]) >= reply.data_bytes, "and the data area");
}

int lowest_free_descriptor() {
  const UniqueFd fd(::fcntl(0, F_DUPFD_CLOEXEC, 3));
  return fd.get();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto mode = input.take<std::uint8_t>();
  const std::size_t descriptors = input.take<std::uint8_t>() % 4;
  std::vector<std::byte> message = fuzz::exact_copy(input.rest());
  if ((mode & 2) != 0 && message.size() >= 12) {
    const AttachRequest right;
    std::memcpy(message.data(), &right, 12);
  }
  Door& door = Door::instance();
  const int before = lowest_free_descriptor();
  {
    UniqueFd program = door.connect();
    const std::vector<int> fds(descriptors, program.get());
    for (int times = (mode & 4) != 0 ? 2 : 1; times > 0; --times) {
      // Too long for the socket, or the server has hung up: no matter.
      static_cast<void>(send_message(program.get(), message, fds));
    }
    if ((mode & 1) != 0) program.reset();
    door.run();
    if (program) {
      AttachReply reply;
      const auto got = receive_message(program.get(), std::as_writable_bytes(std::span(&reply, 1)));
      if (got && got->bytes > 0) judge(reply, *got);
    }
  }
  door.run();
  must(door.clients() == 0, "who hangs up is forgotten");
  must(lowest_free_descriptor() == before, "and leaves no descriptor");
  return 0;
}
