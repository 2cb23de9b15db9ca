// A network that fails: sits between two TCP sockets and does to what passes what a seed says.
// Asked for by name, in tests only.
#pragma once

#include <poll.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "support/tcp_pair.h"

namespace kelp::test {

struct Faults {
  // Chances in a million, of each piece that passes.
  std::uint32_t flip = 0;       ///< a bit turns: in a header or a payload, as it happens
  std::uint32_t truncate = 0;   ///< the rest of a piece is lost
  std::uint32_t duplicate = 0;  ///< a piece passes twice
  std::uint32_t stall = 0;      ///< nothing passes for stall_us
  std::uint32_t reset = 0;      ///< both ends are cut off
  std::uint32_t stall_us = 20'000;
  std::uint32_t most_piece_bytes = 20'000;  ///< pieces are of random sizes up to it
};

class FaultyPipe {
 public:
  FaultyPipe(Faults faults, std::uint64_t seed) : faults_(faults), random_(seed) {
    thread_ = std::thread([this] { run(); });
  }
  ~FaultyPipe() {
    ending_.store(true);
    thread_.join();
  }
  /// The ends to be used: what is written to one comes out of the other, as a rule.
  UniqueFd take_a() { return std::move(left_.a); }
  UniqueFd take_b() { return std::move(right_.a); }
  std::uint64_t faults_done() const { return done_.load(); }

 private:
  bool happens(std::uint32_t chance) {
    const bool does = random_() % 1'000'000 < chance;
    if (does) ++done_;
    return does;
  }
  bool pass(int to, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EAGAIN) {
        // A reader that is slow has all the time it wants; one that is gone reads no more.
        pollfd reader{to, POLLOUT | POLLRDHUP, 0};
        while (!ending_.load() && ::poll(&reader, 1, 100) == 0) {
        }
        if (ending_.load() || (reader.revents & ~POLLOUT) != 0) return false;
        continue;
      }
      if (sent <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// False: that way is at its end.
  bool carry(int from, int to) {
    const std::size_t most = 1 + random_() % faults_.most_piece_bytes;
    const ssize_t got = ::recv(from, buffer_.data(), std::min(most, buffer_.size()), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) return false;
    auto piece = std::span(buffer_).first(static_cast<std::size_t>(got));
    if (happens(faults_.stall)) {
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % faults_.stall_us));
    }
    if (happens(faults_.flip)) {
      piece[random_() % piece.size()] ^= static_cast<std::byte>(1U << random_() % 8);
    }
    if (happens(faults_.reset)) return false;
    if (happens(faults_.duplicate) && !pass(to, piece)) return false;
    if (happens(faults_.truncate)) piece = piece.first(random_() % piece.size());
    return pass(to, piece);
  }
  void run() {
    const int left = left_.b.get();
    const int right = right_.b.get();
    while (!ending_.load()) {
      std::array<pollfd, 2> sources{pollfd{left, POLLIN, 0}, pollfd{right, POLLIN, 0}};
      ::poll(sources.data(), sources.size(), 5);
      const bool goes_on = (sources[0].revents == 0 || carry(left, right)) &&
                           (sources[1].revents == 0 || carry(right, left));
      if (!goes_on) break;
    }
    ::shutdown(left, SHUT_RDWR);
    ::shutdown(right, SHUT_RDWR);
  }

  TcpPair left_;
  TcpPair right_;
  const Faults faults_;
  std::mt19937_64 random_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64 * 1024);
  std::atomic<bool> ending_{false};
  std::atomic<std::uint64_t> done_{0};
  std::thread thread_;
};

}  // namespace kelp::test
