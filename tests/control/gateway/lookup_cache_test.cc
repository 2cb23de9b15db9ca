#include "control/gateway/lookup_cache.h"

#include <doctest/doctest.h>

#include <deque>
#include <utility>

using kelp::HttpAnswer;
using kelp::HttpClient;
using kelp::LookupCache;
using kelp::VolumeId;
using State = LookupCache::State;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

HttpAnswer at(const std::string& url) {
  return {200, R"({"volumeOrFileId":"3","locations":[{"url":")" + url + R"("}]})", ""};
}
HttpAnswer unknown() {
  return {404, R"({"volumeOrFileId":"3","error":"volume id 3 not found"})", ""};
}
HttpAnswer refused() {
  return {0, "", "Connection refused"};
}

/// Masters that answer when and what the test says, and a clock that goes on when told to.
struct Scene {
  struct Question {
    HttpClient::Request request;
    std::function<void(HttpAnswer)> done;
  };
  LookupCache::Options options{.masters = {"m0:9333", "m1:9333"}};
  LookupCache::Clock::time_point now{std::chrono::hours(1)};
  std::deque<Question> questions;             // under way
  std::function<HttpAnswer()> answer_inside;  // set: nothing is under way, ask() answers itself
  std::vector<LookupCache::Answer> answers;   // what find() has told, in order
  std::optional<LookupCache> cache;

  Scene() { restart(); }
  void restart() {
    cache.emplace(options,
                  [this](HttpClient::Request request, std::function<void(HttpAnswer)> done) {
                    if (answer_inside) return done(answer_inside());
                    questions.push_back({std::move(request), std::move(done)});
                  });
  }

  void find(std::uint32_t volume = 3) { find_since(LookupCache::Clock::time_point::min(), volume); }
  void find_since(LookupCache::Clock::time_point not_before, std::uint32_t volume = 3) {
    cache->find(VolumeId{volume}, now, not_before,
                [this](const LookupCache::Answer& answer) { answers.push_back(answer); });
  }
  /// Answers the oldest question.
  void answer(HttpAnswer with) {
    REQUIRE_FALSE(questions.empty());
    const auto done = std::move(questions.front().done);
    questions.pop_front();
    done(std::move(with));
  }
  /// The master that the oldest question went to.
  std::string asked() const {
    REQUIRE_FALSE(questions.empty());
    const std::string& url = questions.front().request.url;
    return url.substr(7, url.find(':', 7) - 7);
  }
  std::string last() const {
    REQUIRE_FALSE(answers.empty());
    const LookupCache::Answer& answer = answers.back();
    if (answer.state == State::kUnknownVolume) return "unknown";
    if (answer.state == State::kNoMaster) return "no master";
    REQUIRE(answer.locations.size() == 1);
    return answer.locations[0].url;
  }
  void know(const std::string& url, std::uint32_t volume = 3) {
    find(volume);
    answer(at(url));
  }
};

}  // namespace

TEST_CASE("a volume is asked for once, and known from then on") {
  Scene scene;
  scene.find();
  CHECK(scene.answers.empty());
  REQUIRE(scene.questions.size() == 1);
  const HttpClient::Request& request = scene.questions.front().request;
  CHECK(request.url == "http://m0:9333/dir/lookup?volumeId=3");
  CHECK(request.method == HttpClient::Method::kGet);
  CHECK(request.deadline == seconds(1));
  CHECK(request.max_body_bytes == kelp::kMaxLookupBytes);
  scene.answer(at("a:1"));
  CHECK(scene.last() == "a:1");
  CHECK(scene.answers[0].asked == scene.now);
  scene.now += milliseconds(4999);
  scene.find();
  CHECK(scene.answers.size() == 2);
  CHECK(scene.questions.empty());
  CHECK(scene.cache->lookups() == 1);
  CHECK(scene.cache->coalesced() == 0);
}

TEST_CASE("reads that come while a question is under way share its answer") {
  Scene scene;
  for (int i = 0; i < 100; ++i) scene.find();
  scene.find(4);
  CHECK(scene.questions.size() == 2);
  CHECK(scene.cache->coalesced() == 99);
  scene.answer(at("a:1"));
  CHECK(scene.answers.size() == 100);
  scene.answer(at("b:1"));
  CHECK(scene.answers.size() == 101);
  CHECK(scene.last() == "b:1");
  CHECK(scene.cache->lookups() == 2);
}

