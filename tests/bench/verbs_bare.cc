// The yardsticks of reads over RDMA, without anything of Kelp's: what the kernel, or the adapter,
// takes for the same bytes.
//
//   kelp-verbs-bare reads --address A --file F --cpus A,B --seconds S [--size 4096] [--depth 1]
//     two threads that only spin, a reliable connection between them: 64 bytes ask for a piece of
//     the file; it is read, its CRC-32C taken, and written into the memory of who asked. Sends are
//     held back for company, and signalled, as Kelp does it
//   kelp-verbs-bare pread --file F --cpus A,B --seconds S [--size 4096]
//     the middle of that alone: a piece of the file, and its CRC-32C
//
// The file holds as many pieces as fit, which are read in turn. One JSON object on stdout.
#include <arpa/inet.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bench/bare.h"
#include "dataplane/checksum/crc32c.h"
#include "dataplane/transport/verbs/hold_limit.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

struct Options : BareOptions {
  std::string address, file;
  std::uint32_t size_bytes = 4096, depth = 1;
};

// What Kelp does as well.
constexpr int kBatch = 32;  // completions taken at once
constexpr std::uint64_t kSignalEvery = 16;
constexpr std::uint64_t kWorthADoorbell = 8;
constexpr std::uint64_t kManyUnderWay = 8;
constexpr std::uint64_t kSend = std::uint64_t{1} << 63;  // of wr_id

struct Request {
  std::uint32_t slot, remote_key;
  std::uint64_t remote_address, offset_bytes;
  std::array<std::byte, 40> rest;
};
static_assert(sizeof(Request) == 64);

template <auto Free>
struct VerbsFree {
  template <class Handle>
  void operator()(Handle* handle) const noexcept {
    Free(handle);
  }
};
using Context = std::unique_ptr<ibv_context, VerbsFree<ibv_close_device>>;
using ProtectionDomain = std::unique_ptr<ibv_pd, VerbsFree<ibv_dealloc_pd>>;
using MemoryRegion = std::unique_ptr<ibv_mr, VerbsFree<ibv_dereg_mr>>;
using CompletionQueue = std::unique_ptr<ibv_cq, VerbsFree<ibv_destroy_cq>>;
using QueuePair = std::unique_ptr<ibv_qp, VerbsFree<ibv_destroy_qp>>;

/// The device that has an IPv4 address by RoCE v2.
struct Device {
  Context context;
  ibv_gid_entry gid{};
  ibv_port_attr port{};
};

Device device_of(const std::string& address) {
  in_addr wanted{};
  if (::inet_pton(AF_INET, address.c_str(), &wanted) != 1) give_up(address, EINVAL);
  int count = 0;
  ibv_device** const list = ::ibv_get_device_list(&count);
  Device found;
  for (int i = 0; i < count; ++i) {
    Context context(::ibv_open_device(list[i]));
    std::array<ibv_gid_entry, 256> entries;
    const ssize_t gids = context == nullptr ? 0
                                            : ::ibv_query_gid_table(context.get(), entries.data(),
                                                                    entries.size(), 0);
    for (ssize_t at = 0; at < gids && found.context == nullptr; ++at) {
      const ibv_gid_entry& entry = entries[static_cast<std::size_t>(at)];
      if (entry.gid_type != IBV_GID_TYPE_ROCE_V2 ||
          std::memcmp(entry.gid.raw + 12, &wanted, sizeof wanted) != 0) {
        continue;
      }
      found.gid = entry;
      if (::ibv_query_port(context.get(), static_cast<std::uint8_t>(entry.port_num), &found.port) !=
          0) {
        give_up("cannot ask a port");
      }
      found.context = std::move(context);
    }
  }
  ::ibv_free_device_list(list);
  if (found.context == nullptr) give_up("no RDMA device has " + address, ENODEV);
  return found;
}

/// One end of the connection, with `depth` payloads of its own; its thread's alone while it runs.
class End {
 public:
  End(const Device& device, const Options& options)
      : device_(device),
        receives_(options.depth + 4),
        sends_(2 * options.depth + 4 + static_cast<std::uint32_t>(kSignalEvery)),
        payload_bytes_(options.size_bytes),
        memory_(receives_ * sizeof(Request) + std::size_t{options.depth} * options.size_bytes),
        queued_requests_(sends_),
        queued_parts_(sends_),
        domain_(::ibv_alloc_pd(device.context.get())),
        region_(::ibv_reg_mr(domain_.get(), memory_.data(), memory_.size(),
                             IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)),
        completions_(::ibv_create_cq(device.context.get(), static_cast<int>(sends_ + receives_),
                                     nullptr, nullptr, 0)) {
    if (region_ == nullptr || completions_ == nullptr) give_up("cannot set up the RDMA device");
    ibv_qp_init_attr wanted{};
    wanted.send_cq = wanted.recv_cq = completions_.get();
    wanted.qp_type = IBV_QPT_RC;
    wanted.cap = {sends_, receives_, 1, 1, sizeof(Request)};
    queue_pair_.reset(::ibv_create_qp(domain_.get(), &wanted));
    if (queue_pair_ == nullptr) give_up("cannot make a queue pair");
  }

