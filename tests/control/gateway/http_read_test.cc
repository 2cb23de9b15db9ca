#include "control/gateway/http_read.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"

using kelp::CircuitBreaker;
using kelp::Cookie;
using kelp::HttpAnswer;
using kelp::HttpClient;
using kelp::HttpHead;
using kelp::HttpRead;
using kelp::HttpReadRequest;
using kelp::NeedleId;
using kelp::VolumeId;
using Failure = CircuitBreaker::Failure;
using Verdict = HttpRead::Verdict;

namespace {

using Headers = std::map<std::string, std::string>;

/// What a server says, in so many words.
struct Spoken {
  int status = 206;
  Headers headers = {};
  std::string body = {};
  bool cut = false;  ///< the connection breaks after the body
};

struct Head final : HttpHead {
  explicit Head(const Spoken& of) : spoken(of) {}
  int status() const override { return spoken.status; }
  std::string_view header(const char* name) const override {
    const auto found = std::ranges::find_if(spoken.headers, [&](const auto& each) {
      return std::ranges::equal(each.first, std::string_view(name),
                                [](char a, char b) { return std::tolower(a) == std::tolower(b); });
    });
    return found == spoken.headers.end() ? std::string_view() : found->second;
  }
  const Spoken& spoken;
};

std::string quoted_crc(std::string_view data, bool masked = false) {
  const std::uint32_t crc = kelp::crc32c(std::as_bytes(std::span(data)));
  char text[11];
  std::snprintf(text, sizeof text, "\"%08x\"", masked ? kelp::masked_crc(crc) : crc);
  return text;
}

/// One read with a destination of `room` bytes among others that nobody may touch.
struct Scene {
  static constexpr std::size_t kCanary = 64;

  explicit Scene(std::size_t room = 10, std::uint64_t offset = 0, bool stat = false)
      : memory(room + 2 * kCanary, std::byte{0xcc}),
        read(HttpReadRequest{.fid = {VolumeId{3}, NeedleId{1}, Cookie{0x637037d6}},
                             .stat = stat,
                             .offset_bytes = offset,
                             .destination = std::span(memory).subspan(kCanary, room)}) {}
  ~Scene() {
    const auto intact = [](std::byte byte) { return byte == std::byte{0xcc}; };
    CHECK(std::all_of(memory.begin(), memory.begin() + kCanary, intact));
    CHECK(std::all_of(memory.end() - kCanary, memory.end(), intact));
  }

  HttpClient::Request ask(const std::string& token = "") {
    return read.request("http://server:8080", token);
  }
  /// The body comes in parts of `part` bytes, as HttpClient would hand them on.
  HttpRead::Result hears(const Spoken& spoken, std::size_t part = 3) {
    bool goes_on = read.begin(Head(spoken));
    for (std::size_t at = 0; goes_on && at < spoken.body.size(); at += part) {
      goes_on = read.take(std::as_bytes(std::span(std::string_view(spoken.body).substr(at, part))));
    }
    HttpAnswer answer;
    answer.status = goes_on && !spoken.cut ? spoken.status : 0;
    if (answer.status == 0) answer.error = "Broken off";
    return read.finish(answer);
  }
  HttpRead::Result asks_and_hears(const Spoken& spoken) {
    ask();
    return hears(spoken);
  }
  std::string bytes(std::size_t count) const {
    return {reinterpret_cast<const char*>(memory.data()) + kCanary, count};
  }

  std::vector<std::byte> memory;
  HttpRead read;
};

Spoken part_of(std::string body, std::uint64_t start, std::uint64_t total) {
  const std::string range = "bytes " + std::to_string(start) + "-" +
                            std::to_string(static_cast<std::int64_t>(start + body.size()) - 1) +
                            "/" + std::to_string(total);
  return {206, {{"Content-Range", range}}, std::move(body)};
}

void check_done(const HttpRead::Result& result, kelp_status status) {
  CHECK(result.verdict == Verdict::kDone);
  CHECK(kelp_status_name(result.outcome.status) == std::string(kelp_status_name(status)));
  CHECK_FALSE(result.failure);
  CHECK_FALSE(result.redirected);
}
void check_elsewhere(const HttpRead::Result& result, std::optional<Failure> failure,
                     kelp_status status = KELP_UNAVAILABLE) {
  CHECK(result.verdict == Verdict::kElsewhere);
  CHECK(result.outcome.status == status);
  CHECK(result.failure == failure);
  CHECK_FALSE(result.reason.empty());
}

}  // namespace

