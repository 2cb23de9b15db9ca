// One writer: stores, overwrites, deletes and revives objects of its own through weed's HTTP, and
// reads each through the ring as soon as weed has acknowledged. One thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "bench/kelp_client.h"
#include "live/content.h"
#include "live/judge.h"
#include "live/object_table.h"
#include "tools/bench/http_connection.h"

namespace kelp::live {

/// What all threads of the test share.
struct Common {
  const Pool& pool;
  std::string server;           ///< weed volume server, ADDRESS:PORT
  std::string run_dir;          ///< of kelpd
  std::string skip_collection;  ///< volumes of this collection come and go; nothing is stored there
  std::atomic<bool> stop{false};
  std::atomic<bool> slow{false};  ///< enough was read; the volumes shall not grow without end
  std::atomic<std::uint64_t> reads_after_ack{0};
};

class Writer {
 public:
  static Result<Writer> open(Common& common, unsigned number,
                             std::span<const std::unique_ptr<Object>> objects);

  /// Until common.stop. An error is one of weed or of the connection to it.
  Result<void> run();

  const Tally& tally() const noexcept { return tally_; }

 private:
  Writer(Common& common, unsigned number, std::span<const std::unique_ptr<Object>> objects,
         bench::HttpConnection http, bench::KelpClient kelp);

  Result<void> step();
  Result<void> learn_volumes();
  Result<void> store(Object& object, std::string fid, const Content& before);
  Result<void> remove(Object& object, const Snapshot& now);
  void read_back(const std::string& fid, const Content& now, const Content& before);
  std::string new_fid();
  std::uint32_t dice(std::uint32_t sides) { return static_cast<std::uint32_t>(random_()) % sides; }

  Common& common_;
  std::span<const std::unique_ptr<Object>> objects_;
  bench::HttpConnection http_;
  bench::KelpClient kelp_;
  std::minstd_rand random_;
  std::vector<std::uint32_t> volumes_;
  std::uint64_t next_needle_;
  std::uint64_t next_version_;
  Tally tally_;
};

}  // namespace kelp::live
