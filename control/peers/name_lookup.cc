#include "control/peers/name_lookup.h"

#include <netdb.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "shm_ring/unique_fd.h"

namespace kelp {

struct NameLookup::State {
  UniqueFd answered{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::mutex mutex;
  std::deque<std::string> wanted;  // the first one is being looked up
  std::deque<NameAnswer> answers;
  bool working = false;
};

namespace {

NameAnswer look_up(const std::string& host) {
  NameAnswer answer;
  answer.host = host;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); rc != 0) {
    answer.error = "cannot find the address of " + host + ": " +
                   (rc == EAI_SYSTEM ? std::generic_category().message(errno) : gai_strerror(rc));
    return answer;
  }
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    SocketAddress& address = answer.addresses.emplace_back();
    address.length = each->ai_addrlen;
    std::memcpy(&address.storage, each->ai_addr, each->ai_addrlen);
  }
  ::freeaddrinfo(found);
  return answer;
}

}  // namespace

NameLookup::NameLookup() : state_(std::make_shared<State>()) {}

NameLookup::~NameLookup() {
  const std::lock_guard lock(state_->mutex);
  state_->wanted.clear();
}

int NameLookup::fd() const noexcept {
  return state_->answered.get();
}

void NameLookup::ask(const std::string& host) {
  const std::lock_guard lock(state_->mutex);
  if (std::ranges::find(state_->wanted, host) != state_->wanted.end()) return;
  state_->wanted.push_back(host);
  if (state_->working) return;
  try {
    std::thread(work, state_).detach();
    state_->working = true;
  } catch (const std::system_error& error) {
    state_->wanted.clear();
    state_->answers.push_back({host, {}, std::string("no thread to look up ") + host});
    ::eventfd_write(state_->answered.get(), 1);
  }
}

void NameLookup::work(const std::shared_ptr<State>& state) {
  std::unique_lock lock(state->mutex);
  while (!state->wanted.empty()) {
    const std::string host = state->wanted.front();
    lock.unlock();
    NameAnswer answer = look_up(host);
    lock.lock();
    if (state->wanted.empty()) break;  // nobody wants to know any more
    state->wanted.pop_front();
    state->answers.push_back(std::move(answer));
    ::eventfd_write(state->answered.get(), 1);
  }
  state->working = false;
}

std::optional<NameAnswer> NameLookup::take() {
  const std::lock_guard lock(state_->mutex);
  if (state_->answers.empty()) {
    eventfd_t count = 0;
    ::eventfd_read(state_->answered.get(), &count);
    return std::nullopt;
  }
  NameAnswer answer = std::move(state_->answers.front());
  state_->answers.pop_front();
  return answer;
}

}  // namespace kelp