TEST_CASE("a read asks for its range by the file id, with a token if there is one") {
  Scene scene(4096, 8192);
  const HttpClient::Request request = scene.ask("abc.def");
  CHECK(request.url == "http://server:8080/3,01637037d6");
  CHECK(request.method == HttpClient::Method::kGet);
  CHECK(request.headers ==
        std::vector<std::string>{"Authorization: Bearer abc.def", "Range: bytes=8192-12287"});
  CHECK(request.sink == &scene.read);
  CHECK(Scene(1).ask().headers == std::vector<std::string>{"Range: bytes=0-0"});
}

TEST_CASE("a stat asks for the head alone") {
  Scene scene(1024, 0, true);
  const HttpClient::Request request = scene.ask();
  CHECK(request.method == HttpClient::Method::kHead);
  CHECK(request.headers.empty());
}

TEST_CASE("offsets that a server cannot parse are judged by the size alone") {
  constexpr std::uint64_t kLast = INT64_MAX;
  CHECK(Scene(10, kLast).ask().headers ==
        std::vector<std::string>{"Range: bytes=9223372036854775807-9223372036854775807"});
  CHECK(Scene(10, kLast - 3).ask().headers ==
        std::vector<std::string>{"Range: bytes=9223372036854775804-9223372036854775807"});
  for (const std::uint64_t offset : {kLast + 1, UINT64_MAX - 5, UINT64_MAX}) {
    CAPTURE(offset);
    Scene scene(10, offset);
    CHECK(scene.ask().method == HttpClient::Method::kHead);
    const auto result = scene.hears({200, {{"Content-Length", "123"}}});
    check_done(result, KELP_RANGE);
    CHECK(result.outcome.total_bytes == 123);
    CHECK(result.outcome.bytes == 0);
  }
}

TEST_CASE("a part in the middle, the end of a needle and nothing at its end are read") {
  Scene middle(4, 3);
  auto result = middle.asks_and_hears(part_of("3456", 3, 10));
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 4);
  CHECK(result.outcome.total_bytes == 10);
  CHECK(result.outcome.flags == KELP_FLAG_TRUNCATED);
  CHECK(middle.bytes(4) == "3456");

  Scene tail(10, 7);
  result = tail.asks_and_hears(part_of("789", 7, 10));
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 3);
  CHECK(result.outcome.flags == 0);
  CHECK(tail.bytes(4) == "789\xcc");

  Scene nothing(10, 10);
  result = nothing.asks_and_hears({206, {{"Content-Range", "bytes 10-9/10"}}});
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 0);
  CHECK(result.outcome.total_bytes == 10);
}

TEST_CASE("an empty needle is OK with nothing, one that does not inflate is BROKEN_GZIP") {
  const Headers of_nothing{{"Content-Range", "bytes 0--1/0"}, {"ETag", "\"00000000\""}};
  auto result = Scene().asks_and_hears({206, of_nothing});
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 0);
  CHECK(result.outcome.flags == 0);
  check_done(Scene().asks_and_hears({206, {{"Content-Range", "bytes 0--1/0"}}}), KELP_OK);
  check_done(Scene().asks_and_hears({200, {{"Content-Length", "0"}}}), KELP_OK);
}

