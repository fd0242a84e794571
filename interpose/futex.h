#pragma once

// Sleeping and waking between threads of this process.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace tide {

// Sleeps while word == seen, at most timeout_us; may return early.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, uint32_t timeout_us) {
  const timespec limit{.tv_sec = timeout_us / 1'000'000, .tv_nsec = long(timeout_us % 1'000'000) * 1000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, &limit, nullptr, 0);
}

inline void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace tide
