// The HTTP client over TLS, by a server of the test's own with a certificate made for it.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <thread>

#include "control/http_client.h"
#include "support/scripted_http.h"
#include "temp_dir.h"

using namespace kelp;
using kelp::test::BoundPort;
using kelp::test::http_reply;

namespace {

template <auto function>
struct Free {
  template <class T>
  void operator()(T* what) const noexcept {
    function(what);
  }
};
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

Certificate make_certificate(EVP_PKEY* key) {
  Certificate made(X509_new());
  X509* const x = made.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600);
  X509_set_pubkey(x, key);
  X509_NAME* const name = X509_get_subject_name(x);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("kelp test"), -1, -1, 0);
  X509_set_issuer_name(x, name);
  for (const auto& [id, text] :
       {std::pair{NID_subject_alt_name, "IP:127.0.0.1"}, {NID_basic_constraints, "CA:TRUE"}}) {
    std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>> extension(
        X509V3_EXT_conf_nid(nullptr, nullptr, id, text));
    X509_add_ext(x, extension.get(), -1);
  }
  X509_sign(x, key, EVP_sha256());
  return made;
}

/// Answers "GET /N" with N bytes, one connection after the other.
class TlsServer {
 public:
  explicit TlsServer(const std::string& ca_file) {
    SSL_CTX_use_certificate(context_.get(), certificate_.get());
    SSL_CTX_use_PrivateKey(context_.get(), key_.get());
    const std::unique_ptr<std::FILE, Free<std::fclose>> file(std::fopen(ca_file.c_str(), "w"));
    PEM_write_X509(file.get(), certificate_.get());
    REQUIRE(::listen(bound_.fd.get(), 16) == 0);
    thread_ = std::thread([this] { serve_all(); });
  }
  ~TlsServer() {
    ending_.store(true);
    ::shutdown(bound_.fd.get(), SHUT_RDWR);
    const int peer = peer_.load();
    if (peer >= 0) ::shutdown(peer, SHUT_RDWR);
    thread_.join();
  }
  std::string url() const { return "https://" + bound_.address(); }
  int connections() const { return connections_.load(); }

 private:
  void serve_all() {
    while (!ending_.load()) {
      UniqueFd socket(::accept4(bound_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket) continue;
      peer_.store(socket.get());
      serve(socket.get());
      peer_.store(-1);
    }
  }
  void serve(int socket) {
    const std::unique_ptr<SSL, Free<SSL_free>> ssl(SSL_new(context_.get()));
    SSL_set_fd(ssl.get(), socket);
    if (SSL_accept(ssl.get()) != 1) return;
    ++connections_;
    std::string asked;
    char part[4096];
    for (int got = 0; (got = SSL_read(ssl.get(), part, sizeof part)) > 0;) {
      asked.append(part, static_cast<std::size_t>(got));
      if (!asked.ends_with("\r\n\r\n")) continue;
      const std::size_t bytes = std::stoul(asked.substr(asked.find('/') + 1));
      const std::string reply = http_reply(200, {}, std::string(bytes, 'x'));
      if (SSL_write(ssl.get(), reply.data(), static_cast<int>(reply.size())) <= 0) return;
      asked.clear();
    }
  }

  BoundPort bound_;
  Key key_{EVP_EC_gen("P-256")};
  Certificate certificate_{make_certificate(key_.get())};
  std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>> context_{SSL_CTX_new(TLS_server_method())};
  std::atomic<bool> ending_{false};
  std::atomic<int> peer_{-1};
  std::atomic<int> connections_{0};
  std::thread thread_;
};

HttpAnswer ask(HttpClient& client, const std::string& url) {
  std::optional<HttpAnswer> got;
  client.ask({.url = url,
              .deadline = std::chrono::seconds(20),
              .max_body_bytes = 64 << 20,
              .connect_deadline = std::chrono::seconds(20)},
             [&](HttpAnswer answer) { got = std::move(answer); });
  while (!got) {
    pollfd source{client.epoll_fd(), POLLIN, 0};
    const auto wait = client.timeout().value_or(std::chrono::milliseconds(10));
    ::poll(&source, 1, static_cast<int>(wait.count()));
    client.run();
  }
  return *got;
}

}  // namespace

TEST_CASE("https: answers of all sizes, over one connection, of who is trusted") {
  const test::TempDir dir;
  TlsServer server(dir.path() + "/ca.pem");
  HttpClient client = HttpClient::create({.ca_file = dir.path() + "/ca.pem"}).value();
  for (const std::size_t bytes : {0U, 1U, 4096U, 16'384U, 100'000U, 3'000'000U, 10U}) {
    CAPTURE(bytes);
    const HttpAnswer answer = ask(client, server.url() + "/" + std::to_string(bytes));
    CHECK(answer.error == "");
    CHECK(answer.status == 200);
    CHECK((answer.body == std::string(bytes, 'x')));
  }
  CHECK(server.connections() == 1);
}

TEST_CASE("https: who is not trusted is not asked, and that is no silence") {
  const test::TempDir dir;
  TlsServer server(dir.path() + "/ca.pem");
  TlsServer other(dir.path() + "/other.pem");
  HttpClient client = HttpClient::create({.ca_file = dir.path() + "/other.pem"}).value();
  const HttpAnswer answer = ask(client, server.url() + "/10");
  CHECK(answer.status == 0);
  CHECK(answer.reached);
  CHECK_FALSE(answer.timed_out);
  CHECK_FALSE(answer.error.empty());
  CHECK(ask(client, other.url() + "/10").status == 200);
}

TEST_CASE("https: a server that speaks plain HTTP is an error") {
  // What it does not understand is a bad request, at once.
  BoundPort plain;
  REQUIRE(::listen(plain.fd.get(), 1) == 0);
  std::thread server([&] {
    pollfd source{plain.fd.get(), POLLIN, 0};
    if (::poll(&source, 1, 20'000) != 1) return;
    const UniqueFd socket(::accept4(plain.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    source.fd = socket.get();
    char bytes[4096];
    if (::poll(&source, 1, 20'000) != 1 || ::recv(socket.get(), bytes, sizeof bytes, 0) <= 0) {
      return;
    }
    const std::string reply = http_reply(400, {}, "x");
    ::send(socket.get(), reply.data(), reply.size(), MSG_NOSIGNAL);
  });
  HttpClient client = HttpClient::create().value();
  const HttpAnswer answer = ask(client, "https://" + plain.address() + "/10");
  server.join();
  CHECK(answer.status == 0);
  CHECK(answer.reached);
  CHECK_FALSE(answer.timed_out);
  CHECK_FALSE(answer.error.empty());
}
