// Connects to a kelpd by RDMA as a gateway would, or as none should, and says what came of it.
//   test_verbs_stranger ADDRESS PORT KEYS SCENE [N [FID FILE]]
// KEYS is a file of keys, or "-". One JSON line per connection on stdout: {"connected": bool,
// "why": what it was told, or what came}. Scenes:
//   garbage    private data that is no greeting
//   version    a greeting of a version nobody speaks
//   silent     connected, and nothing said
//   nonsense   connected, and a frame that is none
//   key        the handshake with these keys
//   flood      the handshake, and more requests than there are credits
//   read N     N connections of one slot each, at once, by each of which FID, the bytes of FILE, is
//              read three times, into memory with canaries around
//   hold N     N connections that say nothing, held until stdin ends
//   become     the handshake, then another user id, then a request
// Exit code 0: it could do what the scene says, whatever came of it.
#include <arpa/inet.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/transport/verbs/verbs_gateway_link.h"
#include "dataplane/wire/handshake.h"

namespace {

using namespace kelp;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{15};

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "test_verbs_stranger: %s\n", what.c_str());
  std::exit(1);
}

void say(bool connected, const std::string& why) {
  std::printf("{\"connected\": %s, \"why\": \"%s\"}\n", connected ? "true" : "false", why.c_str());
  std::fflush(stdout);
}

struct Place {
  sockaddr_in address{};
  wire::PeerKeys keys;
};

