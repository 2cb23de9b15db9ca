#include <algorithm>

#include "tools/bench/reader.h"

namespace kelp::bench {
namespace {

constexpr std::uint32_t kReapedAtOnce = 64;
/// With --sleep: how long one wait lasts before an interruption is noticed.
constexpr std::uint64_t kLongestWaitUs = 100'000;

tl::unexpected<Failure> refused(const char* what, kelp_status status) {
  return tl::unexpected(Failure{exit_code_of(status),
                                std::string(what) + ": " + kelp_error_detail(),
                                kelp_status_name(status)});
}

}  // namespace

KelpReader::KelpReader(kelp_connection* connection, kelp_channel* channel, const Options& options,
                       const Work& work, std::uint32_t thread)
    : connection_(connection),
      channel_(channel),
      options_(options),
      work_(work),
      order_(options.order, work.objects.size(), work.zipf.get(), thread, options.threads),
      slots_(options.depth),
      requests_(options.batch),
      completions_(std::min(options.depth, kReapedAtOnce)) {}

Outcome<std::unique_ptr<Reader>> KelpReader::open(kelp_connection* connection,
                                                  const Options& options, const Work& work,
                                                  std::uint32_t thread) {
  kelp_channel* channel = nullptr;
  if (const kelp_status status = kelp_channel_open(connection, &channel); status != KELP_OK) {
    return refused("cannot open a channel", status);
  }
  std::unique_ptr<KelpReader> reader(new KelpReader(connection, channel, options, work, thread));
  if (kelp_channel_capacity(channel) < options.depth) {
    return fail(ExitCode::kUsage, "the daemon takes at most " +
                                      std::to_string(kelp_channel_capacity(channel)) +
                                      " reads in flight per channel: use a smaller --depth");
  }
  for (std::uint32_t i = 0; i < options.depth; ++i) {
    const kelp_status status =
        kelp_buffer_alloc(connection, work.buffer_bytes, &reader->slots_[i].buffer);
    if (status != KELP_OK) return refused("cannot take a buffer", status);
    reader->free_.push_back(i);
  }
  return std::unique_ptr<Reader>(std::move(reader));
}

KelpReader::~KelpReader() {
  kelp_channel_close(channel_);  // buffers are given back with the connection
}

Outcome<void> KelpReader::run(const Stop& stop, Tally& tally) {
  std::uint64_t begun = 0;
  Ticks now = ticks_now();
  while (true) {
    while (free_.size() >= options_.batch && !stop.reached(begun, now)) {
      const auto count =
          static_cast<std::uint32_t>(std::min<std::uint64_t>(options_.batch, stop.reads - begun));
      if (auto submitted = submit(count); !submitted) return submitted;
      begun += count;
    }
    if (free_.size() == usable_slots()) break;
    const Outcome<std::uint32_t> reaped = reap(tally);
    if (!reaped) return tl::unexpected(reaped.error());
    if (*reaped != 0) now = ticks_now();
    if (usable_slots() < options_.batch) {
      return fail(ExitCode::kTimeout,
                  "too many reads passed their deadline with their buffers still held");
    }
  }
  return {};
}

Outcome<void> KelpReader::submit(std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = free_[free_.size() - 1 - i];
    Slot& slot = slots_[index];
    slot.object = &work_.objects[order_.next()];
    slot.extent = work_.extent(options_.range, *slot.object, order_.random());
    kelp_request& request = requests_[i];
    request = {};
    request.tag = index;
    request.fid = slot.object->fid;
    request.offset = slot.extent.offset;
    request.buffer = slot.buffer;
    request.length = slot.extent.length;
    request.timeout_us = options_.timeout_ms * 1000;
    request.op = KELP_OP_READ;
  }
  const Ticks now = ticks_now();
  for (std::uint32_t i = 0; i < count; ++i) slots_[requests_[i].tag].begun = now;
  const kelp_status status = kelp_submit(channel_, requests_.data(), count, nullptr);
  if (status != KELP_OK) return refused("cannot submit", status);
  free_.resize(free_.size() - count);
  return {};
}

Outcome<std::uint32_t> KelpReader::reap(Tally& tally) {
  std::uint32_t reaped = 0;
  const kelp_status status =
      kelp_reap(channel_, completions_.data(), static_cast<std::uint32_t>(completions_.size()),
                options_.sleep ? kLongestWaitUs : 0, &reaped);
  if (status != KELP_OK) return refused("the daemon is gone", status);
  if (reaped == 0) {
    if (!options_.sleep) cpu_relax();
    return 0u;
  }
  const Ticks now = ticks_now();
  for (std::uint32_t i = 0; i < reaped; ++i) take(completions_[i], now, tally);
  return reaped;
}

void KelpReader::take(const kelp_completion& done, Ticks now, Tally& tally) {
  if (done.tag >= slots_.size()) return;  // not ours: the library vouches that there is none
  Slot& slot = slots_[done.tag];
  const bool held = (done.flags & KELP_FLAG_BUFFER_HELD) != 0;
  if (!held || replace_buffer(slot)) {
    free_.push_back(static_cast<std::uint32_t>(done.tag));
  } else {
    ++lost_slots_;
  }
  if (done.status != KELP_OK) {
    ++tally.errors[kelp_status_name(static_cast<kelp_status>(done.status))];
    return;
  }
  const std::uint64_t took_ns = TickRate::instance().to_ns(now - slot.begun);
  tally.latency.record(took_ns);
  tally.latency_sum_ns += took_ns;
  tally.bytes += done.bytes;
  if ((done.flags & KELP_FLAG_CRC_VERIFIED) != 0) ++tally.crc_verified;
  if ((done.flags & KELP_FLAG_TRUNCATED) != 0) ++tally.truncated;
  ++tally.paths[done.path % tally.paths.size()];
  if (!work_.verify) return;
  const std::span<const char> bytes(static_cast<const char*>(slot.buffer),
                                    std::min(done.bytes, slot.extent.length));
  if (done.bytes <= slot.extent.length && as_expected(*slot.object, slot.extent, bytes)) return;
  if (tally.wrong++ == 0) tally.first_wrong = slot.object->name();
}

/// Bytes may still land in the old one: the library keeps it aside until they cannot.
bool KelpReader::replace_buffer(Slot& slot) {
  kelp_buffer_free(connection_, slot.buffer);
  return kelp_buffer_alloc(connection_, work_.buffer_bytes, &slot.buffer) == KELP_OK;
}

}  // namespace kelp::bench
