#include "dataplane/memory/fault_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

namespace kelp {
namespace {

struct Slot {
  std::atomic<std::uintptr_t> base{0};  // 0: free
  std::atomic<std::uintptr_t> end{0};
  std::atomic<std::size_t> page_bytes{0};
  std::atomic<std::atomic<bool>*> condemned{nullptr};
};

constexpr std::uint32_t kSlots = 8192;
std::array<Slot, kSlots> slots;
std::mutex slots_mutex;

/// What mmap() can put in a page's place: not less than a page of the system, which is 64 KiB on
/// some kernels of ARM64.
std::size_t replaceable_bytes(std::size_t page_bytes) noexcept {
  return std::max(page_bytes, static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
}

/// Async-signal-safe: atomics, mmap(), sigaction() and raise() only.
void on_bus_error(int, siginfo_t* info, void*) {
  // Of a signal that was sent si_addr means nothing.
  const auto address = info->si_code > 0 ? reinterpret_cast<std::uintptr_t>(info->si_addr) : 0;
  for (Slot& slot : slots) {
    const std::uintptr_t base = slot.base.load(std::memory_order_acquire);
    if (base == 0 || address < base || address >= slot.end.load(std::memory_order_acquire))
      continue;
    const std::size_t page = slot.page_bytes.load(std::memory_order_acquire);
    std::atomic<bool>* const condemned = slot.condemned.load(std::memory_order_acquire);
    // The slot may have gone to another region between these loads; ours stays as long as we run.
    if (slot.base.load(std::memory_order_relaxed) != base) continue;
    void* start = reinterpret_cast<void*>(address / page * page);
    if (::mmap(start, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == MAP_FAILED) {
      break;
    }
    condemned->store(true, std::memory_order_release);
    return;
  }
  // Not a client's memory: die of it as any program would, at the same instruction.
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  ::sigaction(SIGBUS, &by_default, nullptr);
  if (info->si_code <= 0) ::raise(SIGBUS);  // sent by kill(): nothing would fault again
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

FaultGuard::FaultGuard(std::byte* base, std::size_t bytes, std::size_t page_bytes,
                       std::atomic<bool>* condemned) noexcept {
  static std::once_flag once;
  std::call_once(once, install_handler);
  const std::lock_guard lock(slots_mutex);
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    Slot& slot = slots[i];
    if (slot.base.load(std::memory_order_relaxed) != 0) continue;
    const auto start = reinterpret_cast<std::uintptr_t>(base);
    // Release, too: who sees one of these sees that the last owner is gone.
    slot.end.store(start + bytes, std::memory_order_release);
    slot.page_bytes.store(replaceable_bytes(page_bytes), std::memory_order_release);
    slot.condemned.store(condemned, std::memory_order_release);
    // Release pairs with the handler's acquire: who sees the base sees the rest.
    slot.base.store(start, std::memory_order_release);
    slot_ = i;
    return;
  }
}

FaultGuard& FaultGuard::operator=(FaultGuard&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

FaultGuard::~FaultGuard() {
  if (slot_ == kNone) return;
  const std::lock_guard lock(slots_mutex);
  slots[slot_].base.store(0, std::memory_order_release);
}

}  // namespace kelp
