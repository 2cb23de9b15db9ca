// What a client sees when its daemon dies, and what the daemon sees when clients die or fork.
#include <doctest/doctest.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

#include "shm_ring/kelp.h"
#include "support/forked_program.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

/// Reaps until the daemon's death is noticed; what came before does not matter.
kelp_status reap_to_the_end(TestClient& client) {
  while (client.last_status == KELP_OK) client.reap();
  return client.last_status;
}

void check_death_is_noticed(std::uint32_t spin_us) {
  TestDaemon daemon;
  TestClient client(daemon, 1, 1 << 20, spin_us);
  REQUIRE(client.submit(client.nop(1)) == KELP_OK);
  REQUIRE(client.reap().size() == 1);
  daemon.pause();
  REQUIRE(client.submit(client.read({3, 0, 1}, 2, 1000, 60'000'000)) == KELP_OK);
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    daemon.close_sockets();
  });
  const auto start = std::chrono::steady_clock::now();
  CHECK(reap_to_the_end(client) == KELP_DISCONNECTED);
  CHECK(std::chrono::steady_clock::now() - start < kPatience);
  killer.join();
  // From now on everything says so, and at once.
  CHECK(client.submit(client.nop(3)) == KELP_DISCONNECTED);
  CHECK(kelp_read(client.channel, "3,0100000000", 0, client.buffer, 1, 0, nullptr) ==
        KELP_DISCONNECTED);
  kelp_channel* another = nullptr;
  CHECK(kelp_channel_open(client.connection, &another) == KELP_DISCONNECTED);
}

TEST_CASE("the daemon's death is noticed by a client that polls") {
  check_death_is_noticed(60'000'000);
}

TEST_CASE("the daemon's death is noticed by a client that sleeps") {
  check_death_is_noticed(0);
}

TEST_CASE("kelp_read_many ends with its daemon and says which buffers are lost") {
  TestDaemon daemon;
  TestClient client(daemon);
  daemon.pause();
  std::vector<kelp_request> requests;
  for (std::uint64_t i = 0; i < 6; ++i) {
    requests.push_back(client.read({3, 0, 1}, i, 1000, 60'000'000));
    requests.back().buffer = static_cast<std::byte*>(client.buffer) + i * 1000;
  }
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    daemon.close_sockets();
  });
  std::vector<kelp_completion> done(6);
  CHECK(kelp_read_many(client.channel, requests.data(), 6, done.data()) == KELP_DISCONNECTED);
  killer.join();
  for (std::size_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(done[i].status == KELP_DISCONNECTED);
    CHECK(done[i].tag == i);
    CHECK(((done[i].flags & KELP_FLAG_BUFFER_HELD) != 0) == (i < 4));  // the ring holds 4
  }
}

TEST_CASE("buffers in flight at the daemon's death are never handed out again") {
  TestDaemon daemon;
  TestClient client(daemon, 1, 64 * 1024);
  daemon.pause();
  REQUIRE(client.submit(client.read({3, 0, 1}, 1, 1000, 60'000'000)) == KELP_OK);
  daemon.close_sockets();
  CHECK(reap_to_the_end(client) == KELP_DISCONNECTED);
  CHECK(kelp_buffer_free(client.connection, client.buffer) == KELP_OK);
  void* again = nullptr;
  CHECK(kelp_buffer_alloc(client.connection, 4096, &again) == KELP_NO_MEMORY);
}

TEST_CASE("after a reconnect everything works again, with new memory") {
  TestDaemon daemon;
  TestClient client(daemon);
  CHECK(kelp_reconnect(client.connection) == KELP_USAGE);  // its channel is open
  REQUIRE(client.submit(client.nop(1)) == KELP_OK);
  daemon.close_sockets();
  CHECK(reap_to_the_end(client) == KELP_DISCONNECTED);
  kelp_channel_close(client.channel);
  CHECK(kelp_reconnect(client.connection) == KELP_DISCONNECTED);  // still nobody there
  daemon.listen_again();
  REQUIRE(kelp_reconnect(client.connection) == KELP_OK);
  REQUIRE(kelp_channel_open(client.connection, &client.channel) == KELP_OK);
  REQUIRE(kelp_buffer_alloc(client.connection, 1 << 20, &client.buffer) == KELP_OK);
  client.last_status = KELP_OK;
  REQUIRE(client.submit(client.nop(2)) == KELP_OK);
  const auto done = client.reap();
  REQUIRE(done.size() == 1);
  CHECK(done[0].tag == 2);
  CHECK(eventually([&] { return daemon.clients() == 1; }));  // the old memory is gone
}

