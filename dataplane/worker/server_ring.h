// One ring as the daemon sees it: submission consumer and completion producer over memory its
// client may scribble on. Everything that decides lives here, in private memory.
//
// Made by the control thread, then used by one worker until that says it is done with it.
#pragma once

#include <cstdint>
#include <optional>

#include "dataplane/memory/client_segment.h"
#include "shm_ring/layout.h"
#include "shm_ring/ring.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct Client;
struct ClientShare;

class ServerRing {
 public:
  /// Ring `index` of `client`'s segment. `client_wake` is the daemon's end of a socketpair,
  /// `worker_wake` an eventfd the client writes; both non-blocking.
  ServerRing(Client& client, std::uint32_t index, UniqueFd client_wake, UniqueFd worker_wake);

  enum class Intake : std::uint8_t { kEmpty, kTaken, kBroken };

  /// Copies the next submission out. kBroken: the client has more in flight than its completion
  /// ring can hold, or claims to have reaped what it was not given.
  Intake take(Submission& out) noexcept;

  /// After the last take() of a turn.
  void publish_head() noexcept { submissions_.publish_head(); }

  /// Publishes a completion. With KELP_FLAG_BUFFER_HELD the request stays in flight until
  /// kFlagReleased; every other completion ends it.
  void complete(const Completion& completion) noexcept;

  /// After the last complete() of a turn: wakes the client if it sleeps; true if that took a
  /// system call. Never blocks.
  bool wake_client() noexcept;

  void arm_sleep() noexcept;
  void disarm_sleep() noexcept;
  bool ready() const noexcept { return submissions_.ready(); }

  void beat() noexcept;
  /// Tells the client where the worker runs, so that it does not spin on that very CPU.
  void show_cpu(std::uint32_t cpu) noexcept;
  void set_state(RingState state) noexcept;

  /// The client is gone or condemned: nothing of its memory is read or written any more.
  void sever() noexcept { severed_ = true; }
  bool severed() const noexcept { return severed_; }

  /// Requests taken and not ended, held ones included.
  std::uint32_t in_flight() const noexcept { return in_flight_; }
  /// A request of a severed ring has ended.
  void forget_one() noexcept { --in_flight_; }

  Client& client() const noexcept { return client_; }
  /// What the client has on this ring's worker.
  ClientShare& share() const noexcept { return share_; }
  int worker_wake_fd() const noexcept { return worker_wake_.get(); }

  bool touched = false;  ///< the worker's own mark: completions were written this turn

 private:
  Client& client_;
  ClientShare& share_;
  RingControl* control_;
  RingConsumer<Submission> submissions_;
  RingProducer<Completion> completions_;
  std::uint32_t in_flight_ = 0;
  std::uint32_t reserved_ = 0;  // completion slots promised: two for a request, one once it is held
  std::uint64_t beats_ = 0;
  bool severed_ = false;
  UniqueFd client_wake_;
  UniqueFd worker_wake_;
};

}  // namespace kelp
