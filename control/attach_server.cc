#include "control/attach_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <thread>

#include "control/log.h"
#include "control/log_limiter.h"
#include "dataplane/volume/descriptor_room.h"
#include "shm_ring/kelp.h"

namespace kelp {
namespace {

constexpr std::size_t kMostHalfOpen = 64;
/// Connections taken at once; the listener is level-triggered, the rest is told again.
constexpr int kMostAccepts = 64;
constexpr std::chrono::seconds kHalfOpenLimit{2};
/// Without a descriptor for the next connection the listener is not looked at for so long.
constexpr std::chrono::milliseconds kAcceptPause{200};
constexpr std::uint64_t kSmallestDataBytes = 4096;

/// What a client calls itself, fit for a log line.
std::string printable_name(const std::array<char, 64>& name) {
  std::string text(name.data(), ::strnlen(name.data(), name.size()));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x21 || c > 0x7e; }, '?');
  return text.empty() ? "unnamed" : text;
}

Result<void> check_request(const AttachRequest& request, const AttachLimits& limits,
                           std::size_t workers) {
  const auto beyond = [](const std::string& what, std::uint64_t asked, std::uint64_t most) {
    return plain_error(what + ": " + std::to_string(asked) + " asked for, 1.." +
                       std::to_string(most) + " allowed");
  };
  if (request.channels < 1 || request.channels > limits.max_channels) {
    return beyond("channels", request.channels, limits.max_channels);
  }
  if (request.channels * workers > kMaxRingsPerClient) {
    return beyond("channels", request.channels, kMaxRingsPerClient / workers);
  }
  if (request.data_bytes < 1 || request.data_bytes > limits.max_data_bytes) {
    return beyond("bytes of data area", request.data_bytes, limits.max_data_bytes);
  }
  const std::uint32_t entries = request.submission_entries;
  if (entries != 0 &&
      (!std::has_single_bit(entries) || entries < kMinRingEntries || entries > kMaxRingEntries)) {
    return plain_error("ring entries: " + std::to_string(entries) +
                       " asked for, a power of two in 4..65536 allowed");
  }
  return {};
}

}  // namespace

AttachServer::AttachServer(int listen_fd, int epoll_fd, AttachLimits limits,
                           std::vector<Worker*> workers)
    : listen_fd_(listen_fd),
      epoll_fd_(epoll_fd),
      limits_(std::move(limits)),
      workers_(std::move(workers)),
      quotas_(limits_.per_uid) {}

AttachServer::~AttachServer() = default;

Result<void> AttachServer::start(std::uint64_t listener_id) {
  listener_id_ = listener_id;
  next_id_ = listener_id + 1;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = listener_id;
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, listen_fd_, &event) != 0) {
    return system_error("cannot watch the attach socket");
  }
  return {};
}

void AttachServer::close_listener() {
  if (listening_) ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, listen_fd_, nullptr);
  listening_ = false;
}

void AttachServer::accept_some() {
  for (int accepts = 0; listening_ && accepts < kMostAccepts; ++accepts) {
    UniqueFd socket(::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno != EMFILE && errno != ENFILE) return;
      // The listener stays readable, and would keep this thread busy: make room for the next.
      if (half_open_.empty()) {
        pause_listener();
        return;
      }
      half_open_.erase(half_open_.begin());
      continue;
    }
    // More than this many strangers at the door: the oldest has had its chance.
    if (half_open_.size() >= kMostHalfOpen) half_open_.erase(half_open_.begin());
    const std::uint64_t id = next_id_++;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    event.data.u64 = id;
    if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, socket.get(), &event) != 0) continue;
    Connection& connection = half_open_[id];
    connection.socket = std::move(socket);
    connection.since = Clock::now();
  }
}

bool AttachServer::handle(std::uint64_t id) {
  if (const auto found = half_open_.find(id); found != half_open_.end()) {
    attach(id, found->second);
    return true;
  }
  const auto found = attached_.find(id);
  if (found == attached_.end()) return false;
  // A client has nothing to say after its request: whatever makes the socket readable, it leaves.
  leave(id, found->second);
  return true;
}

void AttachServer::attach(std::uint64_t id, Connection& connection) {
  AttachRequest request;
  const auto received =
      receive_message(connection.socket.get(), std::as_writable_bytes(std::span(&request, 1)));
  if (!received && received.error().os_error == EAGAIN) return;
  if (!received || received->bytes != sizeof request || request.magic != kAttachMagic) {
    half_open_.erase(id);
    return;
  }
  AttachReply reply;
  reply.features = request.features & kSupportedFeatures;
  if (request.abi_major != kAbiMajor) {
    refuse(connection, KELP_VERSION,
           "this kelpd speaks ring version " + std::to_string(kAbiMajor) +
               ", the program's libkelp " + std::to_string(request.abi_major));
    half_open_.erase(id);
    return;
  }
  AttachDescriptors descriptors;
  if (auto admitted = admit(connection, request, reply, descriptors); !admitted) {
    refuse(connection, KELP_REFUSED, admitted.error().what);
    half_open_.erase(id);
    return;
  }
  std::vector<int> fds{descriptors.ring_segment.get(), descriptors.data_area.get()};
  for (const UniqueFd& fd : descriptors.client_wakes) fds.push_back(fd.get());
  for (const UniqueFd& fd : descriptors.worker_wakes) fds.push_back(fd.get());
  if (!send_message(connection.socket.get(), std::as_bytes(std::span(&reply, 1)), fds)) {
    half_open_.erase(id);
    return;
  }
  auto node = half_open_.extract(id);
  Connection& attached = attached_.emplace(id, std::move(node.mapped())).first->second;
  hand_over(id, attached);
}

