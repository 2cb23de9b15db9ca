#include "dataplane/volume/gzip.h"

#include <doctest/doctest.h>

#include <string>

#include "support/gzip_writer.h"
#include "support/hex_bytes.h"
#include "support/inflate_turns.h"

using kelp::GzipInflater;
using kelp::test::append;
using kelp::test::Bytes;
using kelp::test::gzip_member;
using kelp::test::hex_bytes;
using kelp::test::inflate_all;
using kelp::test::Inflated;
using kelp::test::noise;
using kelp::test::sample;
using kelp::test::text_bytes;
using State = kelp::GzipInflater::State;

namespace {

void check_round_trip(const Bytes& plain, const Bytes& stored, std::size_t out_bytes) {
  CAPTURE(plain.size());
  CAPTURE(out_bytes);
  const Inflated all = inflate_all(stored, out_bytes);
  REQUIRE(all.state == State::kEnd);
  REQUIRE(all.bytes == plain);
}

}  // namespace

TEST_CASE("gzip is recognised by its first two bytes") {
  CHECK(kelp::looks_like_gzip(gzip_member({})));
  CHECK(kelp::looks_like_gzip(hex_bytes("1f8b")));
  CHECK_FALSE(kelp::looks_like_gzip({}));
  CHECK_FALSE(kelp::looks_like_gzip(hex_bytes("1f")));
  CHECK_FALSE(kelp::looks_like_gzip(hex_bytes("1f8c")));
  CHECK_FALSE(kelp::looks_like_gzip(text_bytes("hello")));
}

TEST_CASE("streams of every size come back, at every level") {
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{100}, std::size_t{4096},
        std::size_t{32767}, std::size_t{32768}, std::size_t{32769}, std::size_t{65536},
        std::size_t{65537}, std::size_t{1} << 20, (std::size_t{3} << 20) + 7}) {
    const Bytes plain = sample(length, length);
    for (const int level : {0, 1, 6, 9})
      check_round_trip(plain, gzip_member(plain, level), 1 << 20);
  }
}

TEST_CASE("incompressible and very compressible data come back") {
  const Bytes incompressible = noise(3 << 20, 1);
  check_round_trip(incompressible, gzip_member(incompressible), 1 << 20);
  const Bytes zeros(5 << 20);
  check_round_trip(zeros, gzip_member(zeros, 9), 1 << 20);
}

