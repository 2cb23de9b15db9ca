#include "control/http_client.h"

#include <curl/curl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostIdle = 256;
constexpr long kKeptConnections = 512;

struct EasyCleanup {
  void operator()(CURL* handle) const noexcept { ::curl_easy_cleanup(handle); }
};
struct MultiCleanup {
  void operator()(CURLM* handle) const noexcept { ::curl_multi_cleanup(handle); }
};

struct ListFree {
  void operator()(curl_slist* list) const noexcept { ::curl_slist_free_all(list); }
};

/// One request under way. Stays where it is: libcurl holds its address.
struct Transfer final : HttpHead {
  std::unique_ptr<CURL, EasyCleanup> handle;
  HttpClient::Request request;
  std::function<void(HttpAnswer)> done;
  std::unique_ptr<curl_slist, ListFree> headers;
  std::string body;
  HttpClient::Ticket ticket = 0;
  bool begun = false;

  int status() const override {
    long code = 0;
    ::curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &code);
    return static_cast<int>(code);
  }
  std::string_view header(const char* name) const override {
    curl_header* found = nullptr;
    if (::curl_easy_header(handle.get(), name, 0, CURLH_HEADER, -1, &found) != CURLHE_OK) return {};
    // Of several the last one.
    if (found->amount > 1) {
      ::curl_easy_header(handle.get(), name, found->amount - 1, CURLH_HEADER, -1, &found);
    }
    return found->value;
  }

  bool begin() {
    if (begun) return true;
    begun = true;
    return request.sink->begin(*this);
  }
  bool take(std::span<const std::byte> part) {
    if (request.sink != nullptr) return begin() && request.sink->take(part);
    if (part.size() > request.max_body_bytes - body.size()) return false;
    body.append(reinterpret_cast<const char*>(part.data()), part.size());
    return true;
  }
};

std::size_t take_body(char* bytes, std::size_t size, std::size_t count, void* context) {
  const std::size_t length = size * count;
  const auto part = std::as_bytes(std::span(bytes, length));
  return static_cast<Transfer*>(context)->take(part) ? length : 0;  // 0 ends it
}

/// What is the same for all requests, once for a handle.
void equip(CURL* handle, const HttpClientOptions& options) {
  ::curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(handle, CURLOPT_PROXY, "");  // the environment is no source of settings
  ::curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  if (!options.ca_file.empty()) {
    ::curl_easy_setopt(handle, CURLOPT_CAINFO, options.ca_file.c_str());
  }
  ::curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, take_body);
}

void prepare(Transfer& transfer) {
  CURL* handle = transfer.handle.get();
  const HttpClient::Request& request = transfer.request;
  ::curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  // Either undoes the other.
  ::curl_easy_setopt(
      handle, request.method == HttpClient::Method::kHead ? CURLOPT_NOBODY : CURLOPT_HTTPGET, 1L);
  ::curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(request.deadline.count()));
  ::curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(request.connect_deadline.count()));
  for (const std::string& line : request.headers) {
    // Null: no memory, and the list is as it was.
    curl_slist* const longer = ::curl_slist_append(transfer.headers.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    static_cast<void>(transfer.headers.release());
    transfer.headers.reset(longer);
  }
  ::curl_easy_setopt(handle, CURLOPT_HTTPHEADER, transfer.headers.get());
  ::curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  ::curl_easy_setopt(handle, CURLOPT_PRIVATE, &transfer);
}

/// Whether a transfer that ended with `code` had a connection.
bool had_connection(CURL* handle, CURLcode code) {
  if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST) return false;
  curl_off_t connected_us = 0;
  ::curl_easy_getinfo(handle, CURLINFO_CONNECT_TIME_T, &connected_us);
  // Of one that was used again the connection took no time, but the request began.
  curl_off_t began_us = 0;
  ::curl_easy_getinfo(handle, CURLINFO_PRETRANSFER_TIME_T, &began_us);
  return connected_us > 0 || began_us > 0;
}

}  // namespace

struct HttpClient::State {
  HttpClientOptions options;
  UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  std::map<CURL*, std::unique_ptr<Transfer>> transfers;
  std::unordered_map<Ticket, CURL*> tickets;
  struct Watched {
    std::uint32_t events = 0;
    bool wanted = true;  // by libcurl
  };
  std::unordered_map<int, Watched> watched;  // what is in `epoll`
  std::array<epoll_event, 32> events{};
  int events_ready = 0;  // of wait(), for run()
  bool other_watched = false;
  std::vector<std::unique_ptr<CURL, EasyCleanup>> idle;  // to make one costs as much as a request
  Ticket last_ticket = 0;
  std::optional<Clock::time_point> due;
  std::unique_ptr<CURLM, MultiCleanup> multi{::curl_multi_init()};  // goes before what it uses

  ~State() {
    for (auto& [handle, transfer] : transfers) ::curl_multi_remove_handle(multi.get(), handle);
  }

