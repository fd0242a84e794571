#pragma once

// A CUDA device as the program sees it: what it is (from the scheduler's first message), its channel, memory and slots.

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/device_info.h"
#include "interpose/array.h"
#include "interpose/channel.h"
#include "interpose/handles.h"
#include "interpose/memory.h"
#include "interpose/packing.h"
#include "interpose/slots.h"
#include "interpose/staging.h"

namespace tide {

struct Stream;
struct Vgpu;

struct Context : Handled {
  Vgpu* vgpu = nullptr;
  bool primary = false;
  std::atomic<uint32_t> number{0};  // on the wire; 0: the worker knows nothing of it yet
  std::atomic<uint32_t> flags{0};
  std::atomic<uint32_t> retains{0};
  std::atomic<Stream*> legacy{nullptr};
  uint64_t id = 0;
  std::atomic<int> cache_config{0};
  std::atomic<uint64_t> marker{0};  // handle of a hidden event, see crossing.h
  uint64_t builder = 0;             // handle of a hidden stream, see graph_launch.cc; graph::mutex() guards it
};

struct Stream : Handled {
  Context* context = nullptr;
  Vgpu* vgpu = nullptr;
  uint32_t slot = 0;
  uint32_t flags = 0;
  int priority = 0;
  uint64_t id = 0;
  bool implicit = false;  // the legacy one, or a thread's own: the program cannot destroy it
};

struct Event : Handled {
  Context* context = nullptr;
  Vgpu* vgpu = nullptr;
  uint32_t slot = 0;
  uint32_t flags = 0;
  // Sequence of the last record; 0: never. Of an event of several processes: of the last tideWatchEvent.
  std::atomic<uint64_t> recorded{0};
  std::atomic<uint64_t> name{0};  // under which other processes may open it (sharing.h); 0: they may not
};

// Answers of `cached` calls, and the last values of settings, by what was asked.
class AnswerCache {
 public:
  bool find(const std::string& key, CUresult* result, std::vector<std::byte>* payload);
  void remember(const std::string& key, CUresult result, const std::vector<std::byte>& payload);
  void clear();
  void forget_settings();
  // True when the setting had this value already.
  bool same_setting(const std::string& key, uint64_t value);

 private:
  struct Entry {
    CUresult result;
    std::vector<std::byte> payload;
  };
  std::mutex mu_;
  std::map<std::string, Entry> answers_;
  std::map<std::string, uint64_t> settings_;
};

struct Vgpu {
  explicit Vgpu(uint32_t number_);

  // Opens the channel and reserves the address range, once. Any thread.
  CUresult open();
  // After an error that stays: another worker, with nothing in it. Requires: mu; no context is left.
  void renew();
  Channel& channel() const { return *channel_.load(std::memory_order_acquire); }
  bool is_open() const { return channel_.load(std::memory_order_acquire) != nullptr; }
  CUresult sync_all() { return channel().wait_all(streams.high()); }
  uint64_t last_work() const;  // sequence of the last command on any stream
  bool idle();                 // nothing that was sent is still to be done
  uint64_t range() const;

  // A slot for a stream or an event; OUT_OF_MEMORY when all are taken.
  CUresult take_stream_slot(uint32_t* slot);
  CUresult take_event_slot(uint32_t* slot);
  // A signal slot and the value to wait for on it; waits for one where all are in use.
  CUresult take_signal(uint32_t* slot, uint64_t* value);

  uint32_t number = 0;  // in the job
  int ordinal = 0;      // CUdevice
  DeviceInfo info;      // as the program sees it
  uint64_t quota = 0;
  ChannelOrigin origin;
  Context* primary = nullptr;
  std::mutex mu;  // opening, and activating contexts
  std::unique_ptr<Memory> memory;
  AnswerCache cache;
  TextureRecords textures, surfaces;
  SlotPool streams{kStreamSlots, 64};
  SlotPool events{kEventSlots, 1024};
  SlotPool signals{kSignalSlots, 64};
  uint64_t signal_values[kSignalSlots] = {};
  // Streams held for the service thread (crossing.h), and the bytes copied since there was one. The worker's staging is
  // bounded, and a copy that is held keeps its part of it; the copies that would let go come behind in the ring.
  std::atomic<uint32_t> holds{0};
  std::atomic<uint64_t> held_bytes{0};
  std::atomic<uint32_t> next_context{1};
  Staging staging;
  Packing packing;
  std::atomic<uint64_t> copy_stream{0};  // handle of a hidden stream; copies between vGPUs run on it

 private:
  friend struct Process;
  std::atomic<Channel*> channel_{nullptr};
};

}  // namespace tide
