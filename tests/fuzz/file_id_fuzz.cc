// File ids as a program, a URL or a chunk list gives them.
// Promises: what parses has one canonical text, which parses to the same id and is its own text
// (but for needle 0: as in SeaweedFS, its canonical text has too few digits to be one); kelp.h's
// parser and the one underneath agree.
#include "fuzz/fuzz.h"
#include "shm_ring/file_id.h"
#include "shm_ring/kelp.h"

using namespace kelp;
using kelp::fuzz::must;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::vector<char> bytes(data, data + size);  // no terminator: the sanitizer watches its end
  const auto id = parse_file_id({bytes.data(), bytes.size()});

  const std::string text(bytes.begin(), bytes.end());
  kelp_fid fid{};
  const bool parsed = kelp_fid_parse(text.c_str(), &fid) == KELP_OK;
  if (text.find('\0') == std::string::npos && text.size() < 4096) {
    must(parsed == id.has_value(), "both parsers take the same texts");
  }
  if (parsed) {
    char canonical[40];
    kelp_fid_format(&fid, canonical);
    kelp_fid again{};
    const bool parses_again = kelp_fid_parse(canonical, &again) == KELP_OK;
    must(parses_again == (fid.needle != 0), "a canonical text parses");
    must(!parses_again || (again.volume == fid.volume && again.needle == fid.needle &&
                           again.cookie == fid.cookie),
         "and to the same id");
  }
  if (!id || id->needle == NeedleId{0}) return 0;
  const std::string canonical = format_file_id(*id);
  const auto again = parse_file_id(canonical);
  must(again == id, "format and parse are inverse");
  must(format_file_id(*again) == canonical, "a canonical text is its own");
  must(canonical.size() < 40, "kelp_fid_format() has room for it");
  return 0;
}