TEST_CASE("a thousand reconnects leave no descriptor and no client behind") {
  TestDaemon daemon;
  const auto descriptors = [] {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
      ++count;
    }
    return count;
  };
  // The loader's thread opens a descriptor of its own when it gets round to it.
  REQUIRE(eventually([&] { return daemon.worker().loader().settled(); }));
  { TestClient warm_up(daemon); }
  REQUIRE(eventually([&] { return daemon.clients() == 0; }));
  const std::size_t before = descriptors();
  for (int i = 0; i < 1000; ++i) {
    TestClient client(daemon, 1, 64 * 1024);
    REQUIRE(client.submit(client.nop(1)) == KELP_OK);
    if (i % 2 == 0) {
      REQUIRE(client.reap().size() == 1);
    }
  }
  CHECK(eventually([&] { return daemon.clients() == 0; }));
  eventually([&] { return descriptors() == before; });
  CHECK(descriptors() == before);
}

/// In the child of a program that has `client`: everything says FORKED, and closing is safe.
int check_child(TestClient& client, kelp_channel* second) {
  Steps steps;
  kelp_completion out;
  std::uint32_t reaped;
  kelp_channel* channel = nullptr;
  void* buffer = nullptr;
  const kelp_request nop = client.nop(1);
  steps.check(kelp_submit(client.channel, &nop, 1, nullptr) == KELP_FORKED);
  steps.check(kelp_reap(client.channel, &out, 1, 0, &reaped) == KELP_FORKED);
  steps.check(kelp_read(client.channel, "3,0100000000", 0, client.buffer, 1, 0, &out) ==
              KELP_FORKED);
  steps.check(kelp_read_many(client.channel, &nop, 1, &out) == KELP_FORKED);
  steps.check(kelp_channel_open(client.connection, &channel) == KELP_FORKED);
  steps.check(kelp_buffer_alloc(client.connection, 4096, &buffer) == KELP_FORKED);
  steps.check(kelp_buffer_free(client.connection, client.buffer) == KELP_FORKED);
  steps.check(kelp_reconnect(client.connection) == KELP_FORKED);
  steps.check(std::strlen(kelp_error_detail()) > 0);
  kelp_channel_close(second);
  kelp_close(client.connection);
  client.connection = nullptr;
  return steps.failed();
}

/// A TestClient in another process than the daemon's.
std::unique_ptr<TestClient> connect_in(const std::string& run_dir) {
  return std::make_unique<TestClient>(run_dir, 2U);
}

TEST_CASE("a forked child gets FORKED from every call, may close, and disturbs nobody") {
  ForkedProgram program([](const std::string& run_dir) {
    const auto client = connect_in(run_dir);
    Steps steps;
    kelp_channel* second = nullptr;
    steps.check(kelp_channel_open(client->connection, &second) == KELP_OK);
    // One request in flight over the fork.
    steps.check(client->submit(client->nop(7)) == KELP_OK);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(check_child(*client, second));
    int status = 0;
    ::waitpid(child, &status, 0);
    if (ForkedProgram::exit_code(status) != 0) return 100 + ForkedProgram::exit_code(status);
    const auto done = client->reap();
    steps.check(done.size() == 1 && done[0].tag == 7);
    for (std::uint64_t tag = 0; tag < 100; ++tag) {
      steps.check(client->submit(client->nop(tag)) == KELP_OK);
      steps.check(client->reap().size() == 1);
    }
    return steps.failed();
  });
  TestDaemon daemon;
  program.go(daemon.run_dir());
  CHECK(program.wait() == 0);
  CHECK(daemon.attached() == 1);
  CHECK(daemon.broken_rings() == 0);
  CHECK(eventually([&] { return daemon.clients() == 0; }));
}