  /// A socket stays in the epoll set while its connection is kept for the next request: libcurl
  /// takes it out and in again for each.
  static int watch_socket(CURL*, curl_socket_t socket, int what, void* context, void*) {
    auto* state = static_cast<State*>(context);
    if (what == CURL_POLL_REMOVE) {
      const auto found = state->watched.find(socket);
      if (found != state->watched.end()) found->second.wanted = false;
      return 0;
    }
    epoll_event event{};
    event.data.fd = socket;
    if ((what & CURL_POLL_IN) != 0) event.events |= EPOLLIN;
    if ((what & CURL_POLL_OUT) != 0) event.events |= EPOLLOUT;
    const auto [found, added] = state->watched.try_emplace(socket);
    found->second.wanted = true;
    if (!added && found->second.events == event.events) return 0;
    found->second.events = event.events;
    const int operation = added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    return ::epoll_ctl(state->epoll.get(), operation, socket, &event) == 0 ? 0 : -1;
  }

  static int close_socket(void* context, curl_socket_t socket) {
    static_cast<State*>(context)->watched.erase(socket);  // the kernel takes it out of the set
    return ::close(socket);
  }

  /// Something happened on a connection that is kept: it ends, and libcurl finds out when it wants
  /// to use it.
  void drop_unwanted(int socket) {
    const auto found = watched.find(socket);
    if (found == watched.end() || found->second.wanted) return;
    ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, socket, nullptr);
    watched.erase(found);
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
      // The sink of an answer without a body hears of it here.
      const bool sunk = transfer->request.sink == nullptr || code != CURLE_OK || transfer->begin();
      HttpAnswer answer;
      if (code == CURLE_OK && sunk) {
        answer.status = transfer->status();
        answer.body = std::move(transfer->body);
      } else {
        answer.error = ::curl_easy_strerror(sunk ? code : CURLE_WRITE_ERROR);
        answer.reached = had_connection(handle, code);
        answer.timed_out = code == CURLE_OPERATION_TIMEDOUT;
      }
      ::curl_multi_remove_handle(multi.get(), handle);
      tickets.erase(transfer->ticket);
      finished.emplace_back(std::move(transfer), std::move(answer));
    }
    for (auto& [transfer, answer] : finished) {
      put_away(std::move(transfer->handle));
      transfer->done(std::move(answer));
    }
  }

  std::unique_ptr<CURL, EasyCleanup> take_handle() {
    if (!idle.empty()) {
      auto handle = std::move(idle.back());
      idle.pop_back();
      return handle;
    }
    std::unique_ptr<CURL, EasyCleanup> handle(::curl_easy_init());
    if (handle == nullptr) throw std::bad_alloc();
    equip(handle.get(), options);
    ::curl_easy_setopt(handle.get(), CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    ::curl_easy_setopt(handle.get(), CURLOPT_CLOSESOCKETDATA, this);
    return handle;
  }
  /// Every option of the last request is set anew by the next one, and what it points to is not
  /// touched in between.
  void put_away(std::unique_ptr<CURL, EasyCleanup> handle) {
    if (idle.size() >= kMostIdle) return;
    ::curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, nullptr);
    idle.push_back(std::move(handle));
  }
};

Result<HttpClient> HttpClient::create(const HttpClientOptions& options) {
  static const CURLcode initialised = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  auto state = std::make_unique<State>();
  if (initialised != CURLE_OK || state->multi == nullptr || !state->epoll) {
    return system_error("cannot set up libcurl");
  }
  state->options = options;
  CURLM* multi = state->multi.get();
  ::curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                      static_cast<long>(options.connections_per_server));
  ::curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, kKeptConnections);
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

HttpClient::Ticket HttpClient::ask(Request request, std::function<void(HttpAnswer)> done) {
  auto transfer = std::make_unique<Transfer>();
  transfer->handle = state_->take_handle();
  transfer->request = std::move(request);
  transfer->done = std::move(done);
  transfer->ticket = ++state_->last_ticket;
  prepare(*transfer);
  CURL* const handle = transfer->handle.get();
  const Ticket ticket = transfer->ticket;
  state_->tickets.emplace(ticket, handle);
  state_->transfers.emplace(handle, std::move(transfer));
  ::curl_multi_add_handle(state_->multi.get(), handle);
  return ticket;
}

void HttpClient::cancel(Ticket ticket) {
  const auto found = state_->tickets.find(ticket);
  if (found == state_->tickets.end()) return;
  const auto under_way = state_->transfers.find(found->second);
  ::curl_multi_remove_handle(state_->multi.get(), found->second);
  state_->put_away(std::move(under_way->second->handle));
  state_->transfers.erase(under_way);
  state_->tickets.erase(found);
}

int HttpClient::epoll_fd() const noexcept {
  return state_->epoll.get();
}

void HttpClient::run() {
  auto& events = state_->events;
  const int count = state_->events_ready > 0 ? std::exchange(state_->events_ready, 0)
                                             : ::epoll_wait(state_->epoll.get(), events.data(),
                                                            static_cast<int>(events.size()), 0);
  int running = 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    const auto found = state_->watched.find(event.data.fd);
    if (found == state_->watched.end()) continue;  // the caller's, or closed since
    if (!found->second.wanted) {
      state_->drop_unwanted(event.data.fd);
      continue;
    }
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

void HttpClient::wait(int fd, std::chrono::milliseconds at_most) {
  if (!state_->other_watched) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, fd, &event);
    state_->other_watched = true;
  }
  auto& events = state_->events;
  state_->events_ready =
      ::epoll_wait(state_->epoll.get(), events.data(), static_cast<int>(events.size()),
                   static_cast<int>(at_most.count()));
}

std::optional<std::chrono::milliseconds> HttpClient::timeout() const {
  if (!state_->due) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*state_->due - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

}  // namespace kelp
