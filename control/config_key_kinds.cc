#include "control/config_key_kinds.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "control/byte_size.h"
#include "control/cpu_list.h"

namespace kelp {
namespace {

using Problem = std::optional<std::string>;

constexpr std::size_t kMaxTextBytes = 255;

// More than any cluster has masters, and a bound on what one line of the file can make us hold.
constexpr std::size_t kMaxUrls = 1024;

// Each takes a ring of every channel, and a client has kMaxRingsPerClient.
constexpr std::size_t kMaxWorkers = 16;

// The last value means "no such id" to the kernel.
constexpr std::int64_t kMaxId = 4294967294;

template <class T>
std::function<std::string(const Config&, std::size_t)> show_number(ConfigField<T> field) {
  return [field](const Config& config, std::size_t entry) {
    return std::to_string(read_field(field, config, entry));
  };
}

std::function<std::string(const Config&, std::size_t)> show_text(ConfigField<std::string> field) {
  return [field](const Config& config, std::size_t entry) {
    return json_text(read_field(field, config, entry));
  };
}

std::function<std::string(const Config&, std::size_t)> show_texts(
    ConfigField<std::vector<std::string>> field) {
  return [field](const Config& config, std::size_t entry) {
    std::string shown;
    for (const std::string& text : read_field(field, config, entry)) {
      shown += (shown.empty() ? "" : ", ") + json_text(text);
    }
    return "[" + shown + "]";
  };
}

/// A list of texts, or one text in place of a list of one. Nothing: it is neither.
std::optional<std::vector<std::string>> texts_of(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return std::vector{*text};
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) return *list;
  const auto* none = std::get_if<std::vector<std::int64_t>>(&value);
  if (none == nullptr || !none->empty()) return std::nullopt;
  return std::vector<std::string>();  // an empty list has no kind
}

std::string range_text(const NumberRange& range) {
  std::string text = std::to_string(range.low) + ".." + std::to_string(range.high);
  if (!range.unit.empty()) text += " " + std::string(range.unit);
  return text;
}

bool in_range(std::int64_t number, const NumberRange& range) {
  return number >= 0 && static_cast<std::uint64_t>(number) >= range.low &&
         static_cast<std::uint64_t>(number) <= range.high;
}

ConfigKey ranged_key(std::string_view name, ConfigField<std::uint32_t> field, NumberRange range,
                     bool power_of_two, std::string_view help) {
  const std::string accepts = (power_of_two ? "power of two, " : "") + range_text(range);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* number = std::get_if<std::int64_t>(&value);
    if (number == nullptr) return wrong_kind(value, "a whole number, " + accepts);
    if (!in_range(*number, range)) return "is out of range: " + accepts;
    if (power_of_two && !std::has_single_bit(static_cast<std::uint64_t>(*number))) {
      return "is not a power of two: " + range_text(range);
    }
    field(config, entry) = static_cast<std::uint32_t>(*number);
    return std::nullopt;
  };
  return {name, accepts, help, set, show_number(field), copy_field(field)};
}

/// Text that goes into paths, logs and system calls: no NUL and no line breaks.
Problem judge_text(std::string_view text, std::size_t max_bytes) {
  const auto control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (std::any_of(text.begin(), text.end(), control)) return "holds a control character";
  if (text.size() > max_bytes) return "is longer than " + std::to_string(max_bytes) + " bytes";
  return std::nullopt;
}

std::string path_text(std::size_t max_bytes) {
  return "absolute path, at most " + std::to_string(max_bytes) + " bytes";
}

Problem judge_path(const std::string& path, std::size_t max_bytes) {
  if (Problem problem = judge_text(path, max_bytes)) return problem;
  if (path.empty() || path.front() != '/') return "is not an absolute path: start it with /";
  return std::nullopt;
}

/// Host and port of a URL; a port in decimal, a host without what would make it another URL.
Problem judge_url(std::string_view url) {
  if (Problem problem = judge_text(url, kMaxTextBytes)) return problem;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    url.remove_prefix(scheme.size());
    break;
  }
  const std::size_t colon = url.rfind(':');
  std::uint16_t port = 0;
  bool numeric = false;
  if (colon != std::string_view::npos) {
    const char* end = url.data() + url.size();
    const auto [rest, failed] = std::from_chars(url.data() + colon + 1, end, port);
    numeric = failed == std::errc{} && rest == end && port != 0;
  }
  const bool host = colon != std::string_view::npos && colon != 0 &&
                    url.substr(0, colon).find_first_of("/?#@, \"\\") == std::string_view::npos;
  if (numeric && host) return std::nullopt;
  return "is not host:port, alone or after http:// or https://";
}

/// A byte size from either of the two kinds; negative numbers become nothing.
std::optional<std::uint64_t> byte_count(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return parse_byte_size(*text);
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr || *number < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*number);
}