TEST_CASE("in the second half of its time an answer serves on and is asked again, once") {
  Scene scene;
  scene.know("a:1");
  scene.now += seconds(5);
  for (int i = 0; i < 5; ++i) scene.find();
  CHECK(scene.answers.size() == 6);
  CHECK(scene.questions.size() == 1);
  CHECK(scene.last() == "a:1");
  scene.answer(at("b:1"));
  CHECK(scene.answers.size() == 6);
  scene.now += seconds(4);
  scene.find();
  CHECK(scene.last() == "b:1");
  CHECK(scene.questions.empty());
}

TEST_CASE("an answer beyond its time is waited for again") {
  Scene scene;
  scene.know("a:1");
  scene.now += seconds(10);
  scene.find();
  CHECK(scene.answers.size() == 1);
  scene.answer(at("b:1"));
  CHECK(scene.last() == "b:1");
}

TEST_CASE("no such volume is believed for a second") {
  Scene scene;
  scene.find();
  scene.answer(unknown());
  scene.answer(unknown());
  CHECK(scene.last() == "unknown");
  CHECK(scene.answers[0].error == "volume id 3 not found");
  scene.now += milliseconds(999);
  scene.find();
  CHECK(scene.answers.size() == 2);
  CHECK(scene.questions.empty());
  scene.now += milliseconds(1);
  scene.find();
  CHECK(scene.answers.size() == 2);
  scene.answer(at("a:1"));
  CHECK(scene.last() == "a:1");
}

TEST_CASE(
    "one master that knows a volume outweighs another that does not, and is asked first then") {
  Scene scene;
  scene.find();
  CHECK(scene.asked() == "m0");
  scene.answer(unknown());
  CHECK(scene.answers.empty());
  CHECK(scene.asked() == "m1");
  scene.answer(at("a:1"));
  CHECK(scene.last() == "a:1");
  scene.find(4);
  CHECK(scene.asked() == "m1");
}

TEST_CASE("no such volume is believed of one master when the others do not answer") {
  Scene scene;
  SUBCASE("it is asked first") {
    scene.find();
    scene.answer(unknown());
    scene.answer(refused());
  }
  SUBCASE("it is asked last") {
    scene.find();
    scene.answer(refused());
    scene.answer(unknown());
  }
  CHECK(scene.last() == "unknown");
}

TEST_CASE("a master that fails is passed over, and asked last from then on") {
  for (const HttpAnswer& failure :
       {refused(), HttpAnswer{503, "warming up", ""}, HttpAnswer{500, "{}", ""},
        HttpAnswer{200, "<html>", ""}, HttpAnswer{404, "404 page not found", ""},
        HttpAnswer{307, "", ""}, HttpAnswer{200, R"({"locations":[{"url":"?"}]})", ""}}) {
    Scene scene;
    scene.find();
    CHECK(scene.asked() == "m0");
    scene.answer(failure);
    CHECK(scene.answers.empty());
    CHECK(scene.asked() == "m1");
    scene.answer(at("a:1"));
    CHECK(scene.last() == "a:1");
    scene.find(4);
    CHECK(scene.asked() == "m1");
    CHECK(scene.cache->lookups() == 3);
  }
}

TEST_CASE("a flight asks each master at most once") {
  Scene scene;
  scene.options.masters = {"m0:1", "m1:1", "m2:1"};
  scene.restart();
  scene.find();
  scene.find(4);
  for (int i = 0; i < 6; ++i) scene.answer(refused());
  CHECK(scene.questions.empty());
  CHECK(scene.answers.size() == 2);
  CHECK(scene.cache->lookups() == 6);
}

TEST_CASE("when no master answers and nothing is known, the error says what each of them did") {
  Scene scene;
  scene.find();
  scene.answer(refused());
  scene.answer({503, "", ""});
  CHECK(scene.last() == "no master");
  CHECK(scene.answers[0].locations.empty());
  CHECK(
      scene.answers[0].error ==
      "no master answers: m0:9333: Connection refused; m1:9333: /dir/lookup was answered with 503");
  // They are left alone for a second, and then asked again.
  scene.now += milliseconds(999);
  scene.find();
  CHECK(scene.answers.size() == 2);
  scene.now += milliseconds(1);
  scene.find();
  scene.answer(at("a:1"));
  CHECK(scene.last() == "a:1");
}

TEST_CASE("when no master answers, what was known serves on, however old") {
  Scene scene;
  scene.know("a:1");
  const auto asked = scene.now;
  scene.now += std::chrono::hours(100);
  scene.find();
  scene.answer(refused());
  scene.answer(refused());
  CHECK(scene.last() == "a:1");
  CHECK(scene.answers.back().asked == asked);
  // Nobody waits for the masters a second time, but they are asked again behind the answers.
  scene.find();
  CHECK(scene.answers.size() == 3);
  CHECK(scene.questions.empty());
  scene.now += seconds(1);
  scene.find();
  scene.find();
  CHECK(scene.answers.size() == 5);
  REQUIRE(scene.questions.size() == 1);
  scene.answer(at("b:1"));
  scene.find();
  CHECK(scene.last() == "b:1");
  CHECK(scene.answers.size() == 6);
}

