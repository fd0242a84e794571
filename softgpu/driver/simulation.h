#pragma once

// What the environment and the control socket make of devices: how their kernels are scheduled and checked, how long
// their work takes, and which faults they have. Every piece of work asks here before it runs; where nothing is asked
// for, that is a few loads.
//
//   SOFTGPU_QUANTUM  instructions of a warp's turn            SOFTGPU_SEED  a number: one order, drawn from it
//   SOFTGPU_CHECK    off, page, exact                         SOFTGPU_CHECK_UNINIT, _RACE, _FATAL  1
//   SOFTGPU_TIME     off, virtual, scaled[:factor]            SOFTGPU_FAULTS  see softgpu/sim/faults.h
//   SOFTGPU_CONTROL  path of a socket, see control.h      SOFTGPU_ISA   v2, v3, v4: the highest level that is used
//
// Threads: any.

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "softgpu/driver/context.h"
#include "softgpu/exec/check.h"
#include "softgpu/sim/faults.h"
#include "softgpu/sim/time_model.h"

namespace softgpu {

class Simulation {
 public:
  // Reads the environment. False, with one line in the log, when a value cannot be read.
  bool configure();
  // Once the devices are there.
  void start();

  uint64_t seed() const { return seed_; }

  // Runs a grid on the context's device as this simulation wants it. *planned is what the kernel's end is by a planned
  // fault, else CUDA_SUCCESS.
  Fault run_grid(const Context& context, const std::string& kernel, Launch* launch, CUresult* planned);
  // Before a copy, in the thread that works for its stream; false when it shall be lost.
  bool begin_copy(uint64_t bytes, bool to_device, bool from_device);
  bool allocation_fails(const Device& device);

  bool lost(int device) const { return lost_[static_cast<size_t>(device)]; }
  void repair(int device) { lost_[static_cast<size_t>(device)] = false; }

  // Null where memory is not checked.
  Checker* checker() { return checker_ != nullptr && checker_->options.memory() ? checker_.get() : nullptr; }
  // Whether freed memory is kept for a while, so that its later use is seen.
  bool quarantines() const { return checker_ != nullptr && checker_->options.granularity == 1; }
  void freed(uint64_t address, uint64_t bytes) { allocations_.freed(address, bytes); }

  sim::TimeSettings time() const;
  // Neither times nor faults: what streams do, and when, is theirs alone.
  bool is_plain() const { return mode_ == sim::TimeMode::kOff && faults.empty(); }
  void set_time(const sim::TimeSettings& settings);
  // What an event records now.
  uint64_t event_time_ns();
  // The host has waited for a stream.
  void host_saw(const sim::StreamClock& clock);

  sim::FaultPlan faults;

 private:
  // Knows what is freed, beside what the driver knows of live memory.
  class LiveAllocations : public Allocations {
   public:
    bool find(uint64_t address, uint64_t* start, uint64_t* bytes) const override;
    std::string describe(uint64_t address) const override;
    void freed(uint64_t address, uint64_t bytes);

   private:
    mutable std::mutex mu_;
    std::vector<std::pair<uint64_t, uint64_t>> freed_;  // the last ones; guarded by mu_
    size_t next_ = 0;                                   // guarded by mu_
  };

  bool configure_checks(CheckOptions* options);
  CUresult apply(const Context& context, const std::vector<sim::PlannedFault>& due, Launch* launch, double* slow);
  void lose(const Device& device);
  void flip(const Device& device, const sim::PlannedFault& fault);
  double elapsed_s() const;
  uint64_t model_now();
  void came_to(uint64_t ns);
  void hold_back(const Context& context, uint64_t began_ns, uint64_t took_ns);
  sim::CardClock& card(const Device& device);

  unsigned quantum_ = 0;
  uint64_t seed_ = 0;
  uint64_t began_ns_ = 0;
  std::string control_path_;
  LiveAllocations allocations_;
  std::unique_ptr<Checker> checker_;  // for what the environment asks
  std::unique_ptr<Checker> counter_;  // only counts bytes
  std::atomic<sim::TimeMode> mode_{sim::TimeMode::kOff};
  std::atomic<double> factor_{1};
  std::atomic<uint64_t> host_ns_{0};                              // virtual time that the host has seen
  std::atomic<uint64_t> latest_ns_{0};                            // of all work in the model
  std::atomic<uint64_t> scaled_from_ns_{0}, scaled_began_ns_{0};  // the model's and the host's time at one moment
  std::array<std::atomic<bool>, 64> lost_{};
  std::mutex mu_;
  std::array<std::unique_ptr<sim::CardClock>, 64> cards_;  // guarded by mu_
};

Simulation& simulation();

// The calling thread works for the stream as long as this lives.
class StreamScope {
 public:
  explicit StreamScope(Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;
  // Of the calling thread, or null.
  static Stream* current();

 private:
  Stream* const before_;
};

}  // namespace softgpu
