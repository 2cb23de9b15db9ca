#include "live/watcher.h"

#include <thread>

namespace kelp::live {

Result<Watcher> Watcher::open(Common& common, unsigned number,
                              std::span<const std::unique_ptr<Object>> objects) {
  auto kelp = bench::KelpClient::open(common.run_dir, kDepth * kSlotBytes, 5'000'000);
  if (!kelp) return tl::unexpected(kelp.error());
  return Watcher(common, number, objects, std::move(*kelp));
}

Watcher::Watcher(Common& common, unsigned number, std::span<const std::unique_ptr<Object>> objects,
                 bench::KelpClient kelp)
    : common_(common), objects_(objects), kelp_(std::move(kelp)), random_(1000 + number) {}

Result<void> Watcher::run() {
  while (!common_.stop.load(std::memory_order_relaxed)) {  // relaxed: a wish, orders nothing
    if (auto done = step(); !done) return done;
    // The writers' reads are what the test is about; they shall have most of the CPUs.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return {};
}

Result<void> Watcher::step() {
  std::array<const Object*, kDepth> objects;
  std::array<Snapshot, kDepth> asked;
  std::array<kelp_request, kDepth> requests{};
  std::array<kelp_completion, kDepth> done{};
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < kDepth; ++i) {
    objects[count] = objects_[random_() % objects_.size()].get();
    asked[count] = objects[count]->look();
    if (asked[count].fid.empty() || asked[count].in_flight) continue;
    kelp_request& request = requests[count];
    request.tag = count;
    request.buffer = kelp_.buffer().data() + count * kSlotBytes;
    request.length = kSlotBytes;
    if (kelp_fid_parse(asked[count].fid.c_str(), &request.fid) != KELP_OK) {
      return plain_error("libkelp does not understand the file id " + asked[count].fid);
    }
    ++count;
  }
  const kelp_status status = kelp_read_many(kelp_.channel(), requests.data(), count, done.data());
  if (status != KELP_OK) {
    return plain_error(std::string("kelp_read_many answered ") + kelp_status_name(status) + ": " +
                       kelp_error_detail());
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    judge_one(*objects[i], asked[i], requests[i], done[i]);
  }
  return {};
}

/// An answer that is none is asked for again, for at most 10 s or until a writer changes the
/// object.
void Watcher::judge_one(const Object& object, const Snapshot& asked, kelp_request request,
                        kelp_completion done) {
  const std::span<const char> buffer(static_cast<const char*>(request.buffer), request.length);
  const Clock::time_point started = Clock::now();
  for (bool first = true;; first = false) {
    if (object.look().changes != asked.changes) {
      ++tally_.reads_overlapped;
      return;
    }
    const Verdict verdict = judge(common_.pool, asked.content, {},
                                  {.offset = 0, .length = request.length}, done, buffer);
    const Clock::duration waited = Clock::now() - started;
    if (verdict != Verdict::kAgain || waited > kPatience) {
      ++tally_.reads_of_others;
      if (!first) tally_.waited(waited);
      tally_.count(verdict, asked.fid, asked.content, done);
      return;
    }
    if (first) ++tally_.reads_repeated;
    ++tally_.repeated_for[done.status];
    if (kelp_read_many(kelp_.channel(), &request, 1, &done) != KELP_OK) {
      done.status = KELP_DISCONNECTED;
    }
  }
}

}  // namespace kelp::live