TEST_CASE("the size of the output turns does not matter, down to one byte") {
  const Bytes plain = sample(200'000, 8);
  const Bytes stored = gzip_member(plain);
  for (const std::size_t out_bytes :
       {1u, 2u, 3u, 7u, 64u, 1000u, 4096u, 65536u, 199'999u, 200'000u, 200'001u}) {
    check_round_trip(plain, stored, out_bytes);
  }
}

TEST_CASE("every concatenated member counts, empty ones too") {
  const Bytes first = sample(70'000, 9);
  const Bytes second = sample(100, 10);
  Bytes plain;
  Bytes stored;
  for (const Bytes& part : {first, Bytes{}, second, Bytes{}, first}) {
    append(plain, part);
    append(stored, gzip_member(part));
  }
  for (const std::size_t out_bytes : {1u, 100u, 70'000u, 1u << 20}) {
    check_round_trip(plain, stored, out_bytes);
  }
}

TEST_CASE("a stream of empty members only is empty") {
  Bytes stored;
  for (int i = 0; i < 30'000; ++i) append(stored, gzip_member({}));
  const Inflated all = inflate_all(stored, 100);
  CHECK(all.state == State::kEnd);
  CHECK(all.bytes.empty());
  CHECK(all.turns > 1);  // more input than one turn takes
}

TEST_CASE("optional header fields are skipped and the header's own checksum is verified") {
  const Bytes plain = sample(5'000, 11);
  std::string name = "a file name that a member may carry";
  std::string comment(3'000, 'c');
  Bytes extra = noise(60'000, 12);
  for (int fields = 0; fields < 16; ++fields) {
    CAPTURE(fields);
    gz_header header{};
    header.os = 3;
    if (fields & 1) header.name = reinterpret_cast<Bytef*>(name.data());
    if (fields & 2) header.comment = reinterpret_cast<Bytef*>(comment.data());
    if (fields & 4) {
      header.extra = reinterpret_cast<Bytef*>(extra.data());
      header.extra_len = static_cast<uInt>(extra.size());
    }
    header.hcrc = (fields & 8) != 0;
    Bytes big = gzip_member(plain, 6, &header);
    check_round_trip(plain, big, 333);
    if (header.hcrc) {
      big[4] ^= std::byte{1};  // the time stamp, which only the header checksum covers
      CHECK(inflate_all(big).state == State::kBroken);
    }
  }
}

TEST_CASE("a header longer than a turn is skipped too") {
  const Bytes plain = sample(1'000, 13);
  std::string comment(3 * GzipInflater::kTurnInputBytes, 'c');
  Bytes packed = gzip_member(plain);
  // The comment is spliced in by hand: gzip_member makes no room for one so long.
  Bytes stored(packed.begin(), packed.begin() + 10);
  stored[3] = std::byte{0x10};  // a comment follows
  append(stored, text_bytes(comment));
  stored.push_back(std::byte{0});
  stored.insert(stored.end(), packed.begin() + 10, packed.end());
  check_round_trip(plain, stored, 100);
}

TEST_CASE("a stream that is over stays over until the next reset") {
  GzipInflater inflater;
  Bytes out(100);
  CHECK(inflater.inflate(out).state == State::kBroken);  // never reset

  const Bytes good = gzip_member(text_bytes("hello"));
  const Bytes bad = text_bytes("not gzip");
  for (int round = 0; round < 3; ++round) {
    inflater.reset(good, {});
    auto turn = inflater.inflate(out);
    CHECK(turn.bytes_produced == 5);
    CHECK(turn.state == State::kEnd);
    turn = inflater.inflate(out);
    CHECK(turn.bytes_produced == 0);
    CHECK(turn.state == State::kEnd);

    inflater.reset(bad, {});
    CHECK(inflater.inflate(out).state == State::kBroken);
    CHECK(inflater.inflate(out).state == State::kBroken);

    inflater.reset(good, {.max_output_bytes = 4});
    CHECK(inflater.inflate(out).state == State::kTooLarge);
    CHECK(inflater.inflate(out).state == State::kTooLarge);
  }
}

TEST_CASE("a needle abandoned half-way leaves nothing in the next") {
  GzipInflater inflater;
  const Bytes big_plain = sample(300'000, 21);
  const Bytes big = gzip_member(big_plain);
  const Bytes small_plain = sample(100, 22);
  const Bytes small = gzip_member(small_plain);
  Bytes out(1000);
  for (int turns = 0; turns < 100; ++turns) {
    inflater.reset(big, {});
    for (int i = 0; i < turns; ++i) REQUIRE(inflater.inflate(out).state == State::kMore);
    const Inflated all = inflate_all(inflater, small);
    REQUIRE(all.state == State::kEnd);
    REQUIRE(all.bytes == small_plain);
  }
}

TEST_CASE("an inflater can be moved while its stream is open") {
  const Bytes plain = sample(5'000, 23);
  const Bytes stored = gzip_member(plain);
  GzipInflater first;
  first.reset(stored, {});
  Bytes out(10'000);
  const auto head = first.inflate(std::span(out).first(1'000));
  GzipInflater second = std::move(first);
  const auto tail = second.inflate(std::span(out).subspan(head.bytes_produced));
  CHECK(tail.state == State::kEnd);
  CHECK(head.bytes_produced + tail.bytes_produced == plain.size());
  CHECK(std::equal(plain.begin(), plain.end(), out.begin()));
}