TEST_CASE("a failure long ago is no reason to serve what is old without asking") {
  Scene scene;
  scene.know("a:1");
  scene.now += seconds(20);
  scene.find();
  scene.answer(refused());
  scene.answer(refused());
  scene.now += seconds(10);
  scene.find();
  CHECK(scene.answers.size() == 2);
  scene.answer(at("b:1"));
  CHECK(scene.last() == "b:1");
}

TEST_CASE("a refresh that fails leaves the masters alone for a second") {
  Scene scene;
  scene.know("a:1");
  scene.now += seconds(6);
  scene.find();
  scene.answer(refused());
  scene.answer(refused());
  scene.now += milliseconds(999);
  scene.find();
  CHECK(scene.questions.empty());
  scene.now += milliseconds(1);
  scene.find();
  CHECK(scene.questions.size() == 1);
  CHECK(scene.answers.size() == 4);
}

TEST_CASE("no such volume, said long ago, is not what serves on") {
  Scene scene;
  scene.options.masters = {"m0:1"};
  scene.restart();
  scene.find();
  scene.answer(unknown());
  scene.now += seconds(2);
  scene.find();
  scene.answer(refused());
  CHECK(scene.last() == "no master");
}

TEST_CASE("what was asked before the caller's time is asked again, however young") {
  Scene scene;
  scene.know("a:1");
  scene.find_since(scene.now);
  CHECK(scene.answers.size() == 2);
  scene.now += milliseconds(1);
  scene.find_since(scene.now);
  CHECK(scene.answers.size() == 2);
  scene.answer(at("b:1"));
  CHECK(scene.last() == "b:1");
  CHECK(scene.answers.back().asked == scene.now);
}

TEST_CASE("a flight that began before the caller's time is waited for, and another one follows") {
  Scene scene;
  scene.find();
  scene.now += milliseconds(10);
  scene.find_since(scene.now);
  scene.find_since(scene.now + milliseconds(5));
  scene.find();
  CHECK(scene.questions.size() == 1);
  scene.answer(at("a:1"));
  CHECK(scene.answers.size() == 2);
  REQUIRE(scene.questions.size() == 1);
  scene.now += milliseconds(10);
  scene.answer(at("b:1"));
  CHECK(scene.answers.size() == 4);
  CHECK(scene.last() == "b:1");
  CHECK(scene.questions.empty());
}

TEST_CASE("when no master answers, a caller gets the old answer though it wanted a younger one") {
  Scene scene;
  scene.know("a:1");
  scene.now += milliseconds(10);
  scene.find_since(scene.now);
  scene.answer(refused());
  scene.answer(refused());
  CHECK(scene.last() == "a:1");
  CHECK(scene.answers.size() == 2);
  scene.find_since(scene.now);
  CHECK(scene.answers.size() == 3);  // asked in vain since
  scene.now += milliseconds(1);
  scene.find_since(scene.now);
  CHECK(scene.answers.size() == 3);
  CHECK(scene.questions.size() == 1);
}

TEST_CASE("the volume that was unused longest is forgotten, never one that is waited for") {
  Scene scene;
  scene.options.max_volumes = 2;
  scene.restart();
  scene.know("a:1", 1);
  scene.know("b:1", 2);
  scene.find(1);
  scene.know("c:1", 3);  // 2 goes
  CHECK(scene.cache->volumes(scene.now).size() == 2);
  scene.find(1);
  CHECK(scene.last() == "a:1");
  CHECK(scene.questions.empty());
  scene.find(2);  // 3 goes
  scene.find(4);  // 1 goes
  scene.find(5);  // all the others are waited for
  CHECK(scene.cache->volumes(scene.now).size() == 3);
  const std::size_t before = scene.answers.size();
  for (int i = 0; i < 3; ++i) scene.answer(at("d:1"));
  CHECK(scene.answers.size() == before + 3);
  const auto left = scene.cache->volumes(scene.now);
  REQUIRE(left.size() == 2);
  CHECK(left[0].id == 4);
  CHECK(left[1].id == 5);
}

TEST_CASE("a cache that may remember nothing answers all the same") {
  Scene scene;
  scene.options.max_volumes = 0;
  scene.restart();
  scene.know("a:1");
  CHECK(scene.last() == "a:1");
  CHECK(scene.cache->volumes(scene.now).empty());
  scene.answer_inside = [] { return at("b:1"); };
  scene.find();
  CHECK(scene.last() == "b:1");
}

