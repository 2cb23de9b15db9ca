// A real worker whose client writes what it likes into its ring, entry by entry or byte by byte,
// between turns of the loop.
//
// Input: ring size u8, then steps: kind u8 and what it takes (see Attack::step).
//
// Promises: the worker lets go of the ring in the end; what is in flight never outgrows the
// completion ring; another client's read is answered with the right bytes, in its buffer and
// nowhere else. And while the client keeps to the protocol: one completion for each submission,
// with its tag, and an OK read holds the needle's bytes.
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <thread>

#include "dataplane/worker/client.h"
#include "dataplane/worker/worker.h"
#include "fuzz/fuzz.h"
#include "support/gzip_writer.h"
#include "support/small_volume.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

constexpr std::uint32_t kVolume = 7;
constexpr std::uint32_t kCookie = 0x637037d6;
constexpr std::size_t kDataBytes = 64 * 1024;
constexpr std::size_t kNeedles = 4;  // ids 0..3; the last one is stored compressed
constexpr std::uint64_t kPatience = 20'000'000;

struct Guest {
  explicit Guest(std::uint32_t entries) {
    auto made = ClientSegment::create({1, entries, 2 * entries}, kDataBytes, HugepageUse::kOff);
    must(made.has_value(), "memory for a client");
    client.segment = std::move(*made);
    std::array<int, 2> pair{};
    must(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) == 0,
         "a socket pair");
    theirs.reset(pair[1]);
    ring = std::make_unique<ServerRing>(client, 0, UniqueFd(pair[0]),
                                        UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  }

  const SegmentLayout& layout() const { return client.segment->layout(); }
  std::byte* block() const { return client.segment->ring_block(0); }
  std::span<std::byte> data() const { return *client.segment->resolve(0, kDataBytes); }
  RingControl& control() const { return *reinterpret_cast<RingControl*>(block()); }

  void put(std::uint32_t index, Submission entry) const {
    entry.sequence = index + 1;
    const std::size_t slot = index & (layout().submission_entries - 1);
    std::memcpy(block() + layout().submissions_offset() + slot * sizeof entry, &entry,
                sizeof entry);
  }
  Completion completion(std::uint32_t index) const {
    const std::size_t slot = index & (layout().completion_entries - 1);
    Completion entry;
    std::memcpy(&entry, block() + layout().completions_offset() + slot * sizeof entry,
                sizeof entry);
    return entry;
  }

  Client client;
  UniqueFd theirs;
  std::unique_ptr<ServerRing> ring;
};

/// What stays from one input to the next: a worker, a volume, and a well-behaved client.
class Scene {
 public:
  static Scene& instance() {
    static Scene scene;
    return scene;
  }

  Worker& worker() { return *worker_; }
  const std::vector<std::byte>& content(std::uint64_t needle) const { return contents_[needle]; }

  void add(Guest& guest) {
    must(worker_->command({WorkerCommand::Kind::kAddRing, guest.ring.get()}), "a command");
    worker_->poll_once();
  }

  void remove(Guest& guest) {
    must(worker_->command({WorkerCommand::Kind::kRemoveRing, guest.ring.get()}), "a command");
    bool gone = false;
    for (std::uint64_t turns = 0; !gone; ++turns) {
      must(turns < kPatience, "the worker lets go of a ring");
      if (!worker_->poll_once()) std::this_thread::yield();
      while (const auto report = worker_->take_report()) {
        gone |=
            report->kind == WorkerReport::Kind::kRingRemoved && report->ring == guest.ring.get();
      }
    }
    must(guest.ring->in_flight() == 0, "with nothing in flight");
  }

