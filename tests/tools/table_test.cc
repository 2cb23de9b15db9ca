#include "tools/table.h"

#include <doctest/doctest.h>

using kelp::Table;
using kelp::Tone;

TEST_CASE("columns align, numbers at the right, and no line ends in spaces") {
  Table table({{"ID", true}, {"NAME"}, {"COUNT", true}, {"WHY"}});
  table.add({{"7"}, {"long name"}, {"1"}, {""}});
  table.add({{"123"}, {""}, {"4567890"}, {"because"}});
  CHECK(table.text(false) ==
        " ID  NAME         COUNT  WHY\n"
        "  7  long name        1\n"
        "123             4567890  because\n");
}

TEST_CASE("characters of several bytes take one place") {
  Table table({{"A"}, {"B"}});
  table.add({{"\xc3\xa9\xc3\xa9\xc3\xa9"}, {"x"}});
  table.add({{"abc"}, {"y"}});
  CHECK(table.text(false) == "A    B\n\xc3\xa9\xc3\xa9\xc3\xa9  x\nabc  y\n");
}

TEST_CASE("colours do not change the alignment") {
  Table table({{"STATE"}, {"N", true}});
  table.add({{"ok", Tone::kGood}, {"1"}});
  CHECK(table.text(true) == "STATE  N\n\x1b[32mok\x1b[0m     1\n");
}

TEST_CASE("facts align and may be short of cells") {
  Table table({{"A"}, {"B"}});
  table.add({{"1"}});
  CHECK(table.text(false, 2) == "  A  B\n  1\n");
  kelp::FactList facts;
  facts.add("a", {"1"});
  facts.add("long", {"x\ny"});
  CHECK(facts.text(false) == "a     1\nlong  x\\x0ay\n");
}