/// One connection, made by waiting for each event of its own channel.
class Stranger final : private VerbsEndpoint::User, private GatewayLink::User {
 public:
  explicit Stranger(const Place& place, std::uint16_t slots = 1) : place_(place), slots_(slots) {}
  ~Stranger() {
    link_.reset();
    if (id_ == nullptr) return;
    if (id_->qp != nullptr) {
      ::rdma_disconnect(id_);
      ::rdma_destroy_qp(id_);
    }
    if (endpoint_ != nullptr) endpoint_->set_gone();
    endpoint_.reset();
    region_ = {};
    domain_.reset();
    ::rdma_destroy_id(id_);
    ::rdma_destroy_event_channel(events_);
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;

  /// False: told() says why not.
  bool connect(const void* private_data, std::size_t bytes) {
    events_ = ::rdma_create_event_channel();
    if (events_ == nullptr || ::rdma_create_id(events_, &id_, nullptr, RDMA_PS_TCP) != 0) {
      give_up("no RDMA here");
    }
    auto address = place_.address;
    if (::rdma_resolve_addr(id_, nullptr, reinterpret_cast<sockaddr*>(&address), 2000) != 0 ||
        !wait_for(RDMA_CM_EVENT_ADDR_RESOLVED) || ::rdma_resolve_route(id_, 2000) != 0 ||
        !wait_for(RDMA_CM_EVENT_ROUTE_RESOLVED)) {
      give_up("the address cannot be resolved: " + told_);
    }
    domain_ = RdmaDomain::create(id_->verbs, 0).value();
    VerbsEndpoint::Options options;
    options.role = VerbsEndpoint::Role::kGateway;
    options.slots = slots_;
    auto made = VerbsEndpoint::create(id_, domain_, options);
    if (!made) give_up(made.error().what);
    endpoint_ = std::move(*made);
    rdma_conn_param parameters{};
    parameters.private_data = private_data;
    parameters.private_data_len = static_cast<std::uint8_t>(bytes);
    parameters.retry_count = 6;
    parameters.rnr_retry_count = 6;
    if (::rdma_connect(id_, &parameters) != 0) give_up("rdma_connect fails");
    return wait_for(RDMA_CM_EVENT_ESTABLISHED);
  }
  bool greet() {
    wire::RdmaHello hello;
    hello.slots = slots_;
    return connect(&hello, sizeof hello);
  }

  /// False: told() says why not.
  bool shake_hands() {
    wire::GatewayOffer offer;
    offer.node = "stranger";
    offer.slots = slots_;
    offer.nonce = wire::fresh_nonce().value();
    handshake_ = std::make_unique<wire::GatewayHandshake>(offer, place_.keys);
    const auto end = Clock::now() + kPatience;
    while (handshake_->state() == wire::Handshake::State::kUnderWay && Clock::now() < end) {
      send(handshake_->take_output());
      endpoint_->poll(*this);
      if (endpoint_->broken() || hung_up()) break;
    }
    send(handshake_->take_output());
    if (handshake_->state() == wire::Handshake::State::kDone) return true;
    told_ = handshake_->state() == wire::Handshake::State::kFailed ? handshake_->failure()
            : endpoint_->broken()                                  ? endpoint_->why_broken()
                                                                   : told_;
    return false;
  }

  void send(const std::vector<std::byte>& frames) {
    std::span<const std::byte> left(frames);
    while (!left.empty()) {
      const std::size_t bytes = wire::copy_frame<wire::FrameHeader>(left).bytes;
      endpoint_->post_frame(left.first(bytes));
      left = left.subspan(bytes);
    }
    endpoint_->flush();
  }
  void send_raw(std::span<const std::byte> bytes) {
    endpoint_->post_frame(bytes);
    endpoint_->flush();
  }

  /// Until the other side ends it; why, as far as it was told.
  std::string wait_for_the_end() {
    const auto end = Clock::now() + kPatience;
    while (Clock::now() < end) {
      endpoint_->poll(*this);
      if (hung_up()) return told_.empty() ? "it hung up" : told_;
      if (endpoint_->broken()) return endpoint_->why_broken();
    }
    return "nothing happens";
  }

  /// Reads; "" if all was as it should be.
  std::string read(const FileId& fid, std::uint32_t bytes) {
    constexpr std::size_t kCanary = 4096;
    constexpr auto kPattern = std::byte{0xa5};
    memory_.assign(bytes + 2 * kCanary, kPattern);
    region_ = RegisteredMemory::create(domain_, memory_, Reach::kRemoteWrite).value();
    keys_.set(0, region_.remote_key());
    if (link_ == nullptr) {
      GatewayLink::User& heard_by = *this;
      link_ = std::make_unique<VerbsGatewayLink>(endpoint_, handshake_->agreement(), heard_by);
    }
    LinkRead wanted;
    wanted.fid = fid;
    wanted.buffer = std::span(memory_).subspan(kCanary, bytes);
    wanted.keys = &keys_;
    wanted.timeout_us = 10'000'000;
    status_ = -1;
    if (!link_->ask(1, wanted)) return "there is no credit";
    link_->flush();
    const auto end = Clock::now() + kPatience;
    while (status_ < 0 && Clock::now() < end && !link_->ending()) link_->poll();
    if (status_ != KELP_OK) return "status " + std::to_string(status_) + " " + link_why();
    const auto is_pattern = [&](std::byte each) { return each == kPattern; };
    if (!std::all_of(memory_.begin(), memory_.begin() + kCanary, is_pattern) ||
        !std::all_of(memory_.end() - kCanary, memory_.end(), is_pattern)) {
      return "a canary is dead";
    }
    // The body of a read is for the caller to judge; as many bytes as were asked for came.
    return bytes_ == bytes ? "" : std::to_string(bytes_) + " bytes";
  }

  const std::string& told() const { return told_; }
  std::span<const std::byte> body() const { return std::span(memory_).subspan(4096, bytes_); }
  VerbsEndpoint& endpoint() { return *endpoint_; }
  std::string link_why() const { return endpoint_->why_broken(); }
  const wire::Agreement& agreement() const { return handshake_->agreement(); }

 private:
  bool arrived(const VerbsEndpoint::Arrival& arrival) override {
    if (handshake_ != nullptr) handshake_->feed(arrival.frame);
    return true;
  }
  void answered(std::uint32_t, const wire::Answer& answer, bool) override {
    status_ = answer.status;
    bytes_ = answer.bytes;
  }
  void passed_over(GatewayLink&) override {}
  void released(std::uint32_t) override {}
  void lost(std::uint32_t) override {}

  bool wait_for(rdma_cm_event_type wanted) {
    rdma_cm_event* event = nullptr;
    if (::rdma_get_cm_event(events_, &event) != 0) give_up("no event");
    const bool came = event->event == wanted;
    if (!came) note(*event);
    ::rdma_ack_cm_event(event);
    return came;
  }
  bool hung_up() {
    pollfd watched{events_->fd, POLLIN, 0};
    if (::poll(&watched, 1, 0) != 1) return false;
    rdma_cm_event* event = nullptr;
    ::rdma_get_cm_event(events_, &event);
    const bool over = event->event == RDMA_CM_EVENT_DISCONNECTED;
    ::rdma_ack_cm_event(event);
    return over;
  }
  void note(const rdma_cm_event& event) {
    told_ = std::string(::rdma_event_str(event.event)) + " " + std::to_string(event.status);
    wire::RdmaRefusal refusal;
    if (event.event != RDMA_CM_EVENT_REJECTED || event.param.conn.private_data == nullptr ||
        event.param.conn.private_data_len < sizeof refusal) {
      return;
    }
    std::memcpy(&refusal, event.param.conn.private_data, sizeof refusal);
    if (refusal.magic == wire::kRdmaMagic) told_ = wire::printable(refusal.message);
  }

  const Place& place_;
  const std::uint16_t slots_;
  rdma_event_channel* events_ = nullptr;
  rdma_cm_id* id_ = nullptr;
  std::shared_ptr<RdmaDomain> domain_;
  std::shared_ptr<VerbsEndpoint> endpoint_;
  std::unique_ptr<wire::GatewayHandshake> handshake_;
  std::unique_ptr<VerbsGatewayLink> link_;
  std::vector<std::byte> memory_;
  RegisteredMemory region_;
  RegionKeys keys_;
  std::string told_;
  int status_ = -1;
  std::uint32_t bytes_ = 0;
};

void greet_and(const Place& place, void (*act)(Stranger&)) {
  Stranger stranger(place);
  if (!stranger.greet()) return say(false, stranger.told());
  act(stranger);
}

void shake_hands_and(const Place& place, std::uint16_t slots, void (*act)(Stranger&)) {
  Stranger stranger(place, slots);
  if (!stranger.greet() || !stranger.shake_hands()) return say(false, stranger.told());
  act(stranger);
}

void send_more_than_credits(Stranger& stranger) {
  for (std::uint16_t i = 0; i < 3; ++i) {
    wire::Request request;
    request.length_bytes = 1;
    request.slot = 0;
    request.generation = static_cast<std::uint8_t>(i);
    request.timeout_us = 1'000'000;
    std::array<std::byte, wire::kMostFrameBytes> room;
    stranger.endpoint().post_frame(wire::write_request(request, "", room));
  }
  stranger.endpoint().flush();
  say(true, stranger.wait_for_the_end());
}

void become_somebody_else(Stranger& stranger) {
  if (::setuid(65534) != 0) give_up("cannot become another user");
  const std::array<std::byte, 64> anything{};
  stranger.send_raw(anything);
  say(true, stranger.link_why());
}

void read_by_many(const Place& place, int count, const FileId& fid, std::uint32_t bytes,
                  const std::string& expected) {
  std::vector<std::unique_ptr<Stranger>> strangers;
  for (int i = 0; i < count; ++i) {
    strangers.push_back(std::make_unique<Stranger>(place));
    if (!strangers.back()->greet() || !strangers.back()->shake_hands()) {
      say(false, strangers.back()->told());
      strangers.pop_back();
    }
  }
  for (int round = 0; round < 3; ++round) {
    for (const auto& each : strangers) {
      std::string wrong = each->read(fid, bytes);
      const auto body = each->body();
      if (wrong.empty() &&
          std::string_view(reinterpret_cast<const char*>(body.data()), body.size()) != expected) {
        wrong = "wrong bytes";
      }
      if (round == 2 || !wrong.empty()) say(true, wrong);
    }
  }
}

std::string content_of(const char* file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  Place place;
  place.address.sin_family = AF_INET;
  place.address.sin_port = ::htons(static_cast<std::uint16_t>(std::atoi(argv[2])));
  if (::inet_pton(AF_INET, argv[1], &place.address.sin_addr) != 1) return 2;
  if (std::string(argv[3]) != "-") place.keys = wire::PeerKeys::parse(content_of(argv[3])).value();
  const std::string scene = argv[4];
  const int count = argc > 5 ? std::atoi(argv[5]) : 1;
  if (scene == "garbage") {
    Stranger stranger(place);
    const std::array<char, 56> garbage{"GET / HTTP/1.1"};
    const bool connected = stranger.connect(garbage.data(), garbage.size());
    say(connected, stranger.told());
  } else if (scene == "version") {
    Stranger stranger(place);
    wire::RdmaHello hello;
    hello.slots = 1;
    hello.min_version = hello.max_version = 99;
    const bool connected = stranger.connect(&hello, sizeof hello);
    say(connected, stranger.told());
  } else if (scene == "silent") {
    greet_and(place, [](Stranger& stranger) { say(true, stranger.wait_for_the_end()); });
  } else if (scene == "nonsense") {
    greet_and(place, [](Stranger& stranger) {
      const std::array<std::byte, 128> nonsense{std::byte{0xff}};
      stranger.send_raw(nonsense);
      say(true, stranger.wait_for_the_end());
    });
  } else if (scene == "key") {
    shake_hands_and(place, 1, [](Stranger&) { say(true, ""); });
  } else if (scene == "flood") {
    shake_hands_and(place, 1, send_more_than_credits);
  } else if (scene == "become") {
    shake_hands_and(place, 1, become_somebody_else);
  } else if (scene == "hold") {
    std::vector<std::unique_ptr<Stranger>> strangers;
    for (int i = 0; i < count; ++i) {
      strangers.push_back(std::make_unique<Stranger>(place));
      const bool connected = strangers.back()->greet();
      say(connected, strangers.back()->told());
    }
    while (std::getchar() != EOF) {
    }
  } else if (scene == "read" && argc == 8) {
    const auto fid = parse_file_id(argv[6]);
    if (!fid) return 2;
    const std::string expected = content_of(argv[7]);
    read_by_many(place, count, *fid, static_cast<std::uint32_t>(expected.size()), expected);
  } else {
    return 2;
  }
  return 0;
}
