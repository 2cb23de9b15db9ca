#include "tools/bench/options.h"

#include <charconv>
#include <string_view>

namespace kelp::bench {
namespace {

template <class Number>
bool parse(std::string_view text, Number& number) {
  const auto [rest, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failed == std::errc{} && rest == text.data() + text.size();
}

/// "4096", "4KiB", "1M"; suffixes count in powers of 1024.
bool parse_bytes(std::string_view text, std::uint64_t& bytes) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (!parse(text.substr(0, digits), bytes)) return false;
  const std::string_view unit = text.substr(digits);
  unsigned shift = 0;
  if (unit == "K" || unit == "KiB") shift = 10;
  if (unit == "M" || unit == "MiB") shift = 20;
  if (shift == 0 && !unit.empty() && unit != "B") return false;
  if (bytes > (UINT64_MAX >> shift)) return false;
  bytes <<= shift;
  return true;
}

/// kelp_request.length has 32 bits; a buffer beyond this is no sensible read either.
constexpr std::uint64_t kMaxReadBytes = 1ULL << 30;

bool take_size(const std::string& text, Options& options) {
  return parse_bytes(text, options.size) && options.size > 0 && options.size <= kMaxReadBytes;
}

/// "OFFSET:LENGTH" or "random:LENGTH".
bool take_range(const std::string& text, RangePlan& range) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) return false;
  const std::string_view offset = std::string_view(text).substr(0, colon);
  range.random_offset = offset == "random";
  if (!range.random_offset && !parse_bytes(offset, range.offset)) return false;
  return parse_bytes(std::string_view(text).substr(colon + 1), range.length) && range.length > 0 &&
         range.length <= kMaxReadBytes;
}

/// "sequential", "random", "zipf" or "zipf:THETA".
bool take_order(const std::string& text, OrderPlan& order) {
  if (text == "sequential" || text == "random") {
    order.kind = text == "random" ? OrderKind::kRandom : OrderKind::kSequential;
    return true;
  }
  const std::size_t colon = text.find(':');
  if (text.substr(0, colon) != "zipf") return false;
  order.kind = OrderKind::kZipf;
  if (colon == std::string::npos) return true;
  return parse(std::string_view(text).substr(colon + 1), order.theta) && order.theta >= 0 &&
         order.theta < 1;
}

void declare_load(CLI::App& app, Options& options) {
  app.add_option("--fids", options.fids, "File of file ids, one per line; - is stdin")
      ->type_name("FILE");
  app.add_option("--volume", options.volume, "Read the objects the daemon lists of this volume")
      ->type_name("ID");
  app.add_option_function<std::string>(
         "--size",
         [&options](const std::string& text) {
           if (!take_size(text, options)) {
             throw CLI::ValidationError("--size: \"" + text +
                                        "\" is not a size from 1 to 1024MiB, like 4KiB");
           }
         },
         "Bytes of each buffer; longer objects are cut (the largest object)")
      ->type_name("BYTES");
  app.add_option_function<std::string>(
         "--range",
         [&options](const std::string& text) {
           if (!take_range(text, options.range)) {
             throw CLI::ValidationError("--range: \"" + text +
                                        "\" is neither OFFSET:LENGTH nor random:LENGTH");
           }
         },
         "Read only these bytes of each object: 0:4KiB, or random:4KiB")
      ->type_name("RANGE");
  app.add_option_function<std::string>(
         "--order",
         [&options](const std::string& text) {
           if (!take_order(text, options.order)) {
             throw CLI::ValidationError(
                 "--order: \"" + text +
                 "\" is not sequential, random, zipf or zipf:THETA with THETA from 0 to below 1");
           }
         },
         "sequential, random, zipf or zipf:THETA (random)")
      ->type_name("ORDER");
  app.add_option("--seed", options.order.seed, "Of random and zipf (1)")->type_name("N");
}

void declare_shape(CLI::App& app, Options& options) {
  app.add_option("--depth", options.depth, "Reads in flight per thread (1)")
      ->type_name("N")
      ->check(CLI::Range(1u, 65536u));
  app.add_option("--batch", options.batch, "Reads submitted together, at most --depth (1)")
      ->type_name("N")
      ->check(CLI::Range(1u, 65536u));
  app.add_option("--threads", options.threads, "Threads, each with a channel of its own (1)")
      ->type_name("N")
      ->check(CLI::Range(1u, 64u));
  app.add_option("--duration", options.duration_s, "Seconds to measure (10)")
      ->type_name("S")
      ->check(CLI::Range(0.01, 86400.0));
  app.add_option("--count", options.count, "Measure so many reads instead")
      ->type_name("N")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 50));
  app.add_option("--warm-up", options.warm_up_s, "Seconds of reads that are not counted (0.5)")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3600.0));
  app.add_flag("--sleep", options.sleep,
               "Sleep while nothing comes, as a program would; otherwise only poll");
  app.add_option("--timeout", options.timeout_ms, "Longest wait for one read (5000)")
      ->type_name("MS")
      ->check(CLI::Range(1u, kMaxTimeoutMs));
}

void declare_comparison(CLI::App& app, Options& options) {
  app.add_option("--verify", options.verify,
                 "Compare every byte with http://HOST:PORT, or with a FILE of \"SHA256  FID\"")
      ->type_name("SOURCE");
  app.add_option("--against-http", options.against_http,
                 "Take turns with HTTP keep-alive reads from this volume server")
      ->type_name("HOST:PORT");
  app.add_option("--http-pid", options.http_pid,
                 "Process whose CPU time counts as the HTTP server's")
      ->type_name("PID")
      ->check(CLI::PositiveNumber);
  app.add_option("--pairs", options.pairs, "Slices per side with --against-http (21)")
      ->type_name("N")
      ->check(CLI::Range(1u, 100000u));
  app.add_option("--slice", options.slice_ms, "Length of such a slice (200)")
      ->type_name("MS")
      ->check(CLI::Range(1u, 60000u));
}

}  // namespace

void declare(CLI::App& app, Options& options) {
  app.add_option("--run-dir", options.common.run_dir, "Directory of the daemon's sockets")
      ->type_name("DIR");
  app.add_flag("--json", options.common.json, "Answer with JSON");
  declare_load(app, options);
  declare_shape(app, options);
  declare_comparison(app, options);
  app.add_option("--hdr-log", options.hdr_log, "Write the latencies as an HdrHistogram log, v1.3")
      ->type_name("FILE");
  app.add_flag("-q,--quiet", options.quiet, "No progress on stderr");
}

std::string contradiction(const Options& options) {
  if (options.fids.empty() == !options.volume.has_value()) {
    return "say what to read: either --fids FILE or --volume ID";
  }
  if (options.batch > options.depth) return "--batch cannot be larger than --depth";
  if (options.size != 0 && options.range.length != 0) {
    return "--size and --range exclude each other: a range has its length";
  }
  if (options.count != 0 && !options.against_http.empty()) {
    return "--count has no meaning with --against-http: that reads for --pairs times --slice";
  }
  if (options.http_pid != 0 && options.against_http.empty()) {
    return "--http-pid has no meaning without --against-http";
  }
  return {};
}

}  // namespace kelp::bench