TEST_CASE("nothing, with a checksum of something, is judged by what is stored") {
  const std::string of_nothing("\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0", 20);
  const std::string cut = of_nothing.substr(0, 12);
  const auto judged = [](Scene& scene, const std::string& stored, const std::string& etag) {
    const HttpClient::Request asked = scene.ask();
    CHECK(asked.method == HttpClient::Method::kGet);
    CHECK(asked.headers == std::vector<std::string>{"Accept-Encoding: gzip"});
    return scene.hears({200, {{"Content-Encoding", "gzip"}, {"ETag", etag}}, stored});
  };
  for (const std::string& stored : {of_nothing, cut, std::string("no gzip"), of_nothing + "x"}) {
    CAPTURE(stored.size());
    const kelp_status status = stored == of_nothing ? KELP_OK : KELP_BROKEN_GZIP;
    const Headers empty{{"ETag", quoted_crc(stored)}, {"Content-Length", "0"}};
    Headers empty_range = empty;
    empty_range["Content-Range"] = "bytes 0--1/0";
    for (const Spoken& first : {Spoken{206, empty_range}, Spoken{200, empty}}) {
      Scene scene;
      CHECK(scene.asks_and_hears(first).verdict == Verdict::kAskMore);
      check_done(judged(scene, stored, quoted_crc(stored)), status);
    }
    // Beyond the end of it: how long it is, is asked in between.
    Scene beyond(10, 5);
    CHECK(beyond.asks_and_hears({416}).verdict == Verdict::kAskMore);
    CHECK(beyond.asks_and_hears({200, empty}).verdict == Verdict::kAskMore);
    check_done(judged(beyond, stored, quoted_crc(stored)),
               stored == of_nothing ? KELP_RANGE : KELP_BROKEN_GZIP);
    Scene stat(1024, 0, true);
    CHECK(stat.asks_and_hears({200, empty}).verdict == Verdict::kAskMore);
    check_done(judged(stat, stored, quoted_crc(stored)), status);
    // Overwritten meanwhile, or damaged on the way.
    Scene changed;
    CHECK(changed.asks_and_hears({206, empty_range}).verdict == Verdict::kAskMore);
    check_elsewhere(judged(changed, stored, quoted_crc("other")), {});
    Scene damaged;
    CHECK(damaged.asks_and_hears({206, empty_range}).verdict == Verdict::kAskMore);
    check_elsewhere(judged(damaged, stored + "?", quoted_crc(stored)), {});
  }
  // Nothing empty is so long.
  Scene endless;
  const Headers empty{{"ETag", "\"9a71bb4c\""}, {"Content-Range", "bytes 0--1/0"}};
  CHECK(endless.asks_and_hears({206, empty}).verdict == Verdict::kAskMore);
  check_done(judged(endless, std::string(100'000, 'x'), "\"9a71bb4c\""), KELP_BROKEN_GZIP);
}

TEST_CASE("ranges that are not the one that was asked for are refused before a byte is taken") {
  const std::string body = "0123";
  for (const char* range : {
           "bytes 1-4/10",  // starts elsewhere
           "bytes 0-2/10",  // cut short
           "bytes 0-4/10",  // longer than asked for
           "bytes 0-3/3",   // ends behind the total
           "bytes */10",
           "bytes 0-3/*",
           "bytes -3/10",
           "bytes 0--2/10",
           "bytes 0--1/10",
           "bytes -0-3/10",
           "bytes +0-3/10",
           "bytes 0-3/-1",
           "bytes 0-3/18446744073709551616",
           "bytes 0-18446744073709551615/18446744073709551615",
           "bytes 0-9223372036854775808/9223372036854775809",
           "bytes 18446744073709551616-3/10",
           "bytes 3-0/10",
           "bytes 0-3/10 ",
           "bytes 0-3 /10",
           "bytes=0-3/10",
           "bytes 0/10-3",
           "octets 0-3/10",
           "bytes ",
           "",
       }) {
    CAPTURE(range);
    Scene scene(4);
    check_elsewhere(scene.asks_and_hears({206, {{"Content-Range", range}}, body}),
                    Failure::kServerError);
    CHECK(scene.bytes(4) == "\xcc\xcc\xcc\xcc");
  }
  // What is right with totals as large as they come.
  const auto result =
      Scene(4).asks_and_hears({206, {{"Content-Range", "bytes 0-3/18446744073709551615"}}, body});
  check_done(result, KELP_OK);
  CHECK(result.outcome.total_bytes == UINT64_MAX);
}

TEST_CASE("a server that knows no ranges is believed from the start of a needle only") {
  Scene whole(10);
  auto result = whole.asks_and_hears({200, {{"Content-Length", "5"}}, "01234"});
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 5);
  CHECK(result.outcome.total_bytes == 5);

  for (const std::size_t room : {1, 2, 3, 4, 5}) {
    CAPTURE(room);
    Scene more(room);
    result = more.asks_and_hears({200, {{"Content-Length", "10"}}, "0123456789"});
    check_done(result, KELP_OK);
    CHECK(result.outcome.bytes == room);
    CHECK(result.outcome.total_bytes == 10);
    CHECK(result.outcome.flags == KELP_FLAG_TRUNCATED);
    CHECK(more.bytes(room) == std::string("0123456789").substr(0, room));
  }
  check_elsewhere(Scene(4, 1).asks_and_hears({200, {{"Content-Length", "10"}}, "0123456789"}),
                  Failure::kServerError);
  for (const char* length : {"", "-1", "ten", "99999999999999999999"}) {
    CAPTURE(length);
    check_elsewhere(Scene(4).asks_and_hears({200, {{"Content-Length", length}}, "0123"}),
                    Failure::kServerError);
  }
}

TEST_CASE("bodies that are shorter or longer than announced are no answer") {
  Scene shorter(8);
  Spoken spoken = part_of("01234567", 0, 8);
  spoken.body = "01234";
  check_elsewhere(shorter.asks_and_hears(spoken), Failure::kServerError);
  spoken.cut = true;
  check_elsewhere(shorter.asks_and_hears(spoken), Failure::kServerError);
  spoken.cut = false;
  spoken.body = "0123456789abcdef";
  check_elsewhere(Scene(8).asks_and_hears(spoken), Failure::kServerError);
  spoken.body = "012345678";
  check_elsewhere(Scene(8).asks_and_hears(spoken), Failure::kServerError);
  // Of a needle that is shorter than the buffer, too.
  check_elsewhere(Scene(8).asks_and_hears(Spoken{206, {{"Content-Range", "bytes 0-3/4"}}, "01234"}),
                  Failure::kServerError);
  check_elsewhere(Scene(8).asks_and_hears(Spoken{200, {{"Content-Length", "6"}}, "01234"}),
                  Failure::kServerError);
}

TEST_CASE("an answer in an encoding is refused") {
  Spoken spoken = part_of("0123", 0, 4);
  spoken.headers["content-encoding"] = "gzip";
  check_elsewhere(Scene(4).asks_and_hears(spoken), Failure::kServerError);
}

TEST_CASE("the checksum is verified where all of a needle came and its ETag fits, masked or not") {
  const std::string data = "some bytes";
  const auto flags_with = [&](const std::string& etag, const Headers& more = {}) {
    Spoken spoken = part_of(data, 0, data.size());
    if (!etag.empty()) spoken.headers["ETag"] = etag;
    spoken.headers.insert(more.begin(), more.end());
    const auto result = Scene(64).asks_and_hears(spoken);
    check_done(result, KELP_OK);
    return result.outcome.flags;
  };
  CHECK(flags_with(quoted_crc(data)) == KELP_FLAG_CRC_VERIFIED);
  CHECK(flags_with(quoted_crc(data, true)) == KELP_FLAG_CRC_VERIFIED);
  CHECK(flags_with("") == 0);
  CHECK(flags_with("W/" + quoted_crc(data)) == 0);
  CHECK(flags_with(quoted_crc(data).substr(1, 8)) == 0);
  CHECK(flags_with(quoted_crc(data), {{"X-File-Store", "chunked"}}) == 0);

  Spoken part = part_of(data.substr(0, 4), 0, data.size());
  part.headers["ETag"] = quoted_crc(data.substr(0, 4));
  CHECK(Scene(4).asks_and_hears(part).outcome.flags == KELP_FLAG_TRUNCATED);
}

TEST_CASE("bytes that do not fit the ETag are good only if something else is stored") {
  const std::string data = "some bytes";
  Spoken spoken = part_of(data, 0, data.size());
  spoken.headers["ETag"] = quoted_crc("what is stored");
  const auto after = [&](const Headers& headers) {
    Scene scene(64);
    CHECK(scene.asks_and_hears(spoken).verdict == Verdict::kAskMore);
    const HttpClient::Request asked = scene.ask();
    CHECK(asked.method == HttpClient::Method::kHead);
    CHECK(asked.headers == std::vector<std::string>{"Accept-Encoding: gzip"});
    const auto result = scene.hears({200, headers});
    CHECK(scene.ask().method == HttpClient::Method::kGet);  // the next server: from the start
    return result;
  };
  const std::string etag = quoted_crc("what is stored");
  const auto compressed = after({{"ETag", etag}, {"Content-Encoding", "gzip"}});
  check_done(compressed, KELP_OK);
  CHECK(compressed.outcome.flags == 0);
  CHECK(compressed.outcome.bytes == data.size());
  check_elsewhere(after({{"ETag", etag}}), Failure::kServerError, KELP_CORRUPT);
  check_elsewhere(after({{"ETag", quoted_crc(data)}, {"Content-Encoding", "gzip"}}), {});
}

TEST_CASE("each status of a volume server ends as its table says") {
  check_done(Scene().asks_and_hears({401, {}, R"({"error":"wrong jwt"})"}), KELP_DENIED);
  const auto gone = Scene().asks_and_hears({404});
  CHECK(gone.verdict == Verdict::kNotHere);
  CHECK_FALSE(gone.failure);
  check_elsewhere(Scene().asks_and_hears({500}), Failure::kServerError, KELP_CORRUPT);
  for (const int status : {429, 502, 503, 504}) {
    CAPTURE(status);
    check_elsewhere(Scene().asks_and_hears({status, {}, "{}"}), Failure::kNoAnswer);
  }
  for (const int status : {204, 400, 403, 405, 410}) {
    CAPTURE(status);
    check_elsewhere(Scene().asks_and_hears({status, {}, "a body that is passed over"}), {});
  }
  for (const int status : {301, 302, 307, 308}) {
    CAPTURE(status);
    const auto result =
        Scene().asks_and_hears({status, {{"Location", "http://elsewhere/"}}, "<a>"});
    check_elsewhere(result, {});
    CHECK(result.redirected);
  }
}

TEST_CASE("no connection and a broken one are told apart") {
  Scene scene;
  scene.ask();
  HttpAnswer answer;
  answer.error = "Connection refused";
  answer.reached = false;
  auto result = scene.read.finish(answer);
  check_elsewhere(result, Failure::kUnreachable);
  CHECK(result.reason == "Connection refused");
  scene.ask();
  answer.reached = true;
  check_elsewhere(scene.read.finish(answer), Failure::kNoAnswer);
}

TEST_CASE("a refused range is followed by the size, which tells RANGE and the total") {
  Scene scene(10, 50);
  CHECK(scene.ask().method == HttpClient::Method::kGet);
  CHECK(scene.hears({416, {}, "invalid range"}).verdict == Verdict::kAskMore);
  CHECK(scene.ask().method == HttpClient::Method::kHead);
  const auto result = scene.hears({200, {{"Content-Length", "40"}}});
  check_done(result, KELP_RANGE);
  CHECK(result.outcome.total_bytes == 40);
}

TEST_CASE("after a size that explains nothing the next server is asked for the range again") {
  Scene scene(10, 50);
  CHECK(scene.asks_and_hears({416}).verdict == Verdict::kAskMore);
  check_elsewhere(scene.asks_and_hears({200, {{"Content-Length", "60"}}}), {});
  CHECK(scene.ask().method == HttpClient::Method::kGet);
  auto result = scene.hears(part_of("0123456789", 50, 60));
  check_done(result, KELP_OK);
  CHECK(result.outcome.bytes == 10);
  // And after one that does not say it, or refuses that too.
  Scene silent(10, 50);
  CHECK(silent.asks_and_hears({416}).verdict == Verdict::kAskMore);
  check_elsewhere(silent.asks_and_hears({200}), Failure::kServerError);
  CHECK(silent.asks_and_hears({416}).verdict == Verdict::kAskMore);
  check_elsewhere(silent.asks_and_hears({416}), {});
}

TEST_CASE("nothing of one server's answer is taken for the next one's") {
  Scene scene(4);
  // All that was wanted has come, and the connection is cut before the rest.
  Spoken cut = {200, {{"Content-Length", "10"}}, "0123", true};
  check_done(scene.asks_and_hears(cut), KELP_OK);
  scene.ask();
  HttpAnswer refused;
  refused.error = "Connection refused";
  refused.reached = false;
  check_elsewhere(scene.read.finish(refused), Failure::kUnreachable);

  Scene again(4);
  check_elsewhere(again.asks_and_hears({206, {{"Content-Range", "bytes 1-4/9"}}, "1234"}),
                  Failure::kServerError);
  Spoken good = part_of("abcd", 0, 4);
  good.headers["ETag"] = quoted_crc("abcd");
  const auto result = again.asks_and_hears(good);
  check_done(result, KELP_OK);
  CHECK(result.outcome.flags == KELP_FLAG_CRC_VERIFIED);
  CHECK(again.bytes(4) == "abcd");
}

TEST_CASE("stat tells what the headers tell") {
  Scene scene(1024, 0, true);
  const auto result =
      scene.asks_and_hears({200,
                            {{"Content-Length", "777"},
                             {"ETag", "\"9A71bb4c\""},
                             {"Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"},
                             {"Content-Type", "text/plain"},
                             {"Content-Disposition", R"(inline; filename="a \"b\" \\c.txt")"}}});
  check_done(result, KELP_OK);
  kelp_stat stat;
  const std::string bytes = scene.bytes(1024);
  std::memcpy(&stat, bytes.data(), sizeof stat);
  CHECK(stat.total == 777);
  CHECK(stat.crc32c == 0x9a71bb4c);
  CHECK(stat.modified_s == 1'700'000'000);
  CHECK(stat.flags == (KELP_STAT_HAS_MODIFIED | KELP_STAT_HAS_NAME | KELP_STAT_HAS_MIME));
  CHECK(bytes.substr(sizeof stat, stat.name_bytes) == R"(a "b" \c.txt)");
  CHECK(bytes.substr(sizeof stat + stat.name_bytes, stat.mime_bytes) == "text/plain");
  CHECK(result.outcome.bytes == sizeof stat + stat.name_bytes + stat.mime_bytes);
  CHECK(result.outcome.total_bytes == 777);
  // What HTTP does not tell.
  CHECK(stat.stored == 0);
  CHECK(stat.append_at_ns == 0);
  CHECK(stat.ttl_minutes == 0);
  CHECK(stat.version == 0);
}

TEST_CASE("stat is cut where the buffer ends, and takes no header for more than it is") {
  for (const std::size_t room : {1, 63, 64, 80, 81, 82}) {
    CAPTURE(room);
    Scene scene(room, 0, true);
    const auto result =
        scene.asks_and_hears({200,
                              {{"Content-Length", "5"},
                               {"Content-Type", "text/plain"},
                               {"X-File-Store", "chunked"},
                               {"ETag", "\"00000001\""},
                               {"Content-Disposition", "attachment; filename=\"a.txt"}}});
    check_done(result, KELP_OK);
    const std::size_t all = sizeof(kelp_stat) + 5 + 10;
    CHECK(result.outcome.bytes == std::min(room, all));
    CHECK((result.outcome.flags == KELP_FLAG_TRUNCATED) == (room < all));
  }
  Scene odd(2048, 0, true);
  check_done(
      odd.asks_and_hears({200,
                          {{"Content-Length", "18446744073709551615"},
                           {"Last-Modified", "yesterday"},
                           {"ETag", "\"0000000g\""},
                           {"Content-Type", std::string(3000, 'm')},
                           {"Content-Disposition", "inline; filename=" + std::string(3000, 'n')}}}),
      KELP_OK);
  kelp_stat stat;
  std::memcpy(&stat, odd.bytes(sizeof stat).data(), sizeof stat);
  CHECK(stat.total == UINT64_MAX);
  CHECK(stat.modified_s == 0);
  CHECK(stat.crc32c == 0);
  CHECK(stat.name_bytes == 255);
  CHECK(stat.mime_bytes == 255);
  check_elsewhere(Scene(99, 0, true).asks_and_hears({200}), Failure::kServerError);
}
