#include "control/peers/peer_directory.h"

#include <algorithm>

namespace kelp {
namespace {

constexpr std::size_t kMostPeers = 1024;

bool is_any_address(const std::string& host) {
  return host == "0.0.0.0" || host == "::";
}

bool is_beside(const KnownPeer& peer, const ServerAddress& server) {
  if (peer.server.host.empty()) return peer.kelpd.host == server.host;
  return peer.server.host == server.host &&
         (peer.server.port == 0 || peer.server.port == server.port);
}

}  // namespace

bool is_loopback(const ServerAddress& address) {
  return address.host.starts_with("127.") || address.host == "::1" ||
         address.host.starts_with("::ffff:127.") || address.host == "localhost";
}

Result<KnownPeer> parse_known_peer(std::string_view text) {
  KnownPeer peer;
  const std::size_t equals = text.find('=');
  if (equals != std::string_view::npos) {
    const std::string left(text.substr(0, equals));
    Result<ServerAddress> server = parse_server_address(left);
    if (server) {
      peer.server = std::move(*server);
    } else if (auto host = parse_server_address(left + ":1")) {
      peer.server = {std::move(host->host), 0};
    } else {
      return tl::unexpected(server.error());
    }
    text.remove_prefix(equals + 1);
  }
  Result<ServerAddress> kelpd = parse_server_address(text);
  if (!kelpd) return tl::unexpected(kelpd.error());
  peer.kelpd = std::move(*kelpd);
  return peer;
}

PeerDirectory::PeerDirectory(std::vector<KnownPeer> configured, Guesses guesses, Waker* changed)
    : guesses_(std::move(guesses)), changed_(changed), peers_(std::move(configured)) {}

bool PeerDirectory::may_guess(const ServerAddress& server) const {
  if (!guesses_.wanted || (guesses_.only_loopback && !is_loopback(server))) return false;
  return std::ranges::none_of(guesses_.never, [&](const ServerAddress& ours) {
    const bool here =
        ours.host == server.host || (is_any_address(ours.host) && is_loopback(server));
    return ours.port == kPeerPort && here;
  });
}

PeerIndex PeerDirectory::beside(std::string_view volume_server) {
  const Result<ServerAddress> server = parse_server_address(volume_server);
  if (!server) return kNoPeer;
  const std::lock_guard lock(mutex_);
  for (PeerIndex index = 0; index < peers_.size(); ++index) {
    if (is_beside(peers_[index], *server)) return index;
  }
  if (!may_guess(*server) || peers_.size() >= kMostPeers) return kNoPeer;
  peers_.push_back({{server->host, kPeerPort}, {}, true});
  if (changed_ != nullptr) changed_->notify();
  return static_cast<PeerIndex>(peers_.size() - 1);
}

std::vector<KnownPeer> PeerDirectory::from(std::size_t first) const {
  const std::lock_guard lock(mutex_);
  if (first >= peers_.size()) return {};
  return {peers_.begin() + static_cast<std::ptrdiff_t>(first), peers_.end()};
}

}  // namespace kelp
