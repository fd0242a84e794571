#include "interpose/gate.h"

#include "base/clock.h"
#include "interpose/process.h"

namespace tide {
namespace {
constexpr uint32_t kLookUs = 500;
}

constinit std::atomic<bool> gate_shut{false};

void shut_gate(bool shut) { gate_shut.store(shut, std::memory_order_relaxed); }

void wait_at_gate() {
  while (gate_shut.load(std::memory_order_relaxed)) {
    if (Process* process = live_process.load(std::memory_order_acquire); process != nullptr) process->service.stir();
    sleep_us(kLookUs);
  }
}

}  // namespace tide
