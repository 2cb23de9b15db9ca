#include "dataplane/worker/waker.h"

#include <doctest/doctest.h>
#include <poll.h>

#include <memory>
#include <thread>

#include "dataplane/worker/spsc_queue.h"

namespace {

using namespace kelp;

bool readable(const Waker& waker, int timeout_ms) {
  pollfd entry{waker.fd(), POLLIN, 0};
  return ::poll(&entry, 1, timeout_ms) > 0;
}

TEST_CASE("nobody who is awake is woken, and a sleeper once") {
  Waker waker;
  waker.notify();
  CHECK_FALSE(readable(waker, 0));
  waker.arm();
  waker.notify();
  waker.notify();
  CHECK(readable(waker, 0));
  waker.disarm();
  CHECK_FALSE(readable(waker, 0));
}

TEST_CASE("messages between two threads that sleep on each other all arrive, in order") {
  constexpr int kMessages = 100'000;
  SpscQueue<int> there(4);
  SpscQueue<int> back(4);
  Waker at_there;
  Waker at_back;
  const auto receive = [](SpscQueue<int>& queue, Waker& waker) {
    while (true) {
      if (const auto message = queue.try_pop()) return *message;
      waker.arm();
      const bool lost = queue.empty() && !readable(waker, 30'000);
      waker.disarm();
      if (lost) return -1;
    }
  };
  std::thread echo([&] {
    for (int i = 0; i < kMessages; ++i) {
      const int got = receive(there, at_there);
      back.try_push(int{got});
      at_back.notify();
      if (got < 0) return;
    }
  });
  int wrong = 0;
  for (int i = 0; i < kMessages; ++i) {
    REQUIRE(there.try_push(int{i}));
    at_there.notify();
    if (receive(back, at_back) != i) ++wrong;
    if (wrong != 0) break;
  }
  there.try_push(-1);
  at_there.notify();
  echo.join();
  CHECK(wrong == 0);
}

TEST_CASE("a full queue refuses and leaves the message with its sender") {
  SpscQueue<std::unique_ptr<int>> queue(2);
  for (int i = 0; i < 2; ++i) REQUIRE(queue.try_push(std::make_unique<int>(i)));
  auto third = std::make_unique<int>(2);
  CHECK_FALSE(queue.try_push(std::move(third)));
  REQUIRE(third != nullptr);
  CHECK(**queue.try_pop() == 0);
  CHECK(queue.try_push(std::move(third)));
  CHECK(**queue.try_pop() == 1);
  CHECK(**queue.try_pop() == 2);
  CHECK_FALSE(queue.try_pop());
  CHECK(queue.empty());
}

}  // namespace
