// What a daemon, or whatever answers on its socket, sends to libkelp, and what it then writes into
// the rings.
//
// Input: mode u8 | channels u8 | rounds of changes to the reply | rounds of changes to the rings. A
// round is count u8, then offset u16, length u8 and bytes each. Mode: 1 descriptors as in `kinds`,
// 2 the reply is cut, 4 the daemon hangs up after the reply.
//
// Promises: a connection or a sentence; completions only for what was submitted, each tag once, and
// no more bytes than the buffer has; no descriptor is left.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <array>
#include <set>
#include <thread>

#include "fuzz/fuzz.h"
#include "shm_ring/attach.h"
#include "shm_ring/kelp.h"
#include "support/test_daemon.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

constexpr std::uint64_t kDataBytes = 16 * 1024;
constexpr std::uint32_t kEntries = 4;
constexpr std::uint32_t kBufferBytes = 4096;

UniqueFd memfd(std::uint64_t bytes) {
  UniqueFd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  must(fd && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0, "a memfd");
  return fd;
}

struct Offer {
  std::vector<std::byte> reply;
  std::vector<UniqueFd> fds;
  bool hangs_up = false;
};

/// Answers one connection after the other with the offer of the moment.
class Impostor {
 public:
  static Impostor& instance() {
    static Impostor* const impostor = new Impostor;  // its thread runs to the end of the process
    return *impostor;
  }

  const std::string& run_dir() const { return run_dir_; }

  /// Before connecting; the thread looks at it once it has been connected to.
  void set_offer(const Offer& offer) { offer_ = &offer; }
  /// After the connection was closed: the thread has let go of it.
  void wait_until_done() const {
    test::eventually([&] { return served_.load() == asked_; });
  }
  void expect_one() { ++asked_; }

 private:
  Impostor()
      : run_dir_(directory_.path().string()),
        listener_(test::listen_at(run_dir_ + "/" + kAttachSocketName)),
        thread_([this] { serve(); }) {
    thread_.detach();
  }

  void serve() {
    while (true) {
      // A blocked accept() holds the number of the descriptor it will return, and would be counted.
      pollfd waiting{listener_.get(), POLLIN, 0};
      ::poll(&waiting, 1, -1);
      UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      AttachRequest request;
      static_cast<void>(
          receive_message(client.get(), std::as_writable_bytes(std::span(&request, 1))));
      const Offer& offer = *offer_.load();
      std::vector<int> fds;
      for (const UniqueFd& fd : offer.fds) fds.push_back(fd.get());
      static_cast<void>(send_message(client.get(), offer.reply, fds));
      char byte;
      if (!offer.hangs_up) static_cast<void>(::recv(client.get(), &byte, 1, 0));
      client.reset();
      served_.fetch_add(1);
    }
  }

  test::TempDir directory_;
  const std::string run_dir_;
  UniqueFd listener_;
  std::atomic<const Offer*> offer_{nullptr};
  std::atomic<std::uint64_t> served_{0};
  std::uint64_t asked_ = 0;
  std::thread thread_;
};

void change(std::span<std::byte> target, fuzz::Input& input) {
  for (int changes = input.take<std::uint8_t>() % 8; changes > 0 && !target.empty(); --changes) {
    const std::size_t at = input.take<std::uint16_t>() % target.size();
    const auto bytes = input.take_bytes(input.take<std::uint8_t>() % 65);
    const std::size_t count = std::min(bytes.size(), target.size() - at);
    if (count > 0) std::memcpy(target.data() + at, bytes.data(), count);
  }
}

