#include "tools/control_client.h"

#include <curl/curl.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace kelp {
namespace {

constexpr long kTimeoutMs = 5000;
constexpr long kForeignTimeoutMs = 2000;
constexpr std::size_t kMaxAnswerBytes = 64u << 20;

std::size_t append(char* bytes, std::size_t size, std::size_t count, void* body) {
  auto& text = *static_cast<std::string*>(body);
  if (text.size() + size * count > kMaxAnswerBytes) return 0;  // curl ends the transfer
  text.append(bytes, size * count);
  return size * count;
}

tl::unexpected<Failure> no_daemon(const std::string& socket, int os_error) {
  const std::string what = "cannot reach kelpd at " + socket + ": ";
  switch (os_error) {
    case ENOENT:
    case ENOTDIR:
      return fail(ExitCode::kNoDaemon,
                  what + "there is no such socket; is kelpd running, with this --run-dir?");
    case ECONNREFUSED:
      return fail(ExitCode::kNoDaemon, what + "nobody answers there; kelpd has ended, start it");
    case EACCES:
      return fail(ExitCode::kNoDaemon,
                  what + "permission denied; the socket's group (client.socket_group) may connect");
    default:
      return fail(ExitCode::kNoDaemon, what + std::strerror(os_error));
  }
}

tl::unexpected<Failure> explain(CURL* curl, CURLcode code, const std::string& socket) {
  long os_error = 0;
  curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
  if (code == CURLE_COULDNT_CONNECT && os_error != 0) {
    return no_daemon(socket, static_cast<int>(os_error));
  }
  const std::string what = "kelpd at " + socket;
  if (code == CURLE_OPERATION_TIMEDOUT) {
    return fail(ExitCode::kTimeout, what + " does not answer within 5 s");
  }
  if (code == CURLE_WRITE_ERROR) return fail(ExitCode::kOther, what + " answers more than 64 MiB");
  return fail(ExitCode::kOther, what + " does not answer as HTTP: " + curl_easy_strerror(code));
}

}  // namespace

std::string control_socket_path(const CommonOptions& common) {
  if (common.run_dir) return *common.run_dir + "/control.sock";
  const char* from_environment = ::secure_getenv("KELP_RUN_DIR");
  const bool named = from_environment != nullptr && *from_environment != '\0';
  return std::string(named ? from_environment : "/run/kelp") + "/control.sock";
}

namespace {

Outcome<ControlAnswer> ask(const CommonOptions& common, const std::string& path, bool post) {
  const std::string socket = control_socket_path(common);
  if (socket.size() >= sizeof(sockaddr_un::sun_path)) {
    return fail(ExitCode::kUsage, "a socket path holds at most 107 bytes, and " + socket + " has " +
                                      std::to_string(socket.size()) +
                                      ": choose a shorter --run-dir");
  }
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 &curl_easy_cleanup);
  if (!curl) return fail(ExitCode::kOther, "libcurl does not start: out of memory?");
  ControlAnswer answer;
  const std::string url = "http://kelpd" + path;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  if (post) {
    curl_easy_setopt(curl.get(), CURLOPT_POST, 1L);
    curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, 0L);
  }
  curl_easy_setopt(curl.get(), CURLOPT_UNIX_SOCKET_PATH, socket.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");  // $http_proxy has no say in this
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, kTimeoutMs);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &answer.body);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) return explain(curl.get(), code, socket);
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &answer.status);
  return answer;
}

}  // namespace

Outcome<ControlAnswer> control_get(const CommonOptions& common, const std::string& path) {
  return ask(common, path, false);
}

Outcome<ControlAnswer> control_post(const CommonOptions& common, const std::string& path) {
  return ask(common, path, true);
}

Outcome<long> http_status(const std::string& url) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 &curl_easy_cleanup);
  if (!curl) return fail(ExitCode::kOther, "libcurl does not start: out of memory?");
  std::string body;
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, kForeignTimeoutMs);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) return fail(ExitCode::kOther, curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
}

}  // namespace kelp
