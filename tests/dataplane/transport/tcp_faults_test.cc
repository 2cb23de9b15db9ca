// Many requests over a network that turns bits, loses, repeats, stalls and cuts off, by a seed.
//
// Each request ends once: with its very bytes, with an error, given up, or lost. A buffer that was
// given back does not change until it is used again. KELP_FAULT_REQUESTS and KELP_FAULT_SEEDS say
// how many (10 000 requests of 2 seeds otherwise).
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <thread>

#include "support/faulty_pipe.h"
#include "support/link_lab.h"

using namespace kelp;
using namespace kelp::test;

namespace {

constexpr std::uint16_t kSlots = 8;
constexpr std::byte kGivenBack{0xee};

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// Answers late, at once, or never: the gateway has to be fenced, or to have given up.
class Target final : public TargetLink::User {
 public:
  explicit Target(std::uint64_t seed) : random_(seed) {}
  void asked(TargetLink& link, const wire::Request& request, std::string_view) override {
    if (random_() % 4 == 0) {
      waiting_.emplace_back(&link, request);
    } else {
      answer(link, request);
    }
  }
  void cancelled(TargetLink& link, std::uint16_t slot) override {
    const auto found = std::ranges::find_if(waiting_, [&](const auto& each) {
      return each.first == &link && each.second.slot == slot;
    });
    if (found == waiting_.end()) return;
    answer(link, found->second);  // with its bytes, though nobody waits for them
    waiting_.erase(found);
  }
  void answer_some() {
    if (waiting_.empty() || random_() % 3 != 0) return;
    const auto which = waiting_.begin() + static_cast<std::ptrdiff_t>(random_() % waiting_.size());
    answer(*which->first, which->second);
    waiting_.erase(which);
  }
  void forget() { waiting_.clear(); }

 private:
  void answer(TargetLink& link, const wire::Request& request) {
    if (random_() % 10 == 0) {
      wire::Answer none;
      none.slot = request.slot;
      none.status = KELP_NOT_FOUND;
      link.answer(none);
    } else {
      ScriptedTarget::answer_whole(link, request);
    }
  }

  std::mt19937_64 random_;
  std::vector<std::pair<TargetLink*, wire::Request>> waiting_;
};

struct Counts {
  std::uint64_t right = 0, not_found = 0, not_intact = 0, given_up = 0, held = 0, lost = 0;
  std::uint64_t links = 0, faults = 0;
};

class Run final : public GatewayLink::User {
 public:
  /// A link with no credit left for so long is fenced.
  Run(std::uint64_t seed, Faults faults, std::chrono::milliseconds patience)
      : random_(seed), faults_(faults), patience_(patience), target_(seed + 1) {
    buffers_.resize(2 * kSlots);
  }

  Counts run(std::uint64_t requests) {
    while (ended_ < requests) {
      connect();
      while (!link_->ending() && ended_ < requests) turn(requests);
      disconnect();
      REQUIRE(std::ranges::none_of(buffers_, [](const Buffer& each) { return each.busy; }));
    }
    counts_.right += 0;
    REQUIRE(asked_ == ended_);
    return counts_;
  }

 private:
  struct Buffer {
    std::vector<std::byte> bytes;
    bool busy = false;
    bool given_up = false;  // and held
    std::uint16_t slot = 0;
    std::uint64_t needle = 0;
    std::uint64_t offset = 0;
    std::chrono::steady_clock::time_point deadline;
  };

  void connect() {
    pipe_ = std::make_unique<FaultyPipe>(faults_, random_());
    here_ = TcpTransport::create().value();
    there_ = TcpTransport::create().value();
    const wire::Agreement agreement = LinkLab::agreed(kSlots, 256 * 1024);
    link_ = &here_->add_gateway(pipe_->take_a(), agreement, {}, *this);
    peer_ = &there_->add_target(pipe_->take_b(), agreement, {}, target_);
    link_->start();
    peer_->start();
    ++counts_.links;
  }

  void disconnect() {
    link_->fence();
    peer_->fence();
    while (!link_->fenced() || !peer_->fenced()) poll();
    target_.forget();
    counts_.faults += pipe_->faults_done();
    here_->remove(*link_);
    there_->remove(*peer_);
    look_at_buffers();
    here_.reset();
    there_.reset();
    pipe_.reset();
    look_at_buffers();
  }

  void poll() {
    link_->flush();
    peer_->flush();
    here_->poll();
    there_->poll();
  }

  void turn(std::uint64_t requests) {
    if (asked_ < requests && random_() % 2 == 0) ask();
    target_.answer_some();
    poll();
    const auto now = std::chrono::steady_clock::now();
    for (std::uint32_t owner = 0; owner < buffers_.size(); ++owner) {
      Buffer& each = buffers_[owner];
      if (!each.busy || each.given_up || now < each.deadline) continue;
      give_up(owner);
    }
    // What was lost on the way comes no more.
    if (link_->in_flight() == kSlots && now > stuck_since_ + patience_) link_->fence();
    if (link_->in_flight() < kSlots) stuck_since_ = now;
    if (random_() % 64 == 0) look_at_buffers();
  }