  void connect(const End& other) {
    ibv_qp_attr wanted{};
    wanted.qp_state = IBV_QPS_INIT;
    wanted.port_num = static_cast<std::uint8_t>(device_.gid.port_num);
    wanted.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
    modify(wanted, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    wanted.qp_state = IBV_QPS_RTR;
    wanted.path_mtu = device_.port.active_mtu;
    wanted.dest_qp_num = other.queue_pair_->qp_num;
    wanted.min_rnr_timer = 12;
    wanted.ah_attr.is_global = 1;
    wanted.ah_attr.grh.dgid = device_.gid.gid;
    wanted.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(device_.gid.gid_index);
    wanted.ah_attr.grh.hop_limit = 64;
    wanted.ah_attr.port_num = wanted.port_num;
    modify(wanted, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    wanted.qp_state = IBV_QPS_RTS;
    wanted.timeout = 17;
    wanted.retry_cnt = wanted.rnr_retry = 6;
    modify(wanted, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                       IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    for (std::uint32_t place = 0; place < receives_; ++place) places_.push_back(place);
    post_receives();
  }

  std::span<std::byte> payload(std::uint32_t slot) {
    return std::span(memory_).subspan(
        receives_ * sizeof(Request) + std::size_t{slot} * payload_bytes_, payload_bytes_);
  }
  std::uint32_t remote_key() const { return region_->rkey; }

  /// It is copied when it is posted: `request` stays until then.
  void queue_request(const Request& request) {
    ibv_send_wr& next = queue_next(&request, sizeof request);
    next.opcode = IBV_WR_SEND;
    next.send_flags = IBV_SEND_INLINE;
  }
  void queue_answer(const Request& request) {
    ibv_send_wr& next = queue_next(payload(request.slot).data(), payload_bytes_);
    next.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    next.imm_data = ::htonl(request.slot);
    next.wr.rdma = {request.remote_address, request.remote_key};
  }
  std::uint64_t queued() const { return queued_ - posted_; }

  /// Posts what is queued; while more is coming, not before it is worth a doorbell.
  void flush(bool more_is_coming) {
    if (queued() == 0) return;
    if (more_is_coming && queued() < kWorthADoorbell) {
      const Ticks now = ticks_now();
      if (held_since_ == 0) held_since_ = now;
      if (now - held_since_ < hold_limit_.ticks()) return;
    }
    held_since_ = 0;
    while (post_some()) {
    }
  }

  /// Tells `arrived` of each completed receive: its immediate value, and what was sent.
  template <class Arrived>
  void poll(Arrived&& arrived) {
    std::array<ibv_wc, kBatch> ended;
    const int count = ::ibv_poll_cq(completions_.get(), kBatch, ended.data());
    std::array<std::pair<std::uint32_t, Request>, kBatch> landed;
    std::size_t landings = 0;
    for (int i = 0; i < count; ++i) {
      const ibv_wc& wc = ended[static_cast<std::size_t>(i)];
      if (wc.status != IBV_WC_SUCCESS) give_up(::ibv_wc_status_str(wc.status), EIO);
      if ((wc.wr_id & kSend) != 0) {
        completed_ = (wc.wr_id & ~kSend) + 1;
        continue;
      }
      const auto place = static_cast<std::uint32_t>(wc.wr_id);
      auto& [value, request] = landed[landings++];
      value = ::ntohl(wc.imm_data);
      if (wc.opcode == IBV_WC_RECV) {
        std::memcpy(&request, memory_.data() + place * sizeof(Request), sizeof request);
      }
      places_.push_back(place);
    }
    if (landings == 0) return;
    post_receives();
    for (std::size_t i = 0; i < landings; ++i) arrived(landed[i].first, landed[i].second);
  }

  /// A request that was begun then has been answered.
  void ended(Ticks begun) { hold_limit_.ended(begun); }
  std::uint64_t doorbells() const { return doorbells_; }

 private:
  void modify(ibv_qp_attr& wanted, int which) {
    if (const int error = ::ibv_modify_qp(queue_pair_.get(), &wanted, which); error != 0) {
      give_up("cannot connect a queue pair", error);
    }
  }

  void post_receives() {
    std::vector<ibv_recv_wr>& requests = receive_requests_;
    requests.assign(places_.size(), {});
    receive_parts_.resize(places_.size());
    for (std::size_t i = 0; i < places_.size(); ++i) {
      receive_parts_[i] = {
          reinterpret_cast<std::uint64_t>(memory_.data() + places_[i] * sizeof(Request)),
          sizeof(Request), region_->lkey};
      requests[i].wr_id = places_[i];
      requests[i].sg_list = &receive_parts_[i];
      requests[i].num_sge = 1;
      requests[i].next = i + 1 < places_.size() ? &requests[i + 1] : nullptr;
    }
    places_.clear();
    ibv_recv_wr* refused = nullptr;
    if (const int error = ::ibv_post_recv(queue_pair_.get(), requests.data(), &refused);
        error != 0) {
      give_up("cannot post receives", error);
    }
  }

  ibv_send_wr& queue_next(const void* bytes, std::uint32_t count) {
    const std::uint64_t at = queued_ % sends_;
    queued_parts_[at] = {reinterpret_cast<std::uint64_t>(bytes), count, region_->lkey};
    ibv_send_wr& next = queued_requests_[at];
    next = {};
    next.wr_id = kSend | queued_++;
    next.sg_list = &queued_parts_[at];
    next.num_sge = 1;
    return next;
  }

  /// False: nothing more can be posted now.
  bool post_some() {
    const std::uint64_t room = sends_ - (posted_ - completed_);
    const std::uint64_t count = std::min({queued(), room, std::uint64_t{kBatch}});
    if (count == 0) return false;
    const bool some_signalled = last_signalled_ > completed_;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t sequence = posted_ + i;
      ibv_send_wr& request = queued_requests_[sequence % sends_];
      const bool last = i + 1 == count;
      request.next = last ? nullptr : &queued_requests_[(sequence + 1) % sends_];
      if (sequence + 1 - last_signalled_ >= kSignalEvery ||
          (last && !some_signalled && last_signalled_ <= posted_)) {
        request.send_flags |= IBV_SEND_SIGNALED;
        last_signalled_ = sequence + 1;
      }
    }
    ibv_send_wr* refused = nullptr;
    if (const int error =
            ::ibv_post_send(queue_pair_.get(), &queued_requests_[posted_ % sends_], &refused);
        error != 0) {
      give_up("cannot post sends", error);
    }
    ++doorbells_;
    posted_ += count;
    return true;
  }

  const Device& device_;
  const std::uint32_t receives_, sends_, payload_bytes_;
  std::vector<std::byte> memory_;  // of what is received; payloads
  std::vector<std::uint32_t> places_;
  std::vector<ibv_recv_wr> receive_requests_;
  std::vector<ibv_sge> receive_parts_;
  std::vector<ibv_send_wr> queued_requests_;  // a ring
  std::vector<ibv_sge> queued_parts_;
  ProtectionDomain domain_;
  MemoryRegion region_;
  CompletionQueue completions_;
  QueuePair queue_pair_;
  std::uint64_t queued_ = 0, posted_ = 0, completed_ = 0, last_signalled_ = 0, doorbells_ = 0;
  Ticks held_since_ = 0;
  HoldLimit hold_limit_;
};

class Pieces {
 public:
  explicit Pieces(const Options& options)
      : file_(::open(options.file.c_str(), O_RDONLY | O_CLOEXEC)), bytes_(options.size_bytes) {
    struct stat about {};
    if (!file_ || ::fstat(file_.get(), &about) != 0) give_up(options.file);
    count_ = static_cast<std::uint64_t>(about.st_size) / bytes_;
    if (count_ == 0) give_up(options.file + " is too small", EINVAL);
  }
  std::uint64_t next_offset() { return next_++ % count_ * bytes_; }
  /// And takes its CRC-32C.
  void read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    const ssize_t got =
        ::pread(file_.get(), into.data(), into.size(), static_cast<off_t>(offset_bytes));
    if (got != static_cast<ssize_t>(into.size())) give_up("cannot read the file");
    crc_ = crc32c(into);
  }

 private:
  const UniqueFd file_;
  const std::uint64_t bytes_;
  std::uint64_t count_ = 0, next_ = 0;
  std::uint32_t crc_ = 0;
};

/// Microseconds each took, and what all took together.
class Watch {
 public:
  explicit Watch(const Options& options)
      : start_(ticks_now()),
        end_(start_ + rate_.from_us(static_cast<std::uint64_t>(options.seconds * 1'000'000))) {}
  bool over() const { return ticks_now() >= end_; }
  void add(Ticks since) {
    const Ticks now = ticks_now();
    us_.push_back(static_cast<double>(rate_.to_ns(now - since)) / 1000);
    last_ = now;
  }
  nlohmann::json figures(std::uint32_t bytes) const {
    const auto count = static_cast<double>(us_.size());
    const double seconds = static_cast<double>(rate_.to_ns(last_ - start_)) / 1e9;
    return {{"requests", us_.size()},
            {"p50_us", median(us_)},
            {"p99_us", quantile(us_, 0.99)},
            {"requests_per_s", count / seconds},
            {"bytes_per_s", count * bytes / seconds}};
  }

