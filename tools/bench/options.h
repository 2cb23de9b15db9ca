// What the command line of kelp-bench asks for.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "tools/options.h"

namespace kelp::bench {

/// Which bytes of an object one read asks for.
struct RangePlan {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;    ///< 0: whole objects, into buffers of Options::size
  bool random_offset = false;  ///< anywhere within the object instead of at `offset`
};

enum class OrderKind : std::uint8_t { kSequential, kRandom, kZipf };

struct OrderPlan {
  OrderKind kind = OrderKind::kRandom;
  double theta = 0.99;  ///< of zipf: 0 is even, towards 1 a few objects get most reads
  std::uint64_t seed = 1;
};

struct Options {
  CommonOptions common;
  std::string fids;                     ///< file; empty: see `volume`
  std::optional<std::uint32_t> volume;  ///< objects as the daemon lists them
  std::uint64_t size = 0;               ///< bytes of a buffer; 0: the largest object
  RangePlan range;
  OrderPlan order;
  std::uint32_t depth = 1;    ///< reads in flight per thread
  std::uint32_t batch = 1;    ///< reads handed over together
  std::uint32_t threads = 1;  ///< a channel each
  double duration_s = 10;
  std::uint64_t count = 0;  ///< reads in all; 0: as many as `duration_s` allows
  double warm_up_s = 0.5;
  bool sleep = false;  ///< wait for completions as a program would, instead of polling only
  std::uint32_t timeout_ms = 5000;
  std::string verify;  ///< "http://HOST:PORT", or a file of sums; empty: no comparison
  std::string against_http;
  int http_pid = 0;  ///< its CPU time counts as the HTTP server's; 0: not known
  std::uint32_t pairs = 21;
  std::uint32_t slice_ms = 200;
  std::string hdr_log;
  bool quiet = false;  ///< no progress on stderr
};

/// Declares the options on `app`. What they mean together is judged by contradiction().
void declare(CLI::App& app, Options& options);

/// A sentence about options that contradict each other; empty where there is none.
std::string contradiction(const Options& options);

}  // namespace kelp::bench