Offer make_offer(std::uint8_t mode, std::uint32_t channels, fuzz::Input& input) {
  AttachReply reply;
  reply.data_bytes = kDataBytes;
  reply.data_page_bytes = kPageBytes;
  reply.workers = 1;
  reply.channels = channels;
  reply.submission_entries = kEntries;
  reply.completion_entries = 2 * kEntries;
  reply.max_timeout_us = 1'000'000;
  change(std::as_writable_bytes(std::span(&reply, 1)), input);

  Offer offer;
  const auto bytes = std::as_bytes(std::span(&reply, 1));
  offer.reply.assign(bytes.begin(), bytes.end());
  if ((mode & 2) != 0) offer.reply.resize(input.take<std::uint16_t>() % (sizeof reply + 1));
  offer.hangs_up = (mode & 4) != 0;
  const SegmentLayout layout{channels, kEntries, 2 * kEntries};
  offer.fds.push_back(memfd(layout.segment_bytes()));
  offer.fds.push_back(memfd(kDataBytes));
  for (std::uint32_t wake = 0; wake < 2 * channels; ++wake) {
    offer.fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  if ((mode & 1) == 0) return offer;
  offer.fds.clear();
  for (int count = input.take<std::uint8_t>() % 8; count > 0; --count) {
    const auto kind = input.take<std::uint8_t>();
    offer.fds.push_back(kind % 4 == 0 ? UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))
                                      : memfd(std::uint64_t{kind} * 256));
  }
  return offer;
}

/// The connection in use, while the daemon's side of the rings is written to.
void use(kelp_connection* connection, std::span<std::byte> rings, fuzz::Input& input) {
  kelp_channel* channel = nullptr;
  if (kelp_channel_open(connection, &channel) != KELP_OK) return;
  void* buffer = nullptr;
  if (kelp_buffer_alloc(connection, kBufferBytes, &buffer) != KELP_OK) return;
  std::set<std::uint64_t> outstanding;
  std::uint64_t next_tag = 1000;
  for (int rounds = 0; rounds < 6 && !input.empty(); ++rounds) {
    const auto what = input.take<std::uint8_t>();
    kelp_request request{};
    request.tag = next_tag++;
    request.op = what % 2 == 0 ? KELP_OP_NOP : KELP_OP_READ;
    request.buffer = buffer;
    request.length = kBufferBytes;
    if (kelp_submit(channel, &request, 1, nullptr) == KELP_OK) outstanding.insert(request.tag);
    change(rings, input);
    std::array<kelp_completion, 16> done;
    std::uint32_t reaped = 0;
    kelp_reap(channel, done.data(), done.size(), 0, &reaped);
    must(reaped <= done.size(), "no more completions than there is room for");
    for (std::uint32_t i = 0; i < reaped; ++i) {
      must(outstanding.erase(done[i].tag) == 1, "each request is answered once");
      must(done[i].bytes <= kBufferBytes, "no more bytes than the buffer has");
    }
  }
  if (!input.empty() && input.take<std::uint8_t>() % 2 == 0) kelp_channel_close(channel);
  kelp_buffer_free(connection, buffer);
}

int lowest_free_descriptor() {
  const UniqueFd fd(::fcntl(0, F_DUPFD_CLOEXEC, 3));
  return fd.get();
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto mode = input.take<std::uint8_t>();
  const std::uint32_t channels = 1 + input.take<std::uint8_t>() % 3;
  Impostor& impostor = Impostor::instance();
  const Offer offer = make_offer(mode, channels, input);
  impostor.set_offer(offer);
  impostor.expect_one();
  const int before = lowest_free_descriptor();

  kelp_options options = KELP_OPTIONS_INIT;
  options.run_dir = impostor.run_dir().c_str();
  options.name = "fuzz";
  options.channels = channels;
  options.data_bytes = kDataBytes;
  options.spin_us = 0;
  options.timeout_us = 1;  // what the daemon does not answer, the library does
  kelp_connection* connection = nullptr;
  const kelp_status status = kelp_connect(&options, &connection);
  must((status == KELP_OK) == (connection != nullptr), "a connection or none");
  if (status != KELP_OK) {
    must(status >= KELP_DISCONNECTED || offer.reply.size() == sizeof(AttachReply),
         "a daemon's status is only taken from a whole reply");
    must(kelp_error_detail() != nullptr, "a sentence");
  } else {
    auto rings = Mapping::map_shared(offer.fds[0].get(), kPageBytes, "the rings");
    std::size_t bytes = static_cast<std::size_t>(::lseek(offer.fds[0].get(), 0, SEEK_END));
    if (rings) rings = Mapping::map_shared(offer.fds[0].get(), bytes, "the rings");
    if (rings) use(connection, {rings->data(), rings->size()}, input);
  }
  kelp_close(connection);
  impostor.wait_until_done();
  must(lowest_free_descriptor() == before, "no descriptor is left");
  return 0;
}
