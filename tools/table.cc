#include "tools/table.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace kelp {
namespace {

constexpr std::size_t kGap = 2;

/// Characters, not bytes: continuation bytes of UTF-8 take no room of their own.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string painted(const std::string& text, Tone tone, bool colour) {
  if (!colour || tone == Tone::kPlain) return text;
  const char* code = tone == Tone::kGood  ? "\x1b[32m"
                     : tone == Tone::kBad ? "\x1b[31m"
                                          : "\x1b[33m";
  return code + text + "\x1b[0m";
}

std::string spaces(std::size_t count) {
  return std::string(count, ' ');
}

/// One line of cells, each as wide as its column; the last is not filled up.
std::string line(const std::vector<Column>& columns, const std::vector<std::size_t>& widths,
                 const std::vector<Cell>& cells, bool colour, std::size_t indent) {
  std::string text = spaces(indent);
  std::size_t owed = 0;  // written once more text follows, so that no line ends in spaces
  for (std::size_t i = 0; i < columns.size() && i < cells.size(); ++i) {
    const std::string shown = printable(cells[i].text);
    const std::size_t fill = widths[i] - width(shown);
    if (columns[i].right) owed += fill;
    if (!shown.empty()) {
      text += spaces(owed) + painted(shown, cells[i].tone, colour);
      owed = 0;
    }
    if (!columns[i].right || shown.empty()) owed += columns[i].right ? 0 : fill;
    owed += kGap;
  }
  return text + "\n";
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080..U+009F are control characters too; in UTF-8 they are C2 80..9F.
    const bool high_control = byte == 0xc2 && i + 1 < text.size() &&
                              static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                              static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte >= 0x20 && byte != 0x7f && !high_control) {
      shown += text[i];
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x",
                  high_control ? static_cast<unsigned char>(text[++i]) : byte);
    shown += escaped;
  }
  return shown;
}

std::string Table::text(bool colour, std::size_t indent) const {
  std::vector<std::size_t> widths;
  std::vector<Cell> titles;
  for (const Column& column : columns_) {
    widths.push_back(width(column.title));
    titles.push_back({column.title});
  }
  for (const std::vector<Cell>& row : rows_) {
    for (std::size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], width(printable(row[i].text)));
    }
  }
  std::string text = line(columns_, widths, titles, colour, indent);
  for (const std::vector<Cell>& row : rows_) text += line(columns_, widths, row, colour, indent);
  return text;
}

std::string FactList::text(bool colour) const {
  std::size_t longest = 0;
  for (const Fact& fact : facts_) longest = std::max(longest, width(fact.label));
  std::string text;
  for (const Fact& fact : facts_) {
    text += fact.label + spaces(longest - width(fact.label) + kGap) +
            painted(printable(fact.value.text), fact.value.tone, colour) + "\n";
  }
  return text;
}

bool stdout_has_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  if (no_colour != nullptr && *no_colour != '\0') return false;
  const char* terminal = std::getenv("TERM");
  if (terminal == nullptr || std::string_view(terminal) == "dumb") return false;
  return ::isatty(STDOUT_FILENO) == 1;
}

}  // namespace kelp
