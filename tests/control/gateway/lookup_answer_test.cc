// parse_lookup(): what masters say, and what pretends to be one.
#include <doctest/doctest.h>

#include "control/gateway/lookup_cache.h"

using kelp::Location;
using kelp::LookupCache;
using kelp::parse_lookup;
using State = LookupCache::State;

namespace {

/// The urls of a 200 with these locations, joined by blanks; or the error.
std::string urls_of(const std::string& locations) {
  const auto answer = parse_lookup(200, R"({"volumeOrFileId":"3","locations":)" + locations + "}");
  if (!answer) return "error: " + answer.error().what;
  std::string urls;
  for (const Location& location : answer->locations) {
    urls += (urls.empty() ? "" : " ") + location.url;
  }
  return urls;
}

bool is_error(int status, const std::string& body) {
  const auto answer = parse_lookup(status, body);
  return !answer && !answer.error().what.empty();
}

State state_of(int status, const std::string& body) {
  const auto answer = parse_lookup(status, body);
  REQUIRE(answer);
  CHECK(answer->locations.empty() == (answer->state != State::kKnown));
  CHECK(answer->error.empty() == (answer->state == State::kKnown));
  return answer->state;
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("a master's answer names servers with url, public url and data center") {
  const auto answer = parse_lookup(200, R"({"volumeOrFileId":"3","locations":[
      {"url":"10.0.0.1:8080","publicUrl":"files.example:80","dataCenter":"dc1","grpcPort":18080},
      {"url":"10.0.0.2:8080"}]})");
  REQUIRE(answer);
  CHECK(answer->state == State::kKnown);
  CHECK(answer->error.empty());
  REQUIRE(answer->locations.size() == 2);
  CHECK(answer->locations[0] == Location{"10.0.0.1:8080", "files.example:80", "dc1"});
  CHECK(answer->locations[1] == Location{"10.0.0.2:8080", "10.0.0.2:8080", ""});
}

TEST_CASE("the servers of an EC volume, one entry per shard, are named once and in order") {
  CHECK(
      urls_of(R"([{"url":"b:1"},{"url":"a:1"},{"url":"b:1"},{"url":"B:1.10001"},{"url":"a:1"}])") ==
      "b:1 a:1");
}

TEST_CASE("an entry whose url is no server address is left out") {
  CHECK(urls_of(R"([{"url":"file:///etc/passwd"},{"url":"a:1/x"},{"url":""},{},{"url":7},
                    {"url":null},{"url":["a:1"]},"a:1",7,null,[],{"url":"good:80"}])") ==
        "good:80");
}

TEST_CASE("a public url that is no server address counts as none") {
  for (const char* text : {R"("http://x/y")", R"("")", "7", "null", "{}"}) {
    const auto answer =
        parse_lookup(200, std::string(R"({"locations":[{"url":"a:1","publicUrl":)") + text + "}]}");
    REQUIRE(answer);
    CHECK(answer->locations.at(0).public_url == "a:1");
  }
}

TEST_CASE("a volume without servers is unknown") {
  CHECK(state_of(404, R"({"volumeOrFileId":"9","error":"volume id 9 not found"})") ==
        State::kUnknownVolume);
  CHECK(parse_lookup(404, R"({"error":"volume id 9 not found"})")->error ==
        "volume id 9 not found");
  CHECK(state_of(200, R"({"volumeOrFileId":"9","locations":[]})") == State::kUnknownVolume);
  CHECK(state_of(200, R"({"locations":null})") == State::kUnknownVolume);
  CHECK(state_of(200, "{}") == State::kUnknownVolume);
  const auto wordy = parse_lookup(404, R"({"error":")" + std::string(100000, 'x') + R"("})");
  CHECK(wordy->error.size() < 100);
}

TEST_CASE("a list of servers that is none, or has no usable entry, is no answer") {
  for (const char* locations :
       {R"([{"url":"nowhere"}])", "[null]", "{}", R"("a:1")", "7", "true"}) {
    CHECK_MESSAGE(urls_of(locations).starts_with("error: "), locations);
  }
}

TEST_CASE("what is no answer of a master is an error") {
  CHECK(is_error(404, "<html>not found</html>"));
  CHECK(is_error(404, "{}"));
  CHECK(is_error(404, R"({"error":7})"));
  for (const char* body : {"", " ", "null", "[]", "7", R"("x")", R"({"locations":[)", "{}{}",
                           R"({"locations":[{"url":"a:1"}]} x)", "{\"a\":\"\xff\"}"}) {
    CHECK_MESSAGE(is_error(200, body), body);
  }
  for (const int status : {-1, 0, 100, 204, 206, 301, 307, 400, 401, 403, 500, 503, 999}) {
    CHECK_MESSAGE(is_error(status, R"({"locations":[{"url":"a:1"}]})"), status);
  }
  CHECK(parse_lookup(503, "").error().what.find("503") != std::string::npos);
}

TEST_CASE("an answer of a mebibyte is read, a longer one is refused") {
  std::string body = R"({"locations":[{"url":"a:1"}]})";
  body.resize(kelp::kMaxLookupBytes, ' ');
  CHECK(state_of(200, body) == State::kKnown);
  CHECK(is_error(200, body + " "));
}

TEST_CASE("deep nesting, anywhere, is an error and costs little") {
  const int most = static_cast<int>(kelp::kMaxLookupBytes);
  CHECK(is_error(200, std::string(kelp::kMaxLookupBytes, '[')));
  CHECK(is_error(200, repeated("[", most / 2) + repeated("]", most / 2)));
  CHECK(is_error(200, repeated(R"({"a":)", most / 5)));
  CHECK(is_error(
      200, R"({"locations":[{"url":"a:1"}],"x":)" + repeated("[", 20) + repeated("]", 20) + "}"));
  CHECK(state_of(200, R"({"locations":[{"url":"a:1","x":[[]]}]})") == State::kKnown);
}

TEST_CASE("numbers beyond any type are no way in") {
  CHECK(is_error(200, R"({"locations":[{"url":"a:1","grpcPort":1e999}]})"));
  CHECK(urls_of(R"([{"url":"a:1","grpcPort":123456789012345678901234567890}])") == "a:1");
  CHECK(urls_of(R"([{"url":"a:1","grpcPort":-9223372036854775809}])") == "a:1");
}

TEST_CASE("a great many servers are read once each") {
  std::string locations = "[";
  for (int i = 0; i < 40000; ++i) {
    locations += R"({"url":"s)" + std::to_string(i % 20000) + R"(:1"},)";
  }
  const auto answer = parse_lookup(200, R"({"locations":)" + locations + "{}]}");
  REQUIRE(answer);
  CHECK(answer->locations.size() == 20000);
}
