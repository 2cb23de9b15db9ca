// A configuration as an operator gives it: a TOML file and flags.
//
// Input: count u8, then as many flags, length u8 and bytes each; the rest is the file's text.
//
// Promises: what is taken lies in its documented range; /config's view of it, written as a file
// again, is taken and says the same; a refusal has a sentence.
#include <sys/mman.h>
#include <unistd.h>

#include <bit>

#include "control/command_line.h"
#include "control/config.h"
#include "fuzz/fuzz.h"
#include "shm_ring/unique_fd.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

/// One file in memory, rewritten for each input.
class MemoryFile {
 public:
  MemoryFile()
      : fd_(::memfd_create("kelpd.toml", MFD_CLOEXEC)),
        path_("/proc/self/fd/" + std::to_string(fd_.get())) {}

  const std::string& hold(std::string_view text) const {
    must(::ftruncate(fd_.get(), 0) == 0 &&
             ::pwrite(fd_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()),
         "a file in memory");
    return path_;
  }

 private:
  UniqueFd fd_;
  std::string path_;
};

void within(std::uint64_t value, std::uint64_t low, std::uint64_t high) {
  must(value >= low && value <= high, "values lie in their documented range");
}

void judge(const Config& config) {
  within(config.daemon.run_dir.size(), 1, 94);
  must(config.daemon.run_dir.front() == '/', "the run directory is absolute");
  within(config.daemon.drain_timeout_ms, 0, 600'000);
  within(config.worker.spin_us, 0, 100'000);
  within(config.worker.ops, 64, 65'536);
  within(config.client.ring_entries, 4, 65'536);
  must(std::has_single_bit(config.client.ring_entries), "rings have a power of two of entries");
  within(config.client.max_clients, 1, 4096);
  within(config.client.max_channels, 1, 64);
  within(config.client.max_data_bytes, 64 << 10, std::uint64_t{1} << 40);
  within(config.client.max_timeout_ms, 1, 3'600'000);
  must((config.client.socket_mode & ~0775u) == 0, "others may not write to the sockets");
  within(config.target.rescan_ms, 100, 3'600'000);
  within(config.target.gzip_max_output_bytes, 64 << 10, std::uint64_t{1} << 40);
  within(config.target.gzip_max_ratio, 1, 1100);
  within(config.target.inline_inflate_bytes, 0, 16 << 20);
  within(config.target.reload_wait_ms, 0, 60'000);
  must(!config.target.directories.empty(), "there is something to serve");
}

/// The effective configuration as a file; JSON values are TOML values too.
std::string as_toml(const Config& config) {
  std::string plain;
  std::string tables;
  for (const ConfigOrigin& item : config.origins) {
    const std::size_t bracket = item.key.find("].");
    if (bracket == std::string::npos) {
      plain += item.key + " = " + item.value + "\n";
      continue;
    }
    const std::string field = item.key.substr(bracket + 2);
    if (field == "path") tables += "[[target.directory]]\n";
    if (item.value != "\"\"") tables += field + " = " + item.value + "\n";
  }
  return plain + tables;
}

void round_trip(const Config& config, const MemoryFile& file) {
  CommandLine flags;
  flags.config_file = file.hold(as_toml(config));
  const auto again = load_config(flags, "");
  must(again.has_value(), "what /config shows is a configuration");
  must(again->origins.size() == config.origins.size(), "with the same keys");
  for (std::size_t i = 0; i < config.origins.size(); ++i) {
    must(again->origins[i].key == config.origins[i].key &&
             again->origins[i].value == config.origins[i].value,
         "and the same values");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file;
  fuzz::Input input(data, size);
  std::vector<std::string> words{"kelpd"};
  for (int count = input.take<std::uint8_t>() % 8; count > 0; --count) {
    words.push_back(fuzz::text_of(input.take_bytes(input.take<std::uint8_t>())));
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  auto flags = parse_command_line(static_cast<int>(words.size()), argv.data());
  if (!flags) {
    must(!flags.error().what.empty(), "a refusal says why");
    return 0;
  }
  if (flags->answer) return 0;
  flags->config_file = file.hold(fuzz::text_of(input.rest()));
  const auto config = load_config(*flags, "");
  if (!config) {
    must(!config.error().what.empty(), "a refusal says why");
    return 0;
  }
  judge(*config);
  round_trip(*config, file);
  return 0;
}
