// What a sleeping worker costs: the first no-op after a second of silence, beside a bare wake of a
// sleeping thread through an eventfd, in the same rounds. And silent clients, for measuring what an
// idle daemon uses.
//
//   kelp-wake-compare --run-dir DIR --worker-cpu 0 --client-cpu 1 [--rounds N] [--json FILE]
//   kelp-wake-compare --run-dir DIR --hold N       attaches N clients, says so, waits for its
//   stdin's end
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "bench/kelp_client.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

struct Options {
  std::string run_dir, json = "/dev/stdout";
  int worker_cpu = -1, client_cpu = -1;
  std::uint32_t rounds = 200, silence_ms = 1000, hold = 0;
};

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "kelp-wake-compare: %s\n", why.c_str());
  std::exit(1);
}

void pin(int cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) != 0) {
    give_up("cannot run on CPU " + std::to_string(cpu));
  }
}

KelpClient attach(const Options& options) {
  auto client = KelpClient::open(options.run_dir, 4096, 5'000'000);
  if (!client) give_up(client.error().what);
  return std::move(*client);
}

double us_since(Ticks start) {
  return static_cast<double>(TickRate::instance().to_ns(ticks_now() - start)) / 1000;
}

/// The yardstick: a thread that sleeps in read() of an eventfd and answers through a cache line.
class BareWake {
 public:
  explicit BareWake(int cpu)
      : fd_(::eventfd(0, EFD_CLOEXEC)), sleeper_([this, cpu] { answer_all(cpu); }) {}
  ~BareWake() {
    end_.store(true);
    wake();
    sleeper_.join();
  }

  double round_trip_us() {
    const std::uint64_t before = answers_.load(std::memory_order_acquire);
    const Ticks start = ticks_now();
    wake();
    while (answers_.load(std::memory_order_acquire) == before) cpu_relax();
    return us_since(start);
  }

 private:
  void wake() {
    const std::uint64_t one = 1;
    if (::write(fd_.get(), &one, sizeof one) != sizeof one) give_up("cannot write an eventfd");
  }
  void answer_all(int cpu) {
    pin(cpu);
    std::uint64_t count = 0;
    while (!end_.load() && ::read(fd_.get(), &count, sizeof count) == sizeof count) {
      answers_.fetch_add(1, std::memory_order_release);
    }
  }

  UniqueFd fd_;
  alignas(128) std::atomic<std::uint64_t> answers_{0};
  alignas(128) std::atomic<bool> end_{false};
  std::thread sleeper_;
};

/// Submitted and polled for, as the yardstick's answer is: only the other side sleeps.
double first_no_op_us(kelp_channel* channel) {
  kelp_request request{};
  request.op = KELP_OP_NOP;
  kelp_completion done{};
  std::uint32_t reaped = 0;
  const Ticks start = ticks_now();
  kelp_status status = kelp_submit(channel, &request, 1, nullptr);
  while (status == KELP_OK && reaped == 0) status = kelp_reap(channel, &done, 1, 0, &reaped);
  if (status != KELP_OK || done.status != KELP_OK) give_up(kelp_error_detail());
  return us_since(start);
}

/// low and high are the quartiles of the samples; a ratio of two percentiles has one value only.
nlohmann::json figure(const char* name, double value, double low, double high, const char* unit,
                      nlohmann::json must) {
  return {{"name", name}, {"value", value},          {"low", low},     {"high", high},
          {"unit", unit}, {"must", std::move(must)}, {"better", "low"}};
}

void compare(const Options& options) {
  pin(options.client_cpu);
  KelpClient client = attach(options);
  BareWake bare(options.worker_cpu);
  std::vector<double> kelps, bares;
  for (std::uint32_t round = 0; round < options.rounds; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(options.silence_ms));
    // Who comes second finds CPUs awake and caches warm: each is second in half of the rounds.
    if (round % 2 == 0) kelps.push_back(first_no_op_us(client.channel()));
    bares.push_back(bare.round_trip_us());
    if (round % 2 != 0) kelps.push_back(first_no_op_us(client.channel()));
  }
  const auto spread = [](const char* name, const std::vector<double>& values, double fraction) {
    return figure(name, quantile(values, fraction), quantile(values, 0.25), quantile(values, 0.75),
                  "us", nullptr);
  };
  const double p50 = median(kelps) / median(bares);
  const double p99 = quantile(kelps, 0.99) / quantile(bares, 0.99);
  const nlohmann::json document = {
      {"figures",
       {spread("eventfd wake after silence, p50", bares, 0.5),
        spread("eventfd wake after silence, p99", bares, 0.99),
        spread("Kelp first no-op after silence, p50", kelps, 0.5),
        spread("Kelp first no-op after silence, p99", kelps, 0.99),
        figure("Kelp p50 / eventfd p50, after silence", p50, p50, p50, "x", nullptr),
        figure("Kelp p99 / eventfd p99, after silence", p99, p99, p99, "x", 5.0)}}};
  std::ofstream(options.json) << document.dump(2) << '\n';
}

void hold(const Options& options) {
  std::vector<KelpClient> clients;
  for (std::uint32_t i = 0; i < options.hold; ++i) clients.push_back(attach(options));
  std::puts("attached");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app("The first no-op after silence, beside a bare eventfd wake");
  app.add_option("--run-dir", options.run_dir, "kelpd's run directory")->required();
  app.add_option("--worker-cpu", options.worker_cpu, "the CPU kelpd's worker is pinned to");
  app.add_option("--client-cpu", options.client_cpu, "the CPU of this program");
  app.add_option("--rounds", options.rounds, "samples of each")->check(CLI::Range(2, 100000));
  app.add_option("--silence-ms", options.silence_ms, "before each")->check(CLI::Range(1, 60000));
  app.add_option("--hold", options.hold, "only attach so many clients")->check(CLI::Range(1, 4096));
  app.add_option("--json", options.json, "where the document goes");
  CLI11_PARSE(app, argc, argv);
  if (options.hold != 0) {
    kelp::bench::hold(options);
  } else {
    kelp::bench::compare(options);
  }
  return 0;
}
