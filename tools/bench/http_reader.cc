#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "tools/bench/reader.h"

namespace kelp::bench {
namespace {

tl::unexpected<Failure> broken(const Error& error) {
  return fail(ExitCode::kOther, error.what);
}

}  // namespace

HttpReader::HttpReader(const Options& options, const Work& work, std::uint32_t thread)
    : options_(options),
      work_(work),
      order_(options.order, work.objects.size(), work.zipf.get(), thread, options.threads) {}

Outcome<std::unique_ptr<Reader>> HttpReader::open(const std::string& server, const Options& options,
                                                  const Work& work, std::uint32_t thread) {
  std::unique_ptr<HttpReader> reader(new HttpReader(options, work, thread));
  for (std::uint32_t i = 0; i < options.depth; ++i) {
    auto connection = HttpConnection::open(server);
    if (!connection) return broken(connection.error());
    reader->slots_.push_back({.connection = std::move(*connection)});
  }
  return std::unique_ptr<Reader>(std::move(reader));
}

Outcome<void> HttpReader::run(const Stop& stop, Tally& tally) {
  return slots_.size() == 1 ? run_one(stop, tally) : run_many(stop, tally);
}

Outcome<void> HttpReader::run_one(const Stop& stop, Tally& tally) {
  for (std::uint64_t begun = 0; !stop.reached(begun, ticks_now()); ++begun) {
    if (auto sent = begin(slots_[0]); !sent) return sent;
    if (auto finished = finish(slots_[0], tally); !finished) return finished;
  }
  return {};
}

Outcome<void> HttpReader::run_many(const Stop& stop, Tally& tally) {
  std::vector<pollfd> waiting;
  for (const Slot& slot : slots_) waiting.push_back({slot.connection.fd(), POLLIN, 0});
  std::size_t in_flight = 0;
  std::uint64_t begun = 0;
  const auto begin_next = [&](std::size_t i) -> Outcome<void> {
    // poll() passes over descriptors below 0.
    waiting[i].fd = -1;
    if (stop.reached(begun, ticks_now())) return {};
    ++begun;
    ++in_flight;
    waiting[i].fd = slots_[i].connection.fd();
    return begin(slots_[i]);
  };
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (auto sent = begin_next(i); !sent) return sent;
  }
  while (in_flight != 0) {
    const int ready = ::poll(waiting.data(), waiting.size(), static_cast<int>(options_.timeout_ms));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(ExitCode::kTimeout, "no answer over HTTP in time");
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      if (waiting[i].fd < 0 || waiting[i].revents == 0) continue;
      --in_flight;
      if (auto finished = finish(slots_[i], tally); !finished) return finished;
      if (auto sent = begin_next(i); !sent) return sent;
    }
  }
  return {};
}

Outcome<void> HttpReader::begin(Slot& slot) {
  slot.object = &work_.objects[order_.next()];
  slot.extent = work_.extent(options_.range, *slot.object, order_.random());
  range_.clear();
  if (asks_for_ranges()) {
    const std::uint64_t last = slot.extent.offset + slot.extent.length - 1;
    range_.append("Range: bytes=").append(std::to_string(slot.extent.offset));
    range_.append("-").append(std::to_string(last)).append("\r\n");
  }
  slot.begun = ticks_now();
  if (auto sent = slot.connection.send_get(slot.object->path, range_); !sent) {
    return broken(sent.error());
  }
  return {};
}

Outcome<void> HttpReader::finish(Slot& slot, Tally& tally) {
  const auto answer = slot.connection.receive();
  if (!answer) return broken(answer.error());
  const std::uint64_t took_ns = TickRate::instance().to_ns(ticks_now() - slot.begun);
  if (answer->status != (asks_for_ranges() ? 206 : 200)) {
    ++tally.errors["http-" + std::to_string(answer->status)];
    return {};
  }
  tally.latency.record(took_ns);
  tally.latency_sum_ns += took_ns;
  tally.bytes += answer->body.size();
  ++tally.paths[KELP_PATH_HTTP];
  if (!work_.verify) return {};
  if (as_expected(*slot.object, slot.extent, answer->body)) return {};
  if (tally.wrong++ == 0) tally.first_wrong = slot.object->name();
  return {};
}

}  // namespace kelp::bench
