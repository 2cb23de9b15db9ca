// What a library with shared memory owes a program that forks.
#pragma once

#include <cstdint>

namespace kelp {

/// Told, in a child of fork(), to close its copies of descriptors. Registered while it exists.
/// A handler may only make system calls that are safe between fork() and exec().
class ForkObserver {
 public:
  ForkObserver();
  ForkObserver(const ForkObserver&) = delete;
  ForkObserver& operator=(const ForkObserver&) = delete;
  virtual ~ForkObserver();
  virtual void in_child_of_fork() noexcept = 0;

 private:
  friend class ForkRegistry;
  ForkObserver* next_ = nullptr;
};

/// A page of ones that the kernel gives to children as zeroes (MADV_WIPEONFORK): says whether this
/// process is the one that made it, at the price of a load. Where the page cannot be had, compares
/// process ids instead.
class ForkSentinel {
 public:
  ForkSentinel();
  ForkSentinel(const ForkSentinel&) = delete;
  ForkSentinel& operator=(const ForkSentinel&) = delete;
  ~ForkSentinel();
  bool wiped() const noexcept;

 private:
  volatile std::uint32_t* word_ = nullptr;
  int pid_;
};

}  // namespace kelp
