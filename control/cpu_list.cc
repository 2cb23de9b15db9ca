#include "control/cpu_list.h"

#include <charconv>

namespace kelp {
namespace {

std::optional<int> parse_cpu(std::string_view text) noexcept {
  int cpu = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, cpu);
  if (failed != std::errc{} || rest != end || cpu < 0 || cpu > kMaxCpu) return std::nullopt;
  return cpu;
}

/// "3" or "2-5", appended to `cpus`.
bool append_range(std::string_view text, std::vector<int>& cpus) {
  const std::size_t dash = text.find('-');
  const std::optional<int> first = parse_cpu(text.substr(0, dash));
  const std::optional<int> last =
      dash == std::string_view::npos ? first : parse_cpu(text.substr(dash + 1));
  if (!first || !last || *last < *first) return false;
  for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  return true;
}

}  // namespace

std::optional<std::vector<int>> parse_cpu_list(std::string_view text) {
  // Bounded, so that "0-1023,0-1023,..." cannot grow without end.
  constexpr std::size_t kLongestText = 4096;
  if (text.size() > kLongestText) return std::nullopt;
  std::vector<int> cpus;
  while (true) {
    const std::size_t comma = text.find(',');
    if (!append_range(text.substr(0, comma), cpus)) return std::nullopt;
    if (comma == std::string_view::npos) return cpus;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace kelp