  /// The well-behaved client reads needle 1 and looks at all of its memory.
  void check_witness() {
    const auto& bytes = content(1);
    std::ranges::fill(witness_.data(), std::byte{0xcc});
    const kelp_status status = witness_read();
    must(status == KELP_OK, "another client is served");
    must(std::ranges::equal(witness_.data().subspan(4096, bytes.size()), bytes),
         "with the right bytes");
    const auto untouched = [](std::span<const std::byte> part) {
      return std::ranges::all_of(part, [](std::byte byte) { return byte == std::byte{0xcc}; });
    };
    must(untouched(witness_.data().first(4096)) &&
             untouched(witness_.data().subspan(4096 + bytes.size())),
         "and nowhere else");
  }

 private:
  Scene() : directory_("/dev/shm"), volume_(directory_.path(), kVolume), witness_(4) {
    for (std::uint64_t needle = 0; needle < kNeedles; ++needle) {
      contents_.push_back(test::pattern(needle == 0 ? 1 : needle * 900, needle));
      const bool packed = needle == kNeedles - 1;
      volume_.put(needle, kCookie, packed ? test::gzip_member(contents_.back()) : contents_.back(),
                  packed ? kFlagCompressed : std::uint8_t{0});
    }
    WorkerOptions options;
    options.ops = 48;
    options.max_timeout_us = 5'000'000;
    options.reload_wait_us = 1'000;
    options.loader.directories = {{directory_.path().string(), ""}};
    options.loader.rescan = std::chrono::milliseconds(3'600'000);
    worker_ = std::make_unique<Worker>(std::move(options));
    add(witness_);
    for (std::uint64_t turns = 0; witness_read() != KELP_OK; ++turns) {
      must(turns < kPatience, "the volume is served");
    }
  }

  kelp_status witness_read() {
    Submission entry{};
    entry.op = OpCode::kRead;
    entry.volume = kVolume;
    entry.needle = 1;
    entry.cookie = kCookie;
    entry.buffer_offset_bytes = 4096;
    entry.length_bytes = static_cast<std::uint32_t>(content(1).size());
    const std::uint32_t index = witness_reads_++;
    witness_.put(index, entry);
    for (std::uint64_t turns = 0; witness_.completion(index).sequence != index + 1; ++turns) {
      must(turns < kPatience, "a read is answered");
      if (!worker_->poll_once()) std::this_thread::yield();
    }
    witness_.control().completion_head = witness_reads_;
    return static_cast<kelp_status>(witness_.completion(index).status);
  }

  test::TempDir directory_;
  test::SmallVolume volume_;
  std::vector<std::vector<std::byte>> contents_;
  Guest witness_;  // outlives the worker
  std::uint32_t witness_reads_ = 0;
  std::unique_ptr<Worker> worker_;
};

class Attack {
 public:
  Attack(Scene& scene, std::uint32_t entries) : scene_(scene), guest_(entries) {
    scene_.add(guest_);
  }
  ~Attack() { scene_.remove(guest_); }

  void step(fuzz::Input& input) {
    switch (input.take<std::uint8_t>() % 8) {
      case 0: {  // any bytes anywhere in the ring's block
        const std::size_t at = input.take<std::uint16_t>() % guest_.layout().ring_bytes();
        const auto bytes = input.take_bytes(input.take<std::uint8_t>());
        const std::size_t count = std::min(bytes.size(), guest_.layout().ring_bytes() - at);
        if (count > 0) std::memcpy(guest_.block() + at, bytes.data(), count);
        fair_ = false;
        break;
      }
      case 1: {  // any entry, with the lap mark the worker waits for
        Submission entry{};
        const auto bytes = input.take_bytes(sizeof entry);
        if (!bytes.empty()) std::memcpy(&entry, bytes.data(), bytes.size());
        submit(entry);
        break;
      }
      case 2:
      case 3:
        submit(likely_entry(input));
        break;
      case 4:  // lies about what was reaped
        guest_.control().completion_head = input.take<std::uint32_t>();
        fair_ = false;
        break;
      case 5:
        for (std::uint32_t turns = input.take<std::uint8_t>() % 8 + 1; turns > 0; --turns) poll();
        break;
      case 6: {  // writes into the data area, where bytes may be landing
        const std::size_t at = input.take<std::uint16_t>() % kDataBytes;
        guest_.data()[at] = static_cast<std::byte>(input.take<std::uint8_t>());
        scribbled_ = true;
        break;
      }
      case 7:
        guest_.control().client_sleeps = 1;
        break;
    }
  }

