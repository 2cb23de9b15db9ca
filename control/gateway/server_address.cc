#include "control/gateway/server_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace kelp {
namespace {

constexpr std::size_t kMaxTextBytes = 300;
constexpr std::size_t kMaxNameBytes = 253;  // RFC 1035, without the last dot
constexpr std::size_t kMaxQuotedBytes = 80;

// By hand, as <cctype> asks the locale.
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

/// Errors reach logs and JSON documents: whatever is no plain ASCII there becomes '?'.
std::string quoted(std::string_view text) {
  std::string safe = "\"";
  for (const char c : text.substr(0, kMaxQuotedBytes)) safe += c >= ' ' && c <= '~' ? c : '?';
  return safe + (text.size() > kMaxQuotedBytes ? "...\"" : "\"");
}

std::string_view without_dressing(std::string_view text) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    text.remove_prefix(scheme.size());
    break;
  }
  if (text.ends_with('/')) text.remove_suffix(1);
  return text;
}

/// Plain decimal of 1 to 65535: a sign, a blank or a leading zero would give one port two texts.
std::optional<std::uint16_t> parse_port(std::string_view text) {
  if (text.empty() || text.front() < '1' || text.front() > '9') return std::nullopt;
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return port;
}

/// "port" or "port.grpcPort"
std::optional<std::uint16_t> parse_ports(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (dot != std::string_view::npos) {
    if (!parse_port(text.substr(dot + 1))) return std::nullopt;
    text = text.substr(0, dot);
  }
  return parse_port(text);
}

/// Labels of letters, digits, '-' and '_', separated by single dots. '_' is for names that
/// container tools make.
bool is_name(std::string_view host) {
  if (host.empty() || host.size() > kMaxNameBytes) return false;
  char before = '.';
  for (const char c : host) {
    const bool inner = is_letter(c) || is_digit(c) || c == '_';
    if (!inner && (before == '.' || (c != '-' && c != '.'))) return false;
    before = c;
  }
  return before != '.';
}

bool is_ipv6(std::string_view host) {
  in6_addr ignored{};
  // The system's parser stops at a NUL: refuse it here, with all else that is in no address.
  const bool plain = std::ranges::all_of(
      host, [](char c) { return is_digit(c) || is_letter(c) || c == ':' || c == '.'; });
  return plain && ::inet_pton(AF_INET6, std::string(host).c_str(), &ignored) == 1;
}

/// Host, without brackets, and port, both unchecked.
struct Halves {
  std::string_view host;
  std::string_view port;
  bool brackets = false;
};

std::optional<Halves> split(std::string_view text) {
  const bool brackets = text.starts_with('[');
  const std::size_t end = text.find(brackets ? "]:" : ":");
  if (end == std::string_view::npos) return std::nullopt;
  if (!brackets) return Halves{text.substr(0, end), text.substr(end + 1), false};
  return Halves{text.substr(1, end - 1), text.substr(end + 2), true};
}

tl::unexpected<Error> refusal(std::string_view text, const char* why) {
  return plain_error(quoted(text) + " is no server address like \"10.0.0.1:8080\": " + why);
}

}  // namespace

std::string ServerAddress::text() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<ServerAddress> parse_server_address(std::string_view text) {
  if (text.size() > kMaxTextBytes) return refusal(text, "it is longer than 300 bytes");
  const auto halves = split(without_dressing(text));
  if (!halves) return refusal(text, "it has no port");
  if (halves->brackets ? !is_ipv6(halves->host) : !is_name(halves->host)) {
    return refusal(text, "its host is no name, IPv4 address or IPv6 address in brackets");
  }
  const auto port = parse_ports(halves->port);
  if (!port) return refusal(text, "its port is no number from 1 to 65535, with nothing behind it");
  return ServerAddress{lower_case(halves->host), *port};
}

}  // namespace kelp
