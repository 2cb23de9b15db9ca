// The text of a .vif.
// Promises: a width nobody writes is never reported; blanks around the text change nothing,
// anything else behind it makes it unusable; a refusal has a sentence.
#include "dataplane/volume/vif.h"
#include "fuzz/fuzz.h"

using namespace kelp;
using kelp::fuzz::must;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto info = parse_vif(text);
  if (!info) {
    must(!info.error().what.empty(), "a refusal says why");
    return 0;
  }
  const OffsetWidth width = info->bytes_offset;
  must(width == OffsetWidth::kUnknown || width == OffsetWidth::kFour || width == OffsetWidth::kFive,
       "widths are 4, 5 or not said");
  const auto says_the_same = [&info](const std::string& other) {
    const auto parsed = parse_vif(other);
    return parsed.has_value() && *parsed == *info;
  };
  must(says_the_same(text), "the same text says the same");
  if (text.empty()) return 0;
  must(says_the_same(text + " \n") && says_the_same("\t" + text), "blanks mean nothing");
  must(!parse_vif(text + "}") && !parse_vif(text + text) && !parse_vif(text + "0"),
       "something behind the object is refused");
  return 0;
}
