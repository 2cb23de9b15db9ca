#include "control/gateway/server_address.h"

#include <doctest/doctest.h>

#include <algorithm>

using kelp::parse_server_address;
using kelp::ServerAddress;

namespace {

std::string error_of(std::string_view text) {
  const auto address = parse_server_address(text);
  return address ? "taken as " + address->text() : address.error().what;
}

bool is_refused(std::string_view text) {
  return !parse_server_address(text).has_value();
}

std::string text_of(std::string_view text) {
  const auto address = parse_server_address(text);
  return address ? address->text() : address.error().what;
}

}  // namespace

TEST_CASE("a server address is a host and a port, with a scheme and a slash or without") {
  CHECK(*parse_server_address("10.0.0.1:8080") == ServerAddress{"10.0.0.1", 8080});
  CHECK(*parse_server_address("http://HOST:80/") == ServerAddress{"host", 80});
  CHECK(*parse_server_address("https://a.B-c.example:65535") ==
        ServerAddress{"a.b-c.example", 65535});
  CHECK(*parse_server_address("stack_volume_1:1/") == ServerAddress{"stack_volume_1", 1});
}

TEST_CASE("an IPv6 address stands in brackets, and goes without a zone") {
  CHECK(*parse_server_address("[::1]:80") == ServerAddress{"::1", 80});
  CHECK(*parse_server_address("http://[2001:DB8::A]:8080/") == ServerAddress{"2001:db8::a", 8080});
  CHECK(text_of("[::ffff:10.0.0.1]:8080.18080") == "[::ffff:10.0.0.1]:8080");
  for (const char* text :
       {"[::1%eth0]:80", "[::1%25eth0]:80", "::1:80", "[::1]", "[::1]80", "[]:80", "[::1]]:80",
        "[[::1]]:80", "[10.0.0.1]:80", "[name]:80", "[:::]:80", "[1:2:3:4:5:6:7:8:9]:80",
        "x[::1]:80", "[::1 ]:80", "[::1]:"}) {
    CHECK_MESSAGE(is_refused(text), text);
  }
}

TEST_CASE("the gRPC port that SeaweedFS adds is checked and left out") {
  CHECK(*parse_server_address("host:8080.18080") == ServerAddress{"host", 8080});
  for (const char* text : {"host:8080.", "host:8080.0", "host:8080.99999", "host:8080.18080.1",
                           "host:.18080", "host:8080.x", "host:8080.080"}) {
    CHECK_MESSAGE(is_refused(text), text);
  }
}

TEST_CASE("a port is a plain decimal number of 1 to 65535") {
  for (const char* text :
       {"host", "host:", "host:0", "host:00", "host:080", "host:65536", "host:99999", "host:-1",
        "host:+80", "host:0x50", "host:8e1", "host:80 ", "host: 80", "host:18446744073709551696"}) {
    CHECK_MESSAGE(is_refused(text), text);
  }
}

TEST_CASE("an address that would lead elsewhere is refused") {
  for (const char* text : {"file://x",
                           "file://x:80",
                           "ftp://host:80",
                           "HTTP://host:80",
                           "gopher://host:80",
                           "//host:80",
                           "http://a@b:1",
                           "a@b:1",
                           "http://a:b@c:1",
                           "http://169.254.169.254/latest",
                           "http://169.254.169.254:80/latest",
                           "host:80/path",
                           "host:80//",
                           "/host:80",
                           "host:80?x",
                           "host:80/?x",
                           "host:80#x",
                           "host:80\\",
                           "host\\@evil:80",
                           "http://http://host:80",
                           "http:/host:80",
                           "http:host:80",
                           "host%2eexample:80",
                           "%31:80",
                           "host:80%2f",
                           "host:80,b:80",
                           "host;b:80",
                           "h\xc3\xb6st:80",
                           "host\xe3\x80\x82x:80",
                           "*:80",
                           "$(x):80",
                           "-host:80"}) {
    CHECK_MESSAGE(is_refused(text), text);
  }
}

TEST_CASE("blanks, control characters and NUL are nowhere in an address") {
  for (int byte = 0; byte <= 0x20; ++byte) {
    for (const std::size_t at : {0, 2, 4, 5, 7}) {
      std::string text = "host:80";
      text.insert(at, 1, static_cast<char>(byte));
      CHECK_MESSAGE(is_refused(text), byte, " at ", at);
    }
  }
  CHECK(is_refused("host:80\x7f"));
  CHECK(is_refused(std::string_view("[::1\0]:80", 9)));
}

TEST_CASE("an empty host, an empty label or a dot at an end is refused") {
  for (const char* text : {"", "/", ":", ":80", "http://", "http://:80", ".:80", "a..b:80", ".a:80",
                           "a.:80", "a.-b:80", "-:80"}) {
    CHECK_MESSAGE(is_refused(text), text);
  }
}

TEST_CASE("numbers that only look like a name stay text") {
  CHECK(text_of("0x7f.1:80") == "0x7f.1:80");
  CHECK(text_of("127.1:80") == "127.1:80");
  CHECK(*parse_server_address("127.1:80") != *parse_server_address("127.0.0.1:80"));
}

TEST_CASE("an address longer than 300 bytes, or a name longer than 253, is refused") {
  CHECK_FALSE(is_refused(std::string(253, 'a') + ":65535"));
  CHECK(is_refused(std::string(254, 'a') + ":80"));
  CHECK(is_refused(std::string(1 << 20, 'a') + ":80"));
  CHECK(error_of(std::string(400, 'a') + ":80").size() < 200);
}

TEST_CASE("the error names the text, and only printable parts of it") {
  CHECK(error_of("host:99999").find("\"host:99999\"") != std::string::npos);
  CHECK(error_of("host").find("no port") != std::string::npos);
  const std::string error = error_of("a\xff\n\x1b[31m:80");
  CHECK(error.find("\"a???[31m:80\"") != std::string::npos);
  CHECK(std::ranges::all_of(error, [](char c) { return c >= ' ' && c <= '~'; }));
}

TEST_CASE("the text of an address is the address") {
  for (const char* text : {"http://HOST:80/", "[::1]:80", "host:8080.18080", "10.0.0.1:1"}) {
    const auto address = parse_server_address(text);
    REQUIRE(address);
    CHECK(*parse_server_address(address->text()) == *address);
  }
}