std::optional<std::vector<int>> cpu_numbers(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return parse_cpu_list(*text);
  std::vector<int> cpus;
  for (const std::int64_t cpu : std::get<std::vector<std::int64_t>>(value)) {
    if (cpu < 0 || cpu > kMaxCpu) return std::nullopt;
    cpus.push_back(static_cast<int>(cpu));
  }
  return cpus;
}

Problem judge_cpus(std::vector<int> cpus) {
  std::sort(cpus.begin(), cpus.end());
  if (std::adjacent_find(cpus.begin(), cpus.end()) != cpus.end()) return "names a CPU twice";
  if (cpus.size() > kMaxWorkers) {
    return "asks for " + std::to_string(cpus.size()) + " workers: name at most " +
           std::to_string(kMaxWorkers) + " CPUs";
  }
  return std::nullopt;
}

}  // namespace

std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string wrong_kind(const ConfigValue& value, std::string_view wanted) {
  struct Names {
    std::string operator()(std::int64_t) const { return "a whole number"; }
    std::string operator()(bool) const { return "a boolean"; }
    std::string operator()(const std::string&) const { return "a text"; }
    std::string operator()(const std::vector<std::string>&) const { return "a list of texts"; }
    std::string operator()(const std::vector<std::int64_t>&) const { return "a list"; }
    std::string operator()(const UnfitValue& unfit) const { return unfit.kind; }
  };
  return "is " + std::visit(Names{}, value) + ": expected " + std::string(wanted);
}

ConfigKey number_key(std::string_view name, ConfigField<std::uint32_t> field, NumberRange range,
                     std::string_view help) {
  return ranged_key(name, std::move(field), range, false, help);
}

ConfigKey power_of_two_key(std::string_view name, ConfigField<std::uint32_t> field,
                           NumberRange range, std::string_view help) {
  return ranged_key(name, std::move(field), range, true, help);
}

ConfigKey bytes_key(std::string_view name, ConfigField<std::uint64_t> field, NumberRange range,
                    std::string_view help) {
  const std::string accepts =
      (range.low == 0 ? "0" : format_byte_size(range.low)) + ".." + format_byte_size(range.high);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    if (!std::holds_alternative<std::int64_t>(value) &&
        !std::holds_alternative<std::string>(value)) {
      return wrong_kind(value, "bytes, " + accepts + ", as a number or like \"64MiB\"");
    }
    const std::optional<std::uint64_t> bytes = byte_count(value);
    if (!bytes && std::holds_alternative<std::string>(value)) {
      return "is not a size: write bytes, or a number with KiB, MiB, GiB or TiB";
    }
    if (!bytes || *bytes < range.low || *bytes > range.high) {
      return "is out of range: " + accepts;
    }
    field(config, entry) = *bytes;
    return std::nullopt;
  };
  return {name, accepts, help, set, show_number(field), copy_field(field)};
}

ConfigKey text_key(std::string_view name, ConfigField<std::string> field, std::string_view accepts,
                   std::string_view help) {
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, accepts);
    if (Problem problem = judge_text(*text, kMaxTextBytes)) return problem;
    field(config, entry) = *text;
    return std::nullopt;
  };
  return {name, std::string(accepts), help, set, show_text(field), copy_field(field)};
}

ConfigKey path_key(std::string_view name, ConfigField<std::string> field, std::size_t max_bytes,
                   std::string_view help) {
  const std::string accepts = path_text(max_bytes);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, "an " + accepts);
    if (Problem problem = judge_path(*text, max_bytes)) return problem;
    field(config, entry) = *text;
    return std::nullopt;
  };
  return {name, accepts, help, set, show_text(field), copy_field(field)};
}

ConfigKey optional_path_key(std::string_view name, ConfigField<std::string> field,
                            std::size_t max_bytes, std::string_view help) {
  const std::string accepts = path_text(max_bytes) + ", or empty";
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, "an " + accepts);
    if (Problem problem = judge_path(*text, max_bytes); problem && !text->empty()) return problem;
    field(config, entry) = *text;
    return std::nullopt;
  };
  return {name, accepts, help, set, show_text(field), copy_field(field)};
}

ConfigKey paths_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                    std::size_t max_bytes, std::string_view help) {
  const std::string accepts = "list of at least one " + path_text(max_bytes);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    std::optional<std::vector<std::string>> paths = texts_of(value);
    if (!paths) return wrong_kind(value, "a " + accepts);
    if (paths->empty()) return "is empty: expected a " + accepts;
    for (const std::string& path : *paths) {
      if (Problem problem = judge_path(path, max_bytes)) return "holds one that " + *problem;
    }
    field(config, entry) = std::move(*paths);
    return std::nullopt;
  };
  return {name, accepts, help, set, show_texts(field), copy_field(field)};
}

ConfigKey url_key(std::string_view name, ConfigField<std::string> field, std::string_view help) {
  const std::string accepts = "\"host:port\"";
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, accepts);
    if (Problem problem = judge_url(*text)) return problem;
    field(config, entry) = *text;
    return std::nullopt;
  };
  return {name, accepts, help, set, show_text(field), copy_field(field)};
}