  /// While the client kept to the protocol everything is answered in the end.
  void settle() {
    for (std::uint64_t turns = 0; fair_ && !submitted_.empty(); ++turns) {
      must(turns < kPatience, "every submission is answered");
      poll();
      if (!submitted_.empty()) std::this_thread::yield();
    }
  }

 private:
  static Submission likely_entry(fuzz::Input& input) {
    const auto choice = input.take<std::uint8_t>();
    Submission entry{};
    entry.op = static_cast<OpCode>(choice % 3);
    entry.volume = (choice & 0x40) != 0 ? kVolume + 1 : kVolume;
    entry.cookie = (choice & 0x80) != 0 ? 1 : kCookie;
    entry.needle = input.take<std::uint8_t>() % (kNeedles + 1);
    entry.buffer_offset_bytes = input.take<std::uint16_t>();
    entry.length_bytes = input.take<std::uint16_t>();
    entry.offset_bytes = (choice & 0x20) != 0 ? input.take<std::uint16_t>() : 0;
    entry.timeout_us = (choice & 0x10) != 0 ? input.take<std::uint16_t>() : 0;
    return entry;
  }

  void submit(Submission entry) {
    // A client that keeps to the protocol has no more than the ring's slots in flight.
    if (submitted_.size() >= guest_.layout().submission_entries) fair_ = false;
    entry.tag = next_;
    if (fair_) submitted_[next_] = entry;
    guest_.put(next_++, entry);
  }

  void poll() {
    scene_.worker().poll_once();
    must(guest_.ring->in_flight() <= guest_.layout().completion_entries,
         "what is in flight has room for its answers");
    if (fair_) reap();
  }

  void reap() {
    for (; guest_.completion(reaped_).sequence == reaped_ + 1; ++reaped_) {
      const Completion done = guest_.completion(reaped_);
      if ((done.flags & KELP_FLAG_BUFFER_HELD) != 0) continue;
      const auto found = submitted_.find(done.tag);
      must(found != submitted_.end(), "each tag is answered once");
      judge(found->second, done);
      submitted_.erase(found);
    }
    guest_.control().completion_head = reaped_;
  }

  void judge(const Submission& entry, const Completion& done) const {
    if (done.status != KELP_OK || entry.op != OpCode::kRead || (done.flags & kFlagReleased) != 0) {
      return;
    }
    must(entry.volume == kVolume && entry.needle < kNeedles, "OK is for needles that are there");
    const auto& bytes = scene_.content(entry.needle);
    must(done.total_bytes == bytes.size() && done.bytes <= entry.length_bytes &&
             entry.offset_bytes + done.bytes <= bytes.size(),
         "with their size");
    // With several reads in flight the client's own buffers may overlap.
    if (scribbled_ || next_ != 1) return;
    must(std::memcmp(guest_.data().data() + entry.buffer_offset_bytes,
                     bytes.data() + entry.offset_bytes, done.bytes) == 0,
         "and their bytes");
  }

  Scene& scene_;
  Guest guest_;
  std::map<std::uint64_t, Submission> submitted_;  // and not answered, by tag
  std::uint32_t next_ = 0;
  std::uint32_t reaped_ = 0;
  bool fair_ = true;
  bool scribbled_ = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  Scene& scene = Scene::instance();
  {
    Attack attack(scene, std::uint32_t{4} << (input.take<std::uint8_t>() % 4));
    for (int steps = 0; steps < 200 && !input.empty(); ++steps) attack.step(input);
    attack.settle();
  }
  scene.check_witness();
  return 0;
}
