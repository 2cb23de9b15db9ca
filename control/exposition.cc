#include "control/exposition.h"

namespace kelp {
namespace {

std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    text += c == '\n' ? "\\n" : std::string(1, c);
  }
  return text;
}

}  // namespace

void Exposition::family(std::string name, std::string_view type, std::string_view help) {
  name_ = std::move(name);
  out_ << "# HELP " << name_ << ' ' << help << "\n# TYPE " << name_ << ' ' << type << '\n';
}

void Exposition::single(std::string name, std::string_view type, std::string_view help,
                        std::uint64_t value) {
  family(std::move(name), type, help);
  sample({}, value);
}

void Exposition::write_name(std::string_view suffix, const Labels& labels) {
  out_ << name_ << suffix;
  char before = '{';
  for (const auto& [name, value] : labels) {
    out_ << before << name << "=\"" << escaped(value) << '"';
    before = ',';
  }
  if (!labels.empty()) out_ << '}';
}

}  // namespace kelp
