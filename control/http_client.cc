#include "control/http_client.h"

#include <curl/curl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <utility>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

struct EasyCleanup {
  void operator()(CURL* handle) const noexcept { ::curl_easy_cleanup(handle); }
};
struct MultiCleanup {
  void operator()(CURLM* handle) const noexcept { ::curl_multi_cleanup(handle); }
};

/// One request under way. Stays where it is: libcurl holds its address.
struct Transfer {
  std::unique_ptr<CURL, EasyCleanup> handle;
  HttpClient::Request request;
  std::function<void(HttpAnswer)> done;
  std::string body;
};

std::size_t keep_body(char* bytes, std::size_t size, std::size_t count, void* context) {
  auto* transfer = static_cast<Transfer*>(context);
  const std::size_t length = size * count;
  if (length > transfer->request.max_body_bytes - transfer->body.size()) return 0;  // ends it
  transfer->body.append(bytes, length);
  return length;
}

void prepare(Transfer& transfer) {
  CURL* handle = transfer.handle.get();
  ::curl_easy_setopt(handle, CURLOPT_URL, transfer.request.url.c_str());
  ::curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(handle, CURLOPT_PROXY, "");  // the environment is no source of settings
  ::curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(handle, CURLOPT_NOBODY,
                     transfer.request.method == HttpClient::Method::kHead ? 1L : 0L);
  ::curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(transfer.request.deadline.count()));
  ::curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, keep_body);
  ::curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  ::curl_easy_setopt(handle, CURLOPT_PRIVATE, &transfer);
}

}  // namespace

struct HttpClient::State {
  UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  std::map<CURL*, std::unique_ptr<Transfer>> transfers;
  std::optional<Clock::time_point> due;
  std::unique_ptr<CURLM, MultiCleanup> multi{::curl_multi_init()};  // goes before what it uses

  ~State() {
    for (auto& [handle, transfer] : transfers) ::curl_multi_remove_handle(multi.get(), handle);
  }

  static int watch_socket(CURL*, curl_socket_t socket, int what, void* context, void* known) {
    auto* state = static_cast<State*>(context);
    if (what == CURL_POLL_REMOVE) {
      ::epoll_ctl(state->epoll.get(), EPOLL_CTL_DEL, socket, nullptr);
      return 0;
    }
    epoll_event event{};
    event.data.fd = socket;
    if ((what & CURL_POLL_IN) != 0) event.events |= EPOLLIN;
    if ((what & CURL_POLL_OUT) != 0) event.events |= EPOLLOUT;
    const int operation = known == nullptr ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (::epoll_ctl(state->epoll.get(), operation, socket, &event) != 0) return -1;
    ::curl_multi_assign(state->multi.get(), socket, state);  // any pointer: "known" from now on
    return 0;
  }

  static int set_timer(CURLM*, long timeout_ms, void* context) {
    auto* state = static_cast<State*>(context);
    state->due.reset();
    if (timeout_ms >= 0) state->due = Clock::now() + std::chrono::milliseconds(timeout_ms);
    return 0;
  }

  void take_finished() {
    std::vector<std::pair<std::unique_ptr<Transfer>, HttpAnswer>> finished;
    int left = 0;
    while (const CURLMsg* message = ::curl_multi_info_read(multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      CURL* const handle = message->easy_handle;
      const CURLcode code = message->data.result;  // `message` ends with the removal
      const auto found = transfers.find(handle);
      std::unique_ptr<Transfer> transfer = std::move(found->second);
      transfers.erase(found);
      HttpAnswer answer;
      if (code == CURLE_OK) {
        long status = 0;
        ::curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
        answer.status = static_cast<int>(status);
        answer.body = std::move(transfer->body);
      } else {
        answer.error = ::curl_easy_strerror(code);
      }
      ::curl_multi_remove_handle(multi.get(), handle);
      finished.emplace_back(std::move(transfer), std::move(answer));
    }
    for (auto& [transfer, answer] : finished) transfer->done(std::move(answer));
  }
};

Result<HttpClient> HttpClient::create() {
  static const CURLcode initialised = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  auto state = std::make_unique<State>();
  if (initialised != CURLE_OK || state->multi == nullptr || !state->epoll) {
    return system_error("cannot set up libcurl");
  }
  CURLM* multi = state->multi.get();
  ::curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, State::watch_socket);
  ::curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, state.get());
  ::curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, State::set_timer);
  ::curl_multi_setopt(multi, CURLMOPT_TIMERDATA, state.get());
  return HttpClient(std::move(state));
}

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
HttpClient::~HttpClient() = default;

void HttpClient::ask(Request request, std::function<void(HttpAnswer)> done) {
  auto transfer = std::make_unique<Transfer>();
  transfer->handle.reset(::curl_easy_init());
  transfer->request = std::move(request);
  transfer->done = std::move(done);
  prepare(*transfer);
  CURL* const handle = transfer->handle.get();
  state_->transfers.emplace(handle, std::move(transfer));
  ::curl_multi_add_handle(state_->multi.get(), handle);
}

int HttpClient::epoll_fd() const noexcept {
  return state_->epoll.get();
}

void HttpClient::run() {
  std::array<epoll_event, 32> events;
  const int count =
      ::epoll_wait(state_->epoll.get(), events.data(), static_cast<int>(events.size()), 0);
  int running = 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    int what = 0;
    if ((event.events & EPOLLIN) != 0) what |= CURL_CSELECT_IN;
    if ((event.events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
    if ((event.events & (EPOLLERR | EPOLLHUP)) != 0) what |= CURL_CSELECT_ERR;
    ::curl_multi_socket_action(state_->multi.get(), event.data.fd, what, &running);
  }
  if (state_->due && Clock::now() >= *state_->due) {
    state_->due.reset();
    ::curl_multi_socket_action(state_->multi.get(), CURL_SOCKET_TIMEOUT, 0, &running);
  }
  state_->take_finished();
}

std::optional<std::chrono::milliseconds> HttpClient::timeout() const {
  if (!state_->due) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*state_->due - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

}  // namespace kelp
