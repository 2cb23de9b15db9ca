#include "shm_ring/fork_guard.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>

#include "shm_ring/layout.h"

namespace kelp {

/// All observers of the process. The lock is held across fork(), so a child finds the list whole.
class ForkRegistry {
 public:
  static ForkRegistry& instance() {
    // Never destroyed: connections that outlive main() still unregister.
    static auto* registry = new ForkRegistry;
    return *registry;
  }
  void add(ForkObserver* observer) {
    const std::lock_guard lock(mutex_);
    observer->next_ = first_;
    first_ = observer;
  }
  void remove(ForkObserver* observer) {
    const std::lock_guard lock(mutex_);
    for (ForkObserver** link = &first_; *link != nullptr; link = &(*link)->next_) {
      if (*link == observer) {
        *link = observer->next_;
        return;
      }
    }
  }

 private:
  ForkRegistry() {
    ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] { instance().in_child(); });
  }
  void in_child() {
    for (ForkObserver* each = first_; each != nullptr; each = each->next_) each->in_child_of_fork();
    mutex_.unlock();
  }

  std::mutex mutex_;
  ForkObserver* first_ = nullptr;
};

ForkObserver::ForkObserver() {
  ForkRegistry::instance().add(this);
}
ForkObserver::~ForkObserver() {
  ForkRegistry::instance().remove(this);
}

ForkSentinel::ForkSentinel() : pid_(::getpid()) {
  void* page =
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return;
  if (::madvise(page, kPageBytes, MADV_WIPEONFORK) != 0) {
    ::munmap(page, kPageBytes);
    return;
  }
  word_ = static_cast<volatile std::uint32_t*>(page);
  *word_ = 1;
}

ForkSentinel::~ForkSentinel() {
  if (word_ != nullptr) ::munmap(const_cast<std::uint32_t*>(word_), kPageBytes);
}

bool ForkSentinel::wiped() const noexcept {
  return word_ != nullptr ? *word_ == 0 : ::getpid() != pid_;
}

}  // namespace kelp