namespace {

ConfigKey list_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                   const std::string& accepts, Problem (*judge)(const std::string&),
                   std::string_view help) {
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    std::optional<std::vector<std::string>> texts = texts_of(value);
    if (!texts) return wrong_kind(value, "a " + accepts);
    if (texts->size() > kMaxUrls) return "holds more than " + std::to_string(kMaxUrls);
    std::set<std::string> seen;
    for (const std::string& text : *texts) {
      if (Problem problem = judge(text)) return "holds " + json_text(text) + ", which " + *problem;
      if (!seen.insert(text).second) return "holds " + json_text(text) + " twice";
    }
    field(config, entry) = std::move(*texts);
    return std::nullopt;
  };
  return {name, accepts, help, set, show_texts(field), copy_field(field)};
}

/// The server is judged where it is used: it may have no port.
Problem judge_known_peer(const std::string& text) {
  const std::size_t equals = text.find('=');
  return judge_url(equals == std::string::npos ? text : text.substr(equals + 1));
}

}  // namespace

ConfigKey urls_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                   std::string_view help) {
  return list_key(
      name, std::move(field), "list of \"host:port\"",
      [](const std::string& url) -> Problem { return judge_url(url); }, help);
}

ConfigKey known_peers_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                          std::string_view help) {
  return list_key(name, std::move(field), "list of \"host:port\" or \"volume server=host:port\"",
                  judge_known_peer, help);
}

ConfigKey bool_key(std::string_view name, ConfigField<bool> field, std::string_view help) {
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* truth = std::get_if<bool>(&value);
    if (truth == nullptr) return wrong_kind(value, "true or false");
    field(config, entry) = *truth;
    return std::nullopt;
  };
  auto show = [field](const Config& config, std::size_t entry) {
    return std::string(read_field(field, config, entry) ? "true" : "false");
  };
  return {name, "true, false", help, set, show, copy_field(field)};
}

ConfigKey cpus_key(std::string_view name, ConfigField<std::vector<int>> field,
                   std::string_view help) {
  const std::string accepts = "list of at most " + std::to_string(kMaxWorkers) +
                              " CPU numbers, 0.." + std::to_string(kMaxCpu);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    if (!std::holds_alternative<std::vector<std::int64_t>>(value) &&
        !std::holds_alternative<std::string>(value)) {
      return wrong_kind(value, "a list of CPU numbers, like [1] or \"1\"");
    }
    std::optional<std::vector<int>> cpus = cpu_numbers(value);
    if (!cpus) return "is not a list of CPU numbers 0.." + std::to_string(kMaxCpu);
    if (Problem problem = judge_cpus(*cpus)) return problem;
    field(config, entry) = std::move(*cpus);
    return std::nullopt;
  };
  auto show = [field](const Config& config, std::size_t entry) {
    return nlohmann::json(read_field(field, config, entry)).dump();
  };
  return {name, accepts, help, set, show, copy_field(field)};
}

ConfigKey ids_key(std::string_view name, ConfigField<std::vector<std::uint32_t>> field,
                  std::string_view help) {
  const std::string accepts = "list of ids, 0.." + std::to_string(kMaxId);
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* numbers = std::get_if<std::vector<std::int64_t>>(&value);
    if (numbers == nullptr) return wrong_kind(value, "a " + accepts + ", like [1000]");
    std::vector<std::uint32_t> ids;
    for (const std::int64_t number : *numbers) {
      if (number < 0 || number > kMaxId) return "is not a " + accepts;
      ids.push_back(static_cast<std::uint32_t>(number));
    }
    field(config, entry) = std::move(ids);
    return std::nullopt;
  };
  auto show = [field](const Config& config, std::size_t entry) {
    return nlohmann::json(read_field(field, config, entry)).dump();
  };
  return {name, accepts, help, set, show, copy_field(field)};
}

ConfigKey mode_key(std::string_view name, ConfigField<std::uint32_t> field, std::string_view help) {
  const std::string accepts = "octal text, \"0600\"..\"0775\", not writable by others";
  auto set = [=](Config& config, std::size_t entry, const ConfigValue& value) -> Problem {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, "an " + accepts);
    std::uint32_t mode = 0;
    const char* end = text->data() + text->size();
    const auto [rest, failed] = std::from_chars(text->data(), end, mode, 8);
    if (failed != std::errc{} || rest != end || mode > 0777) return "is not an " + accepts;
    if ((mode & 0002) != 0) {
      return "lets every user of this host connect: use \"0660\" and a socket_group";
    }
    if ((mode & 0600) != 0600) return "locks out the daemon's own user: expected an " + accepts;
    field(config, entry) = mode;
    return std::nullopt;
  };
  auto show = [field](const Config& config, std::size_t entry) {
    char text[16];
    std::snprintf(text, sizeof text, "\"%04o\"", read_field(field, config, entry));
    return std::string(text);
  };
  return {name, accepts, help, set, show, copy_field(field)};
}

}  // namespace kelp
