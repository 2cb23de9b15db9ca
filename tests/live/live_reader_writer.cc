// test_live_client: writers and readers of the live test against one weed and one kelpd.
// Runs until it has read often enough after an acknowledgement *and* its standard input was closed,
// which is how run.py says that vacuums and the like are done; or until the limit. A line of
// progress each second, in JSON; the last line is the result. Exit code 0: every read was answered,
// none stale, none wrong.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "live/watcher.h"
#include "live/writer.h"

namespace kelp::live {
namespace {

struct Options {
  std::string server;
  std::string run_dir;
  std::string skip_collection;
  unsigned writers = 4;
  unsigned watchers = 2;
  unsigned objects = 200;  ///< per writer
  std::uint64_t reads = 20'000;
  unsigned limit_s = 150;
};

/// True once somebody closed our standard input. Waits up to a second for it.
bool input_closed_within_a_second() {
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  if (poll(&input, 1, 1000) <= 0) return false;
  char ignored[64];
  return read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
}

void wait_for_the_end(Common& common, const Options& options) {
  const Clock::time_point limit = Clock::now() + std::chrono::seconds(options.limit_s);
  bool closed = false;
  while (!common.stop && Clock::now() < limit) {
    if (closed) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    } else {
      closed = input_closed_within_a_second();
    }
    const std::uint64_t reads = common.reads_after_ack;
    std::cout << nlohmann::json{{"reads_after_ack", reads}} << std::endl;
    common.slow = reads >= options.reads;
    if (closed && common.slow) break;
  }
  common.stop = true;
}

nlohmann::json report(const Tally& tally) {
  nlohmann::json repeated = nlohmann::json::object();
  for (std::size_t status = 0; status < tally.repeated_for.size(); ++status) {
    if (tally.repeated_for[status] == 0) continue;
    repeated[kelp_status_name(static_cast<kelp_status>(status))] = tally.repeated_for[status];
  }
  return {{"stored", tally.stored},
          {"overwritten", tally.overwritten},
          {"deleted", tally.deleted},
          {"revived", tally.revived},
          {"cookies_lost", tally.cookies_lost},
          {"writes_repeated", tally.writes_repeated},
          {"reads_after_ack", tally.reads_after_ack},
          {"reads_of_others", tally.reads_of_others},
          {"reads_overlapped", tally.reads_overlapped},
          {"stale", tally.stale},
          {"wrong", tally.wrong},
          {"never_answered", tally.never},
          {"reads_repeated", tally.reads_repeated},
          {"repeated_for", repeated},
          {"longest_wait_ms", tally.longest_wait_ms},
          {"complaints", tally.complaints}};
}

/// Runs one thread per worker; the first error of any stops all.
template <class Worker>
void start(std::vector<std::jthread>& threads, std::vector<Worker>& workers, Common& common,
           std::atomic<bool>& failed) {
  for (Worker& worker : workers) {
    threads.emplace_back([&worker, &common, &failed] {
      const auto done = worker.run();
      if (done) return;
      std::cerr << "test_live_client: " << done.error().what << '\n';
      failed = true;
      common.stop = true;
    });
  }
}

Result<bool> run(const Options& options) {
  const Pool pool(options.writers);
  Common common{.pool = pool,
                .server = options.server,
                .run_dir = options.run_dir,
                .skip_collection = options.skip_collection};
  ObjectTable objects(std::size_t{options.writers} * options.objects);
  for (auto& object : objects) object = std::make_unique<Object>();
  std::vector<Writer> writers;
  for (unsigned i = 0; i < options.writers; ++i) {
    const auto own = std::span(objects).subspan(std::size_t{i} * options.objects, options.objects);
    auto writer = Writer::open(common, i, own);
    if (!writer) return tl::unexpected(writer.error());
    writers.push_back(std::move(*writer));
  }
  std::vector<Watcher> watchers;
  for (unsigned i = 0; i < options.watchers; ++i) {
    auto watcher = Watcher::open(common, i, objects);
    if (!watcher) return tl::unexpected(watcher.error());
    watchers.push_back(std::move(*watcher));
  }
  std::atomic<bool> failed{false};
  std::vector<std::jthread> threads;
  start(threads, writers, common, failed);
  start(threads, watchers, common, failed);
  wait_for_the_end(common, options);
  threads.clear();  // joins
  Tally all;
  for (const Writer& writer : writers) all.add(writer.tally());
  for (const Watcher& watcher : watchers) all.add(watcher.tally());
  std::cout << report(all) << std::endl;
  return !failed && all.stale + all.wrong + all.never == 0;
}

}  // namespace
}  // namespace kelp::live

int main(int argc, char** argv) {
  kelp::live::Options options;
  CLI::App app{"Writes through weed, reads through Kelp, compares with what was acknowledged"};
  app.add_option("--server", options.server, "weed volume server, ADDRESS:PORT")->required();
  app.add_option("--run-dir", options.run_dir, "where kelpd's sockets are")->required();
  app.add_option("--skip-collection", options.skip_collection, "collection to leave alone");
  app.add_option("--writers", options.writers)->check(CLI::Range(1, 64));
  app.add_option("--watchers", options.watchers)->check(CLI::Range(0, 64));
  app.add_option("--objects", options.objects, "per writer")->check(CLI::Range(1, 100000));
  app.add_option("--reads", options.reads, "reads straight after an acknowledgement");
  app.add_option("--limit-s", options.limit_s, "stop after this many seconds in any case");
  CLI11_PARSE(app, argc, argv);
  const auto clean = kelp::live::run(options);
  if (!clean) std::cerr << "test_live_client: " << clean.error().what << '\n';
  return clean && *clean ? 0 : 1;
}
