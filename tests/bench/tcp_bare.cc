// The yardsticks of reads over TCP, on loopback and without anything of Kelp's: what the kernel
// takes for the same bytes.
//
//   kelp-tcp-bare ping-pong --cpus A,B --seconds S [--request 64] [--answer 4096]
//     two threads that only spin: request there, answer back, one at a time; recv() and send()
//   kelp-tcp-bare stream --cpus A,B --seconds S [--message 1048576]
//     an io_uring sends one message after the other, another one receives them
//
// One JSON object on stdout.
#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bench/bare.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

struct Options : BareOptions {
  std::size_t request_bytes = 64, answer_bytes = 4096, message_bytes = 1 << 20;
  bool zero_copy = false;
};

struct Pair {
  UniqueFd asks, answers;
};

Pair connected() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  Pair pair;
  pair.asks.reset(::socket(AF_INET, SOCK_STREAM, 0));
  if (::bind(listener.get(), raw, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), raw, &length) != 0 ||
      ::connect(pair.asks.get(), raw, length) != 0) {
    give_up("no connection on loopback");
  }
  pair.answers.reset(::accept(listener.get(), nullptr, nullptr));
  const int on = 1;
  for (const int fd : {pair.asks.get(), pair.answers.get()}) {
    if (::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) give_up("TCP_NODELAY");
  }
  return pair;
}

/// False: the other side has closed.
bool receive(int fd, std::vector<char>& into) {
  std::size_t got = 0;
  while (got < into.size()) {
    const ssize_t more = ::recv(fd, into.data() + got, into.size() - got, MSG_DONTWAIT);
    if (more > 0) {
      got += static_cast<std::size_t>(more);
    } else if (more == 0) {
      return false;
    } else if (errno != EAGAIN) {
      give_up("recv");
    }
  }
  return true;
}

void send_all(int fd, const std::vector<char>& bytes) {
  if (::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
    give_up("send");
  }
}

nlohmann::json ping_pong(const Options& options) {
  Pair pair = connected();
  std::thread other([&] {
    pin(options.cpus[1]);
    std::vector<char> request(options.request_bytes), answer(options.answer_bytes, 'a');
    while (receive(pair.answers.get(), request)) send_all(pair.answers.get(), answer);
  });
  pin(options.cpus[0]);
  std::vector<char> request(options.request_bytes, 'r'), answer(options.answer_bytes);
  std::vector<double> us;
  const TickRate& rate = TickRate::instance();
  const Ticks end =
      ticks_now() + rate.from_us(static_cast<std::uint64_t>(options.seconds * 1'000'000));
  for (Ticks start = ticks_now(); start < end;) {
    send_all(pair.asks.get(), request);
    if (!receive(pair.asks.get(), answer)) give_up("the other side is gone", 0);
    const Ticks now = ticks_now();
    us.push_back(static_cast<double>(rate.to_ns(now - start)) / 1000);
    start = now;
  }
  ::shutdown(pair.asks.get(), SHUT_RDWR);
  other.join();
  return {{"rounds", us.size()}, {"p50_us", median(us)}, {"p99_us", quantile(us, 0.99)}};
}

/// An io_uring of one thread, with one thing under way at a time.
class OneAtATime {
 public:
  OneAtATime() {
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    if (const int rc = ::io_uring_queue_init_params(8, &ring_, &params); rc < 0) {
      give_up("no io_uring", -rc);
    }
  }
  ~OneAtATime() { ::io_uring_queue_exit(&ring_); }

  io_uring_sqe* next() { return ::io_uring_get_sqe(&ring_); }
  /// The result of what was queued last, and with zero copy of the kernel's notice as well.
  int run(bool notice_too = false) {
    int result = 0;
    ::io_uring_submit(&ring_);
    for (bool more = true, first = true; more; first = false) {
      io_uring_cqe* entry = nullptr;
      if (const int rc = ::io_uring_wait_cqe(&ring_, &entry); rc < 0) give_up("io_uring", -rc);
      if (first) result = entry->res;
      more = notice_too && (entry->flags & IORING_CQE_F_MORE) != 0;
      ::io_uring_cqe_seen(&ring_, entry);
    }
    return result;
  }

 private:
  io_uring ring_{};
};

nlohmann::json stream(const Options& options) {
  Pair pair = connected();
  std::thread other([&] {
    pin(options.cpus[1]);
    OneAtATime ring;
    const std::vector<char> message(options.message_bytes, 'm');
    while (true) {
      if (options.zero_copy) {
        ::io_uring_prep_send_zc(ring.next(), pair.answers.get(), message.data(), message.size(),
                                MSG_NOSIGNAL | MSG_WAITALL, 0);
      } else {
        ::io_uring_prep_send(ring.next(), pair.answers.get(), message.data(), message.size(),
                             MSG_NOSIGNAL | MSG_WAITALL);
      }
      if (ring.run(options.zero_copy) != static_cast<int>(message.size())) return;
    }
  });
  pin(options.cpus[0]);
  OneAtATime ring;
  std::vector<char> message(options.message_bytes);
  std::uint64_t bytes = 0;
  const TickRate& rate = TickRate::instance();
  const Ticks start = ticks_now();
  const Ticks end = start + rate.from_us(static_cast<std::uint64_t>(options.seconds * 1'000'000));
  Ticks now = start;
  for (; now < end; now = ticks_now()) {
    ::io_uring_prep_recv(ring.next(), pair.asks.get(), message.data(), message.size(), MSG_WAITALL);
    if (ring.run() != static_cast<int>(message.size())) give_up("a message came in part", 0);
    bytes += message.size();
  }
  ::shutdown(pair.asks.get(), SHUT_RDWR);
  other.join();
  const double seconds = static_cast<double>(rate.to_ns(now - start)) / 1e9;
  return {{"bytes", bytes}, {"bytes_per_s", static_cast<double>(bytes) / seconds}};
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app("What the kernel takes for the bytes of reads over TCP");
  options.add_to(app);
  CLI::App* const ping_pong = app.add_subcommand("ping-pong", "request and answer, one at a time");
  ping_pong->add_option("--request", options.request_bytes, "bytes");
  ping_pong->add_option("--answer", options.answer_bytes, "bytes");
  CLI::App* const stream = app.add_subcommand("stream", "message after message, one way");
  stream->add_option("--message", options.message_bytes, "bytes");
  stream->add_flag("--zero-copy", options.zero_copy, "sent without a copy, where the kernel can");
  CLI11_PARSE(app, argc, argv);
  const nlohmann::json figures =
      ping_pong->parsed() ? kelp::bench::ping_pong(options) : kelp::bench::stream(options);
  std::printf("%s\n", figures.dump().c_str());
  return 0;
}
