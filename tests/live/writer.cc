#include "live/writer.h"

#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

namespace kelp::live {
namespace {

/// How often a change is asked for before we believe weed's refusal; 20 ms apart.
constexpr int kAttempts = 100;

tl::unexpected<Error> refused(const std::string& request, const bench::HttpResponse& answer) {
  return plain_error("weed answers " + request + " with " + std::to_string(answer.status) + ": " +
                     std::string(answer.body.begin(), answer.body.end()));
}

/// A needle deleted, or stored empty, while its volume is being compacted gets a record with a
/// cookie of vacuum's own (0x12345678). weed then refuses for ever to store under its file id
/// again; it stays deleted, or empty.
bool lost_its_cookie(const bench::HttpResponse& answer, const Content& before) {
  const std::string_view body(answer.body.data(), answer.body.size());
  return answer.status == 500 && before.bytes == 0 && body.find("mismatching cookie") != body.npos;
}

constexpr std::string_view kEdge = "----kelp-form-edge";

/// A form with one text file, as a browser would send it: what weed compresses.
std::vector<char> as_form(std::span<const char> text) {
  std::string head = "--" + std::string(kEdge) +
                     "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"text.txt\"\r\n"
                     "Content-Type: text/plain\r\n\r\n";
  const std::string tail = "\r\n--" + std::string(kEdge) + "--\r\n";
  std::vector<char> form(head.begin(), head.end());
  form.insert(form.end(), text.begin(), text.end());
  form.insert(form.end(), tail.begin(), tail.end());
  return form;
}

}  // namespace

Result<Writer> Writer::open(Common& common, unsigned number,
                            std::span<const std::unique_ptr<Object>> objects) {
  auto http = bench::HttpConnection::open(common.server);
  if (!http) return tl::unexpected(http.error());
  auto kelp = bench::KelpClient::open(common.run_dir, Pool::kLargestBytes + 4096, 5'000'000);
  if (!kelp) return tl::unexpected(kelp.error());
  return Writer(common, number, objects, std::move(*http), std::move(*kelp));
}

Writer::Writer(Common& common, unsigned number, std::span<const std::unique_ptr<Object>> objects,
               bench::HttpConnection http, bench::KelpClient kelp)
    : common_(common),
      objects_(objects),
      http_(std::move(http)),
      kelp_(std::move(kelp)),
      random_(number + 1),
      next_needle_((std::uint64_t{number} + 1) << 32),
      next_version_((std::uint64_t{number} + 1) << 40) {}

Result<void> Writer::run() {
  while (!common_.stop.load(std::memory_order_relaxed)) {  // relaxed: a wish, orders nothing
    if (auto done = step(); !done) return done;
    if (common_.slow.load(std::memory_order_relaxed)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  return {};
}

Result<void> Writer::step() {
  if (volumes_.empty() || dice(200) == 0) {
    if (auto learnt = learn_volumes(); !learnt) return learnt;
  }
  Object& object = *objects_[dice(static_cast<std::uint32_t>(objects_.size()))];
  const Snapshot now = object.look();
  const std::uint32_t choice = dice(100);
  if (now.fid.empty() || choice < 25) {
    ++tally_.stored;
    return store(object, new_fid(), {});
  }
  if (now.content.exists && choice < 50) {
    ++tally_.deleted;
    return remove(object, now);
  }
  ++(now.content.exists ? tally_.overwritten : tally_.revived);
  return store(object, now.fid, now.content);
}

/// The volumes of the server, new ones included. File ids are made here and not by the master: it
/// holds volumes it has assigned ids of back from vacuum for up to 30 s.
Result<void> Writer::learn_volumes() {
  const auto answer = http_.get("/status");
  if (!answer) return tl::unexpected(answer.error());
  const auto status =
      nlohmann::json::parse(answer->body.begin(), answer->body.end(), nullptr, false);
  if (status.is_discarded()) return plain_error("weed's /status is not JSON");
  volumes_.clear();
  for (const auto& volume : status.value("Volumes", nlohmann::json::array())) {
    if (volume.value("Collection", "") != common_.skip_collection) {
      volumes_.push_back(volume.value("Id", 0U));
    }
  }
  return volumes_.empty() ? plain_error("weed has no volumes") : Result<void>{};
}

/// "3,01637037d6", or the same with a "_delta" as a client makes it that asked for several ids at
/// once.
std::string Writer::new_fid() {
  const std::uint64_t needle = next_needle_ += 4;
  const std::uint64_t delta = dice(4);
  const auto cookie = static_cast<std::uint32_t>(random_());
  char text[64];
  const int length = std::snprintf(text, sizeof text, "%" PRIu32 ",%" PRIx64 "%08" PRIx32,
                                   volumes_[dice(static_cast<std::uint32_t>(volumes_.size()))],
                                   needle - delta, cookie);
  std::string fid(text, static_cast<std::size_t>(length));
  if (delta != 0) fid += "_" + std::to_string(delta);
  return fid;
}

Result<void> Writer::store(Object& object, std::string fid, const Content& before) {
  Content content{.exists = true,
                  .text = dice(4) == 0,
                  .bytes = random_size(random_),
                  .version = ++next_version_};
  const std::vector<char> bytes = common_.pool.make(content);
  const std::vector<char> form = content.text ? as_form(bytes) : std::vector<char>{};
  object.begin();
  for (int attempt = 1;; ++attempt) {
    const auto answer =
        content.text ? http_.send("POST", "/" + fid,
                                  "multipart/form-data; boundary=" + std::string(kEdge), form)
                     : http_.send("PUT", "/" + fid, "application/octet-stream", bytes);
    if (!answer) return tl::unexpected(answer.error());
    if (answer->status == 201 || answer->status == 204) break;
    if (lost_its_cookie(*answer, before)) {
      ++tally_.cookies_lost;
      read_back(fid, before, before);
      object.end({}, {});
      return {};
    }
    if (attempt == kAttempts) return refused("a write of " + fid, *answer);
    ++tally_.writes_repeated;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  read_back(fid, content, before);
  object.end(std::move(fid), content);
  return {};
}

Result<void> Writer::remove(Object& object, const Snapshot& now) {
  object.begin();
  for (int attempt = 1;; ++attempt) {
    const auto answer = http_.remove("/" + now.fid);
    if (!answer) return tl::unexpected(answer.error());
    // 404 after an attempt that failed half-way: it is deleted.
    if (answer->status == 202 || (attempt > 1 && answer->status == 404)) break;
    if (attempt == kAttempts) return refused("DELETE " + now.fid, *answer);
    ++tally_.writes_repeated;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  read_back(now.fid, {}, now.content);
  object.end(now.fid, {});
  return {};
}

/// Nothing may come between the acknowledgement and this read. Three in four read the whole, the
/// rest some range.
void Writer::read_back(const std::string& fid, const Content& now, const Content& before) {
  Range range{.offset = 0, .length = static_cast<std::uint32_t>(kelp_.buffer().size())};
  if (dice(4) == 0) {
    range.offset = dice(now.bytes + 1);
    range.length = 1 + dice(now.bytes + 1);
  }
  read_and_judge(kelp_, common_.pool, fid, now, before, range, tally_);
  ++tally_.reads_after_ack;
  common_.reads_after_ack.fetch_add(1, std::memory_order_relaxed);  // a counter; orders nothing
}

}  // namespace kelp::live