TEST_CASE("masters that answer inside the question are understood") {
  Scene scene;
  scene.options.max_volumes = 1;
  scene.restart();
  scene.answer_inside = [] { return at("a:1"); };
  scene.find(1);
  scene.find(2);
  CHECK(scene.answers.size() == 2);
  scene.now += seconds(6);
  scene.answer_inside = [] { return at("b:1"); };
  scene.find(2);  // the old one, since the new one is not what was waited for
  CHECK(scene.last() == "a:1");
  scene.find(2);
  CHECK(scene.last() == "b:1");
  scene.answer_inside = refused;
  scene.find(3);
  CHECK(scene.last() == "no master");
  scene.answer_inside = unknown;
  scene.find(4);
  CHECK(scene.last() == "unknown");
}

TEST_CASE("who is answered may ask again from inside the answer") {
  Scene scene;
  scene.options.max_volumes = 1;
  scene.restart();
  std::vector<std::string> told;
  std::function<void(const LookupCache::Answer&)> again = [&](const LookupCache::Answer& answer) {
    told.push_back(answer.locations.empty() ? answer.error : answer.locations[0].url);
    if (told.size() < 20) {
      // Another volume each time: the one that is being answered is forgotten meanwhile.
      scene.cache->find(VolumeId{static_cast<std::uint32_t>(told.size())}, scene.now, scene.now,
                        again);
    }
  };
  SUBCASE("masters answer later") {
    scene.cache->find(VolumeId{0}, scene.now, scene.now, again);
    scene.cache->find(VolumeId{0}, scene.now, scene.now, again);
    while (!scene.questions.empty()) scene.answer(at("a:1"));
  }
  SUBCASE("masters answer at once") {
    scene.answer_inside = [] { return at("a:1"); };
    scene.cache->find(VolumeId{0}, scene.now, scene.now, again);
  }
  CHECK(told.size() >= 20);
  CHECK(told.back() == "a:1");
}

TEST_CASE("who is answered may ask for something younger from inside the answer") {
  Scene scene;
  std::vector<std::string> told;
  scene.cache->find(VolumeId{3}, scene.now, scene.now, [&](const LookupCache::Answer& first) {
    told.push_back(first.locations.at(0).url);
    scene.now += milliseconds(1);
    scene.find_since(scene.now);
    told.push_back(first.locations.at(0).url);  // the answer outlives what replaces it
  });
  scene.answer_inside = [] { return at("b:1"); };
  scene.answer(at("a:1"));
  CHECK(told == std::vector<std::string>{"a:1", "a:1"});
  CHECK(scene.last() == "b:1");
}

TEST_CASE("an answer that comes twice counts once") {
  Scene scene;
  scene.find();
  const auto done = scene.questions.front().done;
  scene.answer(refused());
  done(at("late:1"));
  CHECK(scene.answers.empty());
  scene.answer(at("a:1"));
  done(at("late:1"));
  CHECK(scene.last() == "a:1");
  CHECK(scene.answers.size() == 1);
}

TEST_CASE("without a master every look-up fails at once") {
  Scene scene;
  scene.options.masters = {};
  scene.restart();
  scene.find();
  CHECK(scene.last() == "no master");
  CHECK(scene.answers[0].error == "no master is configured");
}

TEST_CASE("the reports tell of masters and volumes, by id") {
  Scene scene;
  scene.know("a:1", 9);
  scene.now += seconds(2);
  scene.find(7);
  scene.answer(unknown());
  scene.answer(refused());
  scene.find(8);
  const auto volumes = scene.cache->volumes(scene.now + milliseconds(500));
  REQUIRE(volumes.size() == 3);
  CHECK(volumes[0].id == 7);
  CHECK_FALSE(volumes[0].known);
  CHECK(volumes[0].error == "volume id 3 not found");
  CHECK(volumes[0].age_s == doctest::Approx(0.5));
  CHECK(volumes[1].id == 8);
  CHECK_FALSE(volumes[1].known);
  CHECK_FALSE(volumes[1].error.empty());
  CHECK(volumes[2].id == 9);
  CHECK(volumes[2].known);
  CHECK(volumes[2].error.empty());
  CHECK(volumes[2].age_s == doctest::Approx(2.5));
  CHECK(volumes[2].locations.at(0).url == "a:1");
  const auto masters = scene.cache->masters();
  REQUIRE(masters.size() == 2);
  CHECK(masters[0].url == "m0:9333");
  CHECK(masters[0].asked == 3);
  CHECK(masters[0].failures == 0);
  CHECK(masters[0].last_answer);
  CHECK(masters[1].asked == 1);
  CHECK(masters[1].failures == 1);
  CHECK(masters[1].failure == "Connection refused");
}