TEST_CASE("a forked child connects anew and reads beside its parent") {
  ForkedProgram program([](const std::string& run_dir) {
    const auto client = connect_in(run_dir);
    const pid_t child = ::fork();
    Steps steps;
    if (child == 0) {
      const auto own = connect_in(run_dir);
      steps.check(own->submit(own->nop(1)) == KELP_OK);
      steps.check(own->reap().size() == 1);
      ::_exit(steps.failed());
    }
    for (std::uint64_t tag = 0; tag < 100; ++tag) {
      steps.check(client->submit(client->nop(tag)) == KELP_OK);
      steps.check(client->reap().size() == 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    steps.check(ForkedProgram::exit_code(status) == 0);
    return steps.failed();
  });
  TestDaemon daemon;
  program.go(daemon.run_dir());
  CHECK(program.wait() == 0);
  CHECK(daemon.attached() == 2);
}

TEST_CASE("a parent's death is noticed although its child lives on") {
  int fds[2];
  REQUIRE(::pipe(fds) == 0);
  kelp::UniqueFd child_waits(fds[0]);
  kelp::UniqueFd child_ends(fds[1]);
  ForkedProgram program([&](const std::string& run_dir) {
    child_ends.reset();
    const auto client = connect_in(run_dir);
    if (::fork() == 0) {
      char byte;
      static_cast<void>(!::read(child_waits.get(), &byte, 1));
      ::_exit(0);
    }
    ::kill(::getpid(), SIGKILL);
    return 0;
  });
  TestDaemon daemon;
  program.go(daemon.run_dir());
  CHECK(program.wait() == 1000 + SIGKILL);
  CHECK(eventually([&] { return daemon.attached() == 1 && daemon.clients() == 0; }));
  child_ends.reset();  // only now
}

TEST_CASE("a child forked during kelp_connect has no copy of the socket") {
  ForkedProgram program([](const std::string& run_dir) -> int {
    // Forks when the listener has the request, and before it answers.
    const kelp::UniqueFd listener = listen_at(run_dir + "/attach.sock");
    std::thread connecting([&] {
      kelp_options options = KELP_OPTIONS_INIT;
      options.run_dir = run_dir.c_str();
      kelp_connection* connection = nullptr;
      kelp_connect(&options, &connection);
    });
    const kelp::UniqueFd asking(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    kelp::AttachRequest request;
    static_cast<void>(
        kelp::receive_message(asking.get(), std::as_writable_bytes(std::span(&request, 1))));
    const pid_t child = ::fork();
    if (child == 0) {
      int sockets = 0;  // connected ones, but for the listener's end
      for (int fd = 3; fd < 64; ++fd) {
        sockaddr_un peer{};
        socklen_t bytes = sizeof peer;
        if (fd != asking.get() &&
            ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) == 0) {
          ++sockets;
        }
      }
      ::_exit(sockets);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ::_exit(ForkedProgram::exit_code(status));
  });
  kelp::test::TempDir dir;
  program.go(dir.path().string());
  CHECK(program.wait() == 0);
}

TEST_CASE("clients killed at any moment leave nothing behind and disturb nobody") {
  std::vector<std::unique_ptr<ForkedProgram>> victims;
  for (int i = 0; i < 8; ++i) {
    victims.push_back(std::make_unique<ForkedProgram>([](const std::string& run_dir) {
      const auto client = connect_in(run_dir);
      for (std::uint64_t tag = 0;; ++tag) {
        if (tag % 3 == 0) {
          client->submit(client->nop(tag));
        } else {
          client->submit(client->read({3, 0, tag}, tag, 1000));
        }
        client->reap(tag % 2 == 0 ? 0 : 1000);
      }
      return 0;
    }));
  }
  TestDaemonOptions options;
  options.drive = Drive::kThread;
  TestDaemon daemon(options);
  TestClient witness(daemon);
  for (std::size_t i = 0; i < victims.size(); ++i) {
    victims[i]->go(daemon.run_dir());
    REQUIRE(eventually([&] { return daemon.attached() == i + 2; }));
    for (std::uint64_t tag = 0; tag < 10 * i; ++tag) {
      REQUIRE(witness.submit(witness.nop(tag)) == KELP_OK);
      REQUIRE(witness.reap().size() == 1);
    }
    ::kill(victims[i]->pid(), SIGKILL);
    CHECK(victims[i]->wait() == 1000 + SIGKILL);
  }
  CHECK(eventually([&] { return daemon.clients() == 1; }));
  CHECK(witness.submit(witness.nop(1)) == KELP_OK);
  CHECK(witness.reap().size() == 1);
}

}  // namespace
