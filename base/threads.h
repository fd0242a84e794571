#pragma once

// Threads where an exception must not end the process.

#include <functional>
#include <system_error>
#include <thread>
#include <utility>

namespace tide {

// False: the system has no thread left for us.
inline bool start_thread(std::thread* thread, std::function<void()> body) {
  try {
    *thread = std::thread(std::move(body));
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

}  // namespace tide
