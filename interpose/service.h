#pragma once

// What goes on without the program: one thread that takes in answers when nobody waits, follows moves, notices dead
// workers, and drives everything that involves two vGPUs or the host (copies between vGPUs, waits for another vGPU's
// events, host functions). Host functions run on a thread of their own, so that a slow one delays no copy.
// The threads start with the first channel, or with what first needs one.

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "base/outcome.h"
#include "interpose/peer_copies.h"

namespace tide {

struct Process;
struct Stream;
struct Vgpu;
struct Event;

// A point in a vGPU's work.
struct Point {
  Vgpu* vgpu = nullptr;
  bool event = false;  // slot is an event's
  uint32_t slot = 0;
  uint64_t sequence = 0;
};

// Something that a stream waits for.
struct SignalPoint {
  Vgpu* vgpu = nullptr;
  uint32_t slot = 0;
  uint64_t value = 0;
};

// A rectangle of device memory: `height` rows of `width` bytes, `pitch` apart.
struct DeviceRect {
  Vgpu* vgpu = nullptr;
  uint64_t address = 0;
  uint64_t pitch = 0;
};

struct Task {
  std::vector<Point> after;          // all must be reached first
  std::vector<SignalPoint> signals;  // stored at the end
  // What to do between: a copy (from.vgpu null: from the program's memory), a host function, or nothing.
  DeviceRect from, to;
  uint64_t width = 0, height = 0;
  CUhostFn host_function = nullptr;
  CUstreamCallback callback = nullptr;
  CUstream callback_stream = nullptr;
  void* user_data = nullptr;

  // Owned by the service thread.
  enum class Step { kWaiting, kFetching, kReading, kWriting, kCalling, kOver } step = Step::kWaiting;
  std::unique_ptr<PeerCopy> peer;  // from worker to worker; the rest: through this program
  std::vector<std::byte> bounce;
  uint64_t row = 0, column = 0;  // of the window in flight
  uint64_t window_rows = 0, window_bytes = 0;
  uint64_t sequence = 0;                // of the copy in flight
  uint32_t from_slot = 0, to_slot = 0;  // the streams that it is on
  std::atomic<bool> called{false};
};

class Service {
 public:
  explicit Service(Process& process) : process_(process), peers_(process) {}
  // Each of its threads runs from the first start on; what needs one is refused where it cannot be had.
  Outcome start();            // before a channel is opened
  Outcome start_callbacks();  // before host functions and callbacks are
  Outcome start_exchange();   // before there are mirrors of host memory
  void add(std::unique_ptr<Task> task);
  // The program works with a vGPU again.
  void stir() {
    if (lies_still_.load()) poke();
  }
  // Host functions and callbacks that are not over.
  uint32_t calls_open() const { return calls_open_.load(std::memory_order_acquire); }

 private:
  void serve();
  void call();
  bool advance(Task& task);
  void carry_over(Task& task);
  bool read_window(Task& task);
  void write_window(Task& task);
  void write_from_host(Task& task);
  bool reached(const Point& point);
  void finish(Task& task);
  void look_after_channels();
  void rest(uint32_t poked);
  void poke();
  uint64_t commands() const;

  Process& process_;
  // The service thread's.
  PeerCopies peers_;
  uint64_t held_ = 0;  // by workers (the sum of their words), and since when
  uint64_t held_ns_ = 0;
  uint64_t told_ns_ = 0;       // when counters were told last
  uint64_t commands_ = 0;      // of all vGPUs, when it last looked
  uint64_t commanded_ns_ = 0;  // when that had changed
  std::mutex mu_;
  bool started_ = false;
  bool callbacks_started_ = false, exchange_started_ = false;
  std::deque<std::unique_ptr<Task>> added_;
  std::atomic<uint32_t> calls_open_{0};
  std::atomic<uint32_t> poked_{0};           // futex word
  std::atomic<bool> lies_still_{false};      // it sleeps for long, until poked
  std::deque<std::unique_ptr<Task>> tasks_;  // of the service thread
  std::mutex call_mu_;
  std::deque<Task*> calls_;
  std::atomic<uint32_t> call_word_{0};  // futex word of the callback thread
};

}  // namespace tide