Result<void> AttachServer::admit(Connection& connection, const AttachRequest& request,
                                 AttachReply& reply, AttachDescriptors& descriptors) {
  auto peer = Peer::of(connection.socket.get());
  if (!peer) return tl::unexpected(peer.error());
  if (auto admitted = limits_.admitted.check(*peer); !admitted) return admitted;
  if (attached_.size() >= limits_.max_clients) {
    return plain_error("all " + std::to_string(limits_.max_clients) +
                       " places for clients are taken (client.max_clients)");
  }
  if (auto sound = check_request(request, limits_, workers_.size()); !sound) return sound;
  // Before anything is made; the data area may still grow by a part of a page.
  QuotaShare share{request.channels, request.data_bytes};
  if (auto fits = quotas_.check(peer->uid, share); !fits) return fits;

  auto client = std::make_unique<Client>(workers_.size());
  client->name = printable_name(request.name);
  client->uid = peer->uid;
  client->gid = peer->gid;
  client->pid = peer->pid;
  client->since = std::chrono::system_clock::now();

  SegmentLayout layout;
  layout.rings = request.channels * static_cast<std::uint32_t>(workers_.size());
  layout.submission_entries =
      request.submission_entries == 0 ? limits_.ring_entries : request.submission_entries;
  layout.completion_entries = 2 * layout.submission_entries;
  auto made = make_segment(*client, layout, request.data_bytes);
  if (!made) return made;
  share.data_bytes = client->segment->data_bytes();
  if (auto fits = quotas_.check(peer->uid, share); !fits) return fits;

  descriptors.ring_segment.reset(::fcntl(client->segment->segment_fd(), F_DUPFD_CLOEXEC, 3));
  descriptors.data_area.reset(::fcntl(client->segment->data_fd(), F_DUPFD_CLOEXEC, 3));
  if (!descriptors.ring_segment || !descriptors.data_area) {
    return system_error("no descriptors left for another client");
  }
  if (made = make_rings(*client, layout.rings, descriptors); !made) return made;

  reply.data_bytes = client->segment->data_bytes();
  reply.data_page_bytes = client->segment->page_bytes();
  reply.workers = static_cast<std::uint32_t>(workers_.size());
  reply.channels = request.channels;
  reply.submission_entries = layout.submission_entries;
  reply.completion_entries = layout.completion_entries;
  reply.max_timeout_us = limits_.max_timeout_us;
  connection.share = share;
  connection.client = std::move(client);
  return {};
}

Result<void> AttachServer::make_segment(Client& client, const SegmentLayout& layout,
                                        std::uint64_t data_bytes) {
  auto segment =
      ClientSegment::create(layout, std::max(data_bytes, kSmallestDataBytes), limits_.hugepages);
  if (!segment) return tl::unexpected(segment.error());
  client.segment = std::move(*segment);
  if (limits_.hugepages == HugepageUse::kPrefer && client.segment->page_bytes() == kPageBytes &&
      hugepage_note_.empty()) {
    hugepage_note_ =
        "data areas use ordinary pages: the hugepage pool has too few free pages "
        "(vm.nr_hugepages)";
    log_warning(hugepage_note_);
  }
  return {};
}

Result<void> AttachServer::make_rings(Client& client, std::uint32_t rings,
                                      AttachDescriptors& descriptors) {
  for (std::uint32_t ring = 0; ring < rings; ++ring) {
    std::array<int, 2> pair{-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
      return system_error("no descriptors left for another client");
    }
    UniqueFd ours(pair[0]);
    descriptors.client_wakes.emplace_back(pair[1]);
    UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    descriptors.worker_wakes.emplace_back(event ? ::fcntl(event.get(), F_DUPFD_CLOEXEC, 3) : -1);
    const int newest = descriptors.worker_wakes.back().get();
    if (newest < 0) return system_error("no descriptors left for another client");
    // The last ones are for strangers at the door: without one, nobody could be told anything.
    if (!leaves_descriptors(newest, kClientsLeaveOneIn)) {
      return plain_error(
          "no descriptors left for another client (raise the daemon's RLIMIT_NOFILE)");
    }
    client.rings.push_back(
        std::make_unique<ServerRing>(client, ring, std::move(ours), std::move(event)));
  }
  return {};
}

