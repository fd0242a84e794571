#pragma once

// How long work would take on a card: a kernel max(instructions / throughput, bytes / bandwidth) behind the latency of
// a launch, a copy its bytes over the link behind the latency of a copy. Kernels of one device share its
// multiprocessors, copies of one direction the link. In virtual time nothing waits and only these numbers count; in
// scaled time work is also held back until it would have been done.
//
// The numbers are those of data sheets and one rule for all cards. They give plausible proportions, not forecasts.
//
// Threads: any.

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace softgpu::sim {

enum class TimeMode : uint8_t { kOff, kScaled, kVirtual };

struct TimeSettings {
  TimeMode mode = TimeMode::kOff;
  double factor = 1;  // kScaled: seconds here for a second there
};

// "off", "virtual", "scaled", "scaled:2.5". False, with *error set, for anything else.
bool parse_time(std::string_view text, TimeSettings* out, std::string* error);
std::string text_of(const TimeSettings& settings);

struct CardSpeed {
  uint32_t multiprocessors = 1;
  double instructions_per_ns = 1;  // of warps, the whole card
  double bytes_per_ns = 1;         // device memory
  double link_bytes_per_ns = 25;
  uint64_t launch_ns = 3000;
  uint64_t copy_ns = 6000;
};

// When the stream's last operation ended, in nanoseconds of the model.
struct StreamClock {
  std::atomic<uint64_t> ns{0};
  void advance_to(uint64_t time);
};

struct KernelCost {
  uint64_t instructions = 0, bytes = 0, blocks = 1;
  double slow = 1;  // a device that has become slower
};

class CardClock {
 public:
  explicit CardClock(const CardSpeed& speed) : speed_(speed) {}
  // Nanoseconds that the work takes by itself.
  uint64_t kernel_ns(const KernelCost& cost) const;
  uint64_t copy_ns(uint64_t bytes) const;
  // Puts the work behind what the stream and the card have to do; returns its end. Not before `now`.
  uint64_t run_kernel(StreamClock* stream, const KernelCost& cost, uint64_t now);
  uint64_t run_copy(StreamClock* stream, uint64_t bytes, bool to_device, uint64_t now);

 private:
  const CardSpeed speed_;
  std::mutex mu_;
  uint64_t multiprocessors_free_ = 0;  // guarded by mu_
  uint64_t link_free_[2] = {0, 0};     // to the host, to the device; guarded by mu_
};

}  // namespace softgpu::sim
