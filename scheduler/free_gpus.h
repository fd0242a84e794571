#pragma once

// The pool's GPUs by number, in the order of their ids, and which of them nobody has: by server, and servers by how
// many are free there. Owned by one thread.

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/state.h"

namespace tide::sched {

using GpuIndex = uint32_t;
using ServerIndex = uint32_t;
inline constexpr GpuIndex kNoGpu = UINT32_MAX;
inline constexpr ServerIndex kNoServer = UINT32_MAX;
using GpuSet = std::vector<GpuIndex>;  // sorted

class FreeGpus {
 public:
  explicit FreeGpus(std::vector<GpuView> gpus);

  uint32_t size() const { return uint32_t(gpus_.size()); }
  GpuIndex find(const GpuId& id) const;                        // kNoGpu: there is none
  GpuIndex find_on(ServerIndex server, uint32_t index) const;  // the same
  ServerIndex find_server(const std::string& name) const;
  uint32_t servers() const { return uint32_t(servers_.size()); }
  const std::vector<GpuView>& views() const { return gpus_; }
  const GpuView& view(GpuIndex gpu) const { return gpus_[gpu]; }
  ServerIndex server_of(GpuIndex gpu) const { return server_of_[gpu]; }
  const std::string& name_of(ServerIndex server) const { return servers_[server].name; }
  GpuIndex first(ServerIndex server) const { return servers_[server].first; }
  GpuIndex end(ServerIndex server) const { return servers_[server].end; }
  uint32_t largest_server() const { return uint32_t(buckets_.size() - 1); }  // its GPUs, usable or not
  bool answers(ServerIndex server) const { return servers_[server].online != 0; }
  bool usable(GpuIndex gpu) const { return gpus_[gpu].online && gpus_[gpu].healthy; }
  int64_t usable() const { return usable_; }
  int64_t usable_on(ServerIndex server) const { return servers_[server].usable; }
  uint64_t memory_most() const;   // of one that is usable; 0: there is none
  uint64_t memory_least() const;  // of any

  void set(GpuIndex gpu, const GpuView& view);

  // Somebody has it, and how often; who has it last makes it free again, if it is usable.
  void take(GpuIndex gpu);
  void give(GpuIndex gpu);
  bool is_free(GpuIndex gpu) const { return takers_[gpu] == 0 && usable(gpu); }
  uint32_t free_on(ServerIndex server) const { return servers_[server].free; }
  int64_t free() const { return free_; }
  GpuIndex first_free(ServerIndex server) const;  // Requires: there is one
  // The one with the fewest that has so many free ones, else the one with the most; kNoServer: none is free at all.
  ServerIndex tightest(uint32_t wanted) const;

 private:
  struct Server {
    std::string name;
    GpuIndex first = 0, end = 0;
    uint32_t online = 0, usable = 0, free = 0;
  };
  struct Bucket {  // servers with so many free GPUs
    uint32_t count = 0;
    std::vector<uint64_t> words;
  };
  void count(GpuIndex gpu, int32_t sign);
  void set_free(ServerIndex server, uint32_t count);

  std::vector<GpuView> gpus_;
  std::vector<ServerIndex> server_of_;
  std::vector<uint32_t> takers_;
  std::vector<Server> servers_;
  std::unordered_map<std::string, ServerIndex> by_name_;
  std::vector<Bucket> buckets_;          // by number of free GPUs
  std::map<uint64_t, uint32_t> memory_;  // usable GPUs, by how much they have
  int64_t usable_ = 0, free_ = 0;
};

}  // namespace tide::sched
