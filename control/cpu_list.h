// Lists of CPUs as people write them: "1", "1,3", "2-3". Pure functions, any thread.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace kelp {

/// CPU numbers of a cpu_set_t end here.
constexpr int kMaxCpu = 1023;

/// Numbers and ranges of 0..kMaxCpu, separated by commas, in the order given. Repeats are kept for
/// the caller to judge. Empty optional: not such a list, or an empty one.
std::optional<std::vector<int>> parse_cpu_list(std::string_view text);

}  // namespace kelp
