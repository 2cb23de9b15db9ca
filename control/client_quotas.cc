#include "control/client_quotas.h"

#include <string>

namespace kelp {
namespace {

Result<void> check_one(uid_t uid, const char* what, const char* key, std::uint64_t used,
                       std::uint64_t asked, std::uint64_t limit) {
  // Ordered so that it cannot wrap, whatever is asked for.
  if (limit == 0 || (used <= limit && asked <= limit - used)) return {};
  return plain_error("uid " + std::to_string(uid) + " uses " + std::to_string(used) + " of its " +
                     std::to_string(limit) + " " + what + " and asks for " + std::to_string(asked) +
                     " more (client." + key + ")");
}

}  // namespace

Result<void> ClientQuotas::check(uid_t uid, const QuotaShare& share) const {
  const auto found = held_.find(uid);
  const Held held = found == held_.end() ? Held{} : found->second;
  auto fits = check_one(uid, "clients", "max_clients_per_uid", held.clients, 1, limits_.clients);
  if (fits) {
    fits = check_one(uid, "channels", "max_channels_per_uid", held.channels, share.channels,
                     limits_.channels);
  }
  if (fits) {
    fits = check_one(uid, "bytes of data areas", "max_data_bytes_per_uid", held.data_bytes,
                     share.data_bytes, limits_.data_bytes);
  }
  return fits;
}

void ClientQuotas::take(uid_t uid, const QuotaShare& share) {
  Held& held = held_[uid];
  ++held.clients;
  held.channels += share.channels;
  held.data_bytes += share.data_bytes;
}

void ClientQuotas::give_back(uid_t uid, const QuotaShare& share) {
  const auto found = held_.find(uid);
  if (found == held_.end()) return;
  Held& held = found->second;
  held.channels -= share.channels;
  held.data_bytes -= share.data_bytes;
  if (--held.clients == 0) held_.erase(found);
}

}  // namespace kelp