  void ask() {
    const auto owner = static_cast<std::uint32_t>(random_() % buffers_.size());
    Buffer& buffer = buffers_[owner];
    if (buffer.busy || link_->in_flight() == kSlots || link_->ending()) return;
    const std::size_t most = random_() % 8 == 0 ? 200'000 : 6000;
    buffer.bytes.assign(1 + random_() % most, kGivenBack);
    buffer.needle = random_();
    buffer.offset = random_() % 1'000'000;
    const auto slot = link_->ask(owner, LinkLab::read(buffer.needle, buffer.bytes, buffer.offset));
    if (!slot) return;
    buffer.busy = true;
    buffer.given_up = false;
    buffer.slot = *slot;
    // Some give up before anything can have come.
    const auto patience = std::chrono::microseconds(random_() % 16 == 0 ? 0 : 20'000);
    buffer.deadline = std::chrono::steady_clock::now() + patience;
    ++asked_;
  }

  void give_up(std::uint32_t owner) {
    Buffer& buffer = buffers_[owner];
    if (link_->ending()) return;  // lost() comes
    ++counts_.given_up;
    if (link_->let_go(buffer.slot)) {
      give_back(buffer);
    } else {
      ++counts_.held;
      buffer.given_up = true;
    }
  }

  /// Its owner may do with it as it likes: whatever else writes there is seen.
  void give_back(Buffer& buffer) {
    buffer.busy = false;
    std::ranges::fill(buffer.bytes, kGivenBack);
    ++ended_;
  }
  void look_at_buffers() {
    for (const Buffer& each : buffers_) {
      if (each.busy) continue;
      REQUIRE(std::ranges::all_of(each.bytes, [](std::byte b) { return b == kGivenBack; }));
    }
  }

  void answered(std::uint32_t owner, const wire::Answer& answer, bool intact) override {
    Buffer& buffer = buffers_[owner];
    REQUIRE(buffer.busy);
    REQUIRE_FALSE(buffer.given_up);
    if (!intact) {
      ++counts_.not_intact;
    } else if (answer.status == KELP_OK) {
      REQUIRE(answer.bytes == buffer.bytes.size());
      REQUIRE(holds(buffer.bytes, buffer.needle, buffer.offset));
      ++counts_.right;
    } else {
      REQUIRE(answer.status == KELP_NOT_FOUND);
      ++counts_.not_found;
    }
    give_back(buffer);
  }
  void passed_over(GatewayLink&) override {}
  void released(std::uint32_t owner) override {
    REQUIRE(buffers_[owner].given_up);
    give_back(buffers_[owner]);
  }
  void lost(std::uint32_t owner) override {
    REQUIRE(buffers_[owner].busy);
    REQUIRE_FALSE(buffers_[owner].given_up);
    ++counts_.lost;
    give_back(buffers_[owner]);
  }

  std::mt19937_64 random_;
  const Faults faults_;
  const std::chrono::milliseconds patience_;
  Target target_;
  std::vector<Buffer> buffers_;
  std::unique_ptr<FaultyPipe> pipe_;
  std::unique_ptr<TcpTransport> here_, there_;
  TcpGatewayLink* link_ = nullptr;
  TcpTargetLink* peer_ = nullptr;
  std::chrono::steady_clock::time_point stuck_since_{};
  std::uint64_t asked_ = 0;
  std::uint64_t ended_ = 0;
  Counts counts_;
};

}  // namespace

TEST_CASE("over a network that fails each request ends right, and no buffer changes afterwards") {
  const std::uint64_t requests = number_from("KELP_FAULT_REQUESTS", 10'000);
  const std::uint64_t seeds = number_from("KELP_FAULT_SEEDS", 2);
  const Faults faults{.flip = 1000, .truncate = 400, .duplicate = 400, .stall = 1000, .reset = 200};
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    CAPTURE(seed);
    Run run(seed, faults, std::chrono::milliseconds(50));
    const Counts counts = run.run(requests);
    MESSAGE("seed " << seed << ": right " << counts.right << ", not found " << counts.not_found
                    << ", not intact " << counts.not_intact << ", given up " << counts.given_up
                    << " (held " << counts.held << "), lost " << counts.lost << ", links "
                    << counts.links << ", faults " << counts.faults);
    // How many are given up, or lost with their link, is a matter of time; most answers are right.
    CHECK(counts.right > (counts.right + counts.not_found + counts.not_intact) / 2);
    CHECK(counts.right > requests / 20);
    CHECK(counts.links > 1);
    CHECK(counts.given_up > 0);
  }
}

TEST_CASE("over a network that only cuts pieces, every request is answered") {
  Run run(7, {.most_piece_bytes = 5000}, std::chrono::seconds(60));
  const Counts counts = run.run(3000);
  CHECK(counts.links == 1);
  CHECK(counts.lost == 0);
  CHECK(counts.not_intact == 0);
}
