#include "control/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

constexpr std::size_t kMaxFileBytes = 256 * 1024;
constexpr std::size_t kMaxLineBytes = 1024;
// toml++ bounds the nesting of values, but not of dotted keys, and frees tables by recursion: a
// line of 100 000 dots would end the process.
constexpr std::size_t kMaxDotsPerLine = 32;

std::string at_line(const std::string& name, std::uint32_t line) {
  return name + ":" + std::to_string(line) + ": ";
}

/// Refuses what no configuration holds and the parser should not be asked to hold.
Result<void> judge_lines(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  std::string line;
  for (std::uint32_t number = 1; std::getline(lines, line); ++number) {
    if (line.size() > kMaxLineBytes) {
      return plain_error(at_line(name, number) + "the line is longer than " +
                         std::to_string(kMaxLineBytes) + " bytes: is this a configuration file?");
    }
    const std::size_t start = line.find_first_not_of(" \t");
    if (start != std::string::npos && line[start] == '#') continue;
    if (std::count(line.begin(), line.end(), '.') > static_cast<std::ptrdiff_t>(kMaxDotsPerLine)) {
      return plain_error(at_line(name, number) + "more than " + std::to_string(kMaxDotsPerLine) +
                         " dots in one line: is this a configuration file?");
    }
  }
  return {};
}

std::string toml_text(const toml::node& node) {
  constexpr std::size_t kLongestShown = 80;
  std::ostringstream out;
  node.visit([&out](const auto& value) {
    if constexpr (toml::is_table<decltype(value)>) {
      out << toml::toml_formatter{value, toml::toml_formatter::default_flags};
    } else {
      out << value;
    }
  });
  std::string text = out.str();
  std::replace(text.begin(), text.end(), '\n', ' ');
  if (text.size() > kLongestShown) text = text.substr(0, kLongestShown) + "...";
  return text;
}

std::string kind_name(const toml::node& node) {
  if (node.is_floating_point()) return "a number with a fraction";
  if (node.is_boolean()) return "a boolean";
  if (node.is_string()) return "a text";
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  return "a date or time";
}

ConfigValue to_value(const toml::node& node) {
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  if (const toml::array* array = node.as_array(); array != nullptr) {
    std::vector<std::string> texts;
    for (const toml::node& element : *array) {
      if (const auto* text = element.as_string()) texts.push_back(text->get());
    }
    if (!texts.empty() && texts.size() == array->size()) return texts;
    std::vector<std::int64_t> numbers;
    for (const toml::node& element : *array) {
      const auto* number = element.as_integer();
      if (number == nullptr) return UnfitValue{"a list that holds " + kind_name(element)};
      numbers.push_back(number->get());
    }
    return numbers;
  }
  return UnfitValue{kind_name(node)};
}

/// A quoted key may hold dots; its quotes stay, so that it cannot pass for a dotted one.
std::string key_name(const toml::key& key) {
  std::string name(key.str());
  return name.find('.') == std::string::npos ? name : '"' + name + '"';
}

class Flattener {
 public:
  explicit Flattener(ConfigFile& file) : file_(file) {}

  void flatten(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const toml::table* section = node.as_table();
      if (section == nullptr || !is_config_section(key.str())) {
        add(key_name(key), key, node, 0);
        continue;
      }
      for (const auto& [name, value] : *section) {
        add_item(key_name(key) + "." + key_name(name), name, value);
      }
    }
    std::stable_sort(file_.assignments.begin(), file_.assignments.end(),
                     [](const auto& a, const auto& b) { return a.line < b.line; });
  }

 private:
  void add(std::string name, const toml::key& key, const toml::node& node, std::size_t entry) {
    // An unknown section is named by its key; its content is of no interest.
    const std::uint32_t line = key.source().begin.line;
    file_.assignments.push_back({std::move(name), to_value(node), toml_text(node), line, entry});
  }

  void add_item(const std::string& name, const toml::key& key, const toml::node& node) {
    const toml::array* tables = node.as_array();
    const bool of_tables = tables != nullptr && !tables->empty() && tables->is_array_of_tables();
    if (repeated_table_of(name) != name || !of_tables) return add(name, key, node, 0);
    std::vector<std::uint32_t>& lines = file_.table_lines[name];
    for (const toml::node& table : *tables) {
      const std::size_t entry = lines.size();
      lines.push_back(table.source().begin.line);
      for (const auto& [field, value] : *table.as_table()) {
        add(name + "." + key_name(field), field, value, entry);
      }
    }
  }

  ConfigFile& file_;
};

}  // namespace

Result<ConfigFile> parse_config_text(const std::string& text, const std::string& name) {
  if (Result<void> fit = judge_lines(text, name); !fit) return tl::unexpected(fit.error());
  try {
    const toml::table root = toml::parse(text, name);
    ConfigFile file{name, {}, {}};
    Flattener(file).flatten(root);
    return file;
  } catch (const toml::parse_error& error) {
    return plain_error(at_line(name, error.source().begin.line) +
                       "not TOML: " + std::string(error.description()));
  } catch (const std::exception& error) {
    return plain_error(name + ": cannot be read as TOML: " + error.what());
  }
}

Result<ConfigFile> read_config_file(const std::string& path) {
  const std::string doing = "cannot read the configuration file " + path;
  // Non-blocking, so that a FIFO does not hold the start up before it is refused.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return system_error(doing);
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return system_error(doing);
  if (!S_ISREG(found.st_mode)) return plain_error(doing + ": it is not a regular file");

  // One byte more than allowed, so that "too big" is seen whatever fstat said.
  std::string text(kMaxFileBytes + 1, '\0');
  std::size_t used = 0;
  while (used < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(doing);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  if (used > kMaxFileBytes) {
    return plain_error(doing + ": it is larger than " + std::to_string(kMaxFileBytes / 1024) +
                       " KiB; is it the right file?");
  }
  text.resize(used);
  return parse_config_text(text, path);
}

}  // namespace kelp