 private:
  const TickRate& rate_ = TickRate::instance();
  const Ticks start_, end_;
  Ticks last_ = 0;
  std::vector<double> us_;
};

/// Of this thread, so far.
double system_us() {
  rusage used{};
  ::getrusage(RUSAGE_THREAD, &used);
  return static_cast<double>(used.ru_stime.tv_sec) * 1e6 +
         static_cast<double>(used.ru_stime.tv_usec);
}

/// Answers how much system time that took.
double answer_all(End& end, Pieces& pieces, const Options& options, const std::atomic<bool>& over) {
  pin(options.cpus[1]);
  const double before_us = system_us();
  // relaxed: it orders nothing.
  while (!over.load(std::memory_order_relaxed)) {
    end.poll([&](std::uint32_t, const Request& request) {
      pieces.read(request.offset_bytes, end.payload(request.slot));
      end.queue_answer(request);
    });
    // All that had come is ready.
    end.flush(false);
  }
  return system_us() - before_us;
}

nlohmann::json reads(const Options& options) {
  const Device device = device_of(options.address);
  Pieces pieces(options);
  End asks(device, options), answers(device, options);
  asks.connect(answers);
  answers.connect(asks);
  std::atomic<bool> over{false};
  double answers_us = 0;
  std::thread other([&] { answers_us = answer_all(answers, pieces, options, over); });
  pin(options.cpus[0]);
  std::vector<Request> requests(options.depth);
  std::vector<Ticks> begun(options.depth);
  std::vector<std::uint32_t> free;
  for (std::uint32_t slot = 0; slot < options.depth; ++slot) free.push_back(slot);
  const double before_us = system_us();
  Watch watch(options);
  while (true) {
    asks.poll([&](std::uint32_t slot, const Request&) {
      watch.add(begun[slot]);
      asks.ended(begun[slot]);
      free.push_back(slot);
    });
    const bool last = watch.over();
    if (last && free.size() == options.depth) break;
    while (!last && !free.empty()) {
      const std::uint32_t slot = free.back();
      free.pop_back();
      begun[slot] = ticks_now();
      requests[slot] = {slot,
                        asks.remote_key(),
                        reinterpret_cast<std::uint64_t>(asks.payload(slot).data()),
                        pieces.next_offset(),
                        {}};
      asks.queue_request(requests[slot]);
    }
    const std::uint64_t in_flight = options.depth - free.size();
    asks.flush(in_flight >= asks.queued() + kManyUnderWay);
  }
  const double asks_us = system_us() - before_us;
  over.store(true, std::memory_order_relaxed);
  other.join();
  nlohmann::json figures = watch.figures(options.size_bytes);
  const auto count = figures["requests"].get<double>();
  figures["doorbells_per_request"] = {
      {"asks", static_cast<double>(asks.doorbells()) / count},
      {"answers", static_cast<double>(answers.doorbells()) / count}};
  figures["system_us_per_request"] = {{"asks", asks_us / count}, {"answers", answers_us / count}};
  return figures;
}

nlohmann::json pread(const Options& options) {
  Pieces pieces(options);
  pin(options.cpus[1]);
  std::vector<std::byte> room(options.size_bytes);
  Watch watch(options);
  while (!watch.over()) {
    const Ticks start = ticks_now();
    pieces.read(pieces.next_offset(), room);
    watch.add(start);
  }
  return watch.figures(options.size_bytes);
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app("What the adapter takes for the bytes of reads over RDMA");
  options.add_to(app);
  app.add_option("--file", options.file, "is read")->required();
  app.add_option("--size", options.size_bytes, "bytes of each read")
      ->check(CLI::Range(1U, 8U << 20));
  CLI::App* const reads = app.add_subcommand("reads", "from end to end");
  reads->add_option("--address", options.address, "of the RDMA device")->required();
  reads->add_option("--depth", options.depth, "reads in flight")->check(CLI::Range(1U, 256U));
  app.add_subcommand("pread", "from the file alone");
  CLI11_PARSE(app, argc, argv);
  const nlohmann::json figures =
      reads->parsed() ? kelp::bench::reads(options) : kelp::bench::pread(options);
  std::printf("%s\n", figures.dump().c_str());
  return 0;
}
