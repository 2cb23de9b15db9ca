// Workers with a remote lane, stepped by hand; the test is the reader of the lane.
#pragma once

#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/worker/remote_lane.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/ring.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace kelp::test {

inline constexpr std::uint32_t kRemoteEntries = 16;
inline constexpr std::uint64_t kRemoteDataBytes = 1 << 20;
inline constexpr kelp_fid kNowhere{8, 0x637037d6, 1};

/// A program with one channel: ring w is worker w's.
struct RemoteProgram {
  explicit RemoteProgram(const std::vector<std::unique_ptr<Worker>>& workers)
      : client(workers.size()), submissions(workers.size()), completions(workers.size()) {
    const SegmentLayout layout{static_cast<std::uint32_t>(workers.size()), kRemoteEntries,
                               2 * kRemoteEntries};
    client.segment = ClientSegment::create(layout, kRemoteDataBytes, HugepageUse::kOff).value();
    for (std::uint32_t i = 0; i < workers.size(); ++i) {
      int pair[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
      ends.emplace_back(pair[1]);
      client.rings.push_back(std::make_unique<ServerRing>(
          client, i, UniqueFd(pair[0]), UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))));
      REQUIRE(workers[i]->command({WorkerCommand::Kind::kAddRing, client.rings[i].get()}));
      std::byte* const block = client.segment->ring_block(i);
      auto* const control = reinterpret_cast<RingControl*>(block);
      const auto words = [&](std::size_t offset) {
        return reinterpret_cast<std::uint64_t*>(block + offset);
      };
      submissions[i] = {words(layout.submissions_offset()), kRemoteEntries,
                        &control->submission_head};
      completions[i] = {words(layout.completions_offset()), 2 * kRemoteEntries,
                        &control->completion_head};
    }
  }

  void submit(kelp_fid fid, std::uint64_t tag, std::uint32_t timeout_us = 20'000'000) {
    submit(read_of(fid, tag, timeout_us));
  }
  void submit(const Submission& submission, std::uint32_t ring = 0) {
    submissions[ring].push(submission);
  }
  static Submission read_of(kelp_fid fid, std::uint64_t tag,
                            std::uint32_t timeout_us = 20'000'000) {
    Submission submission{};
    submission.op = OpCode::kRead;
    submission.tag = tag;
    submission.volume = fid.volume;
    submission.needle = fid.needle;
    submission.cookie = fid.cookie;
    submission.buffer_offset_bytes = tag * 4096;
    submission.length_bytes = 4096;
    submission.timeout_us = timeout_us;
    return submission;
  }
  std::byte* memory(std::uint64_t offset_bytes) const {
    return client.segment->resolve(offset_bytes, 1)->data();
  }

  Client client;
  std::vector<UniqueFd> ends;
  std::vector<RingProducer<Submission>> submissions;
  std::vector<RingConsumer<Completion>> completions;
};

struct RemoteScene {
  explicit RemoteScene(std::uint32_t count = 1, std::uint32_t ops = 64) {
    options.workers = count;
    options.ops = ops;
    options.remote = true;
    options.reload_wait_us = 10'000'000;
    options.loader.directories = {{dir.path().string(), ""}};
  }
  /// After the volumes have been written.
  void start() {
    for (std::uint32_t i = 0; i < options.workers; ++i) {
      options.index = options.loader.worker = i;
      options.loader.workers = options.workers;
      workers.push_back(std::make_unique<Worker>(options));
      workers.back()->remote_lane()->reader = &reader;
    }
    if (options.workers > 1) Worker::introduce(workers);
    programs.push_back(std::make_unique<RemoteProgram>(workers));
    REQUIRE(until([&] {
      for (const auto& worker : workers) {
        if (!worker->loader().settled()) return false;
      }
      return true;
    }));
    turn();
  }

  void turn(int turns = 300) {
    for (int i = 0; i < turns; ++i) {
      for (const auto& worker : workers) worker->poll_once();
      if (beside) beside();
    }
  }
  template <class Condition>
  bool until(Condition&& condition) {
    return eventually([&] {
      turn();
      return condition();
    });
  }
  Completion reap(std::uint32_t ring = 0) {
    std::optional<Completion> done;
    REQUIRE(until([&] { return (done = program().completions[ring].pop()).has_value(); }));
    program().completions[ring].publish_head();
    return *done;
  }
  bool nothing_comes(std::uint32_t ring = 0) {
    turn(2000);
    return !program().completions[ring].pop();
  }

  RemoteLane& lane(std::uint32_t worker = 0) { return *workers[worker]->remote_lane(); }
  RemoteRequest lent(std::uint32_t worker = 0) {
    std::optional<RemoteRequest> request;
    REQUIRE(until([&] { return (request = lane(worker).requests.try_pop()).has_value(); }));
    return *request;
  }
  bool nothing_lent() {
    for (const auto& worker : workers) {
      if (!worker->remote_lane()->requests.empty()) return false;
      if (worker->counters().remote.value() != 0) return false;
    }
    return true;
  }
  void answer(OpIndex op, kelp_status status, std::uint32_t bytes = 0, std::uint64_t total = 0,
              std::uint8_t attempts = 1, std::uint32_t worker = 0) {
    RemoteAnswer answer;
    answer.op = op;
    answer.outcome.status = status;
    answer.outcome.bytes = bytes;
    answer.outcome.total_bytes = total;
    answer.path = status == KELP_OK ? KELP_PATH_HTTP : KELP_PATH_NONE;
    answer.attempts = attempts;
    REQUIRE(lane(worker).answers.try_push(std::move(answer)));
  }
  RemoteProgram& program() { return *programs.back(); }
  const WorkerCounters& counters(std::uint32_t worker = 0) { return workers[worker]->counters(); }

  std::function<void()> beside;  ///< after each turn: another host
  TempDir dir;
  Waker reader;
  WorkerOptions options;
  std::vector<std::unique_ptr<RemoteProgram>> programs;
  std::vector<std::unique_ptr<Worker>> workers;  // ended before what they write to
};

}  // namespace kelp::test
