// Aligned text for people: tables with a header row, and lists of facts. Pure, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kelp {

enum class Tone { kPlain, kGood, kWarning, kBad };

struct Cell {
  std::string text;
  Tone tone = Tone::kPlain;
};

struct Column {
  std::string title;
  bool right = false;  ///< numbers stand at the right
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// One cell per column; missing ones are empty.
  void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.empty(); }

  /// Header and rows, each line with `indent` spaces in front and none at the end.
  std::string text(bool colour, std::size_t indent = 0) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

/// "label   value", one per line, the values below each other.
class FactList {
 public:
  void add(std::string label, Cell value) {
    facts_.push_back({std::move(label), std::move(value)});
  }
  std::string text(bool colour) const;

 private:
  struct Fact {
    std::string label;
    Cell value;
  };
  std::vector<Fact> facts_;
};

/// `text` with control characters as \xNN: what a server sends cannot steer the terminal.
std::string printable(std::string_view text);

/// True where colours are wanted: stdout is a terminal that knows them, and NO_COLOR is not set.
bool stdout_has_colour();

}  // namespace kelp