void AttachServer::refuse(Connection& connection, std::uint32_t status, const std::string& why) {
  AttachReply reply;
  reply.status = status;
  const std::size_t bytes = std::min(why.size(), reply.message.size() - 1);
  std::copy_n(why.begin(), bytes, reply.message.begin());
  // If it cannot be sent the client sees the hang-up, which says enough.
  [[maybe_unused]] const auto sent =
      send_message(connection.socket.get(), std::as_bytes(std::span(&reply, 1)), {});
  static LogLimiter limiter("refused a client");
  if (limiter.allow()) {
    log_info("refused a client", {{"reason", why}});
  }
}

void AttachServer::hand_over(std::uint64_t id, Connection& connection) {
  Client& client = *connection.client;
  client.id = id;
  quotas_.take(client.uid, connection.share);
  connection.rings_out = client.rings.size();
  if (registrar_ != nullptr) {
    registrar_->add(client.segment->data(), client.segment->region_keys());
  }
  for (std::size_t ring = 0; ring < client.rings.size(); ++ring) {
    send_command(*workers_[ring % workers_.size()],
                 {WorkerCommand::Kind::kAddRing, client.rings[ring].get()});
  }
  static LogLimiter limiter("client attached");
  if (limiter.allow()) {
    log_info("client attached", {{"client", std::to_string(id)},
                                 {"name", client.name},
                                 {"pid", std::to_string(client.pid)},
                                 {"uid", std::to_string(client.uid)},
                                 {"rings", std::to_string(client.rings.size())},
                                 {"data_bytes", std::to_string(client.segment->data_bytes())}});
  }
}

void AttachServer::leave(std::uint64_t id, Connection& connection) {
  if (connection.leaving) return;
  connection.leaving = true;
  // Closing takes it out of the epoll set, and tells the client where it still lives.
  connection.socket.reset();
  Client& client = *connection.client;
  for (std::size_t ring = 0; ring < client.rings.size(); ++ring) {
    send_command(*workers_[ring % workers_.size()],
                 {WorkerCommand::Kind::kRemoveRing, client.rings[ring].get()});
  }
  static LogLimiter limiter("client left");
  if (limiter.allow()) {
    log_info("client left", {{"client", std::to_string(id)}, {"name", client.name}});
  }
}

void AttachServer::send_command(Worker& worker, const WorkerCommand& command) {
  // As many rings as there may be can fill the queue; a worker drains it every turn.
  while (!worker.command(command)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void AttachServer::handle(const WorkerReport& report) {
  if (report.ring == nullptr) return;
  const std::uint64_t id = report.ring->client().id;
  const auto found = attached_.find(id);
  if (found == attached_.end()) return;
  if (report.kind == WorkerReport::Kind::kRingBroken) {
    static LogLimiter limiter("client broke the ring protocol", LogLevel::kWarning);
    if (limiter.allow()) {
      log_warning("client broke the ring protocol and is cut off",
                  {{"client", std::to_string(id)}, {"name", found->second.client->name}});
    }
    leave(id, found->second);
    return;
  }
  if (--found->second.rings_out == 0) drop(id);
}

void AttachServer::drop(std::uint64_t id) {
  const auto found = attached_.find(id);
  const uid_t uid = found->second.client->uid;
  const QuotaShare share = found->second.share;
  if (registrar_ != nullptr) {
    registrar_->remove(found->second.client->segment->region_keys());
  }
  attached_.erase(found);
  quotas_.give_back(uid, share);
}

std::vector<ClientReport> AttachServer::client_reports() const {
  std::vector<ClientReport> reports;
  reports.reserve(attached_.size());
  for (const auto& [id, connection] : attached_) {
    const Client& client = *connection.client;
    ClientReport& report = reports.emplace_back();
    report.id = id;
    report.name = client.name;
    report.uid = client.uid;
    report.gid = client.gid;
    report.pid = client.pid;
    report.channels = connection.share.channels;
    report.rings = static_cast<std::uint32_t>(client.rings.size());
    report.data_bytes = client.segment->data_bytes();
    report.page_bytes = client.segment->page_bytes();
    for (const ClientShare& share : client.shares) {
      // relaxed: a count to look at.
      report.in_flight += share.requests.load(std::memory_order_relaxed);
      report.in_flight_bytes += share.buffer_bytes.load(std::memory_order_relaxed);
    }
    report.since = client.since;
    report.leaving = connection.leaving;
  }
  return reports;
}

void AttachServer::pause_listener() {
  if (paused_) return;
  paused_ = Clock::now();
  epoll_event nothing{};
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, listen_fd_, &nothing);
}

void AttachServer::expire() {
  const Clock::time_point now = Clock::now();
  if (paused_ && listening_ && now - *paused_ >= kAcceptPause) {
    paused_.reset();
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = listener_id_;
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, listen_fd_, &event);
  }
  const Clock::time_point limit = now - kHalfOpenLimit;
  std::erase_if(half_open_, [&](const auto& entry) { return entry.second.since < limit; });
}

}  // namespace kelp
