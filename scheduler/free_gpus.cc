#include "scheduler/free_gpus.h"

#include <algorithm>
#include <bit>

namespace tide::sched {

FreeGpus::FreeGpus(std::vector<GpuView> gpus) : gpus_(std::move(gpus)) {
  std::sort(gpus_.begin(), gpus_.end(), [](const GpuView& a, const GpuView& b) { return a.id < b.id; });
  server_of_.resize(gpus_.size());
  takers_.resize(gpus_.size());
  uint32_t most = 0;
  for (GpuIndex gpu = 0; gpu < size(); ++gpu) {
    const std::string& name = gpus_[gpu].id.server;
    if (servers_.empty() || servers_.back().name != name) {
      by_name_[name] = uint32_t(servers_.size());
      servers_.push_back({.name = name, .first = gpu, .end = gpu});
    }
    server_of_[gpu] = uint32_t(servers_.size() - 1);
    most = std::max(most, ++servers_.back().end - servers_.back().first);
  }
  buckets_.resize(most + 1);
  for (Bucket& bucket : buckets_) bucket.words.resize(servers_.size() / 64 + 1);
  for (ServerIndex server = 0; server < servers(); ++server) {
    ++buckets_[0].count;
    buckets_[0].words[server / 64] |= uint64_t{1} << (server % 64);
  }
  for (GpuIndex gpu = 0; gpu < size(); ++gpu) count(gpu, 1);
}

GpuIndex FreeGpus::find(const GpuId& id) const {
  const ServerIndex server = find_server(id.server);
  return server == kNoServer ? kNoGpu : find_on(server, id.index);
}

GpuIndex FreeGpus::find_on(ServerIndex server, uint32_t index) const {
  const auto last = gpus_.begin() + servers_[server].end;
  const auto found = std::lower_bound(gpus_.begin() + servers_[server].first, last, index,
                                      [](const GpuView& gpu, uint32_t other) { return gpu.id.index < other; });
  return found != last && found->id.index == index ? GpuIndex(found - gpus_.begin()) : kNoGpu;
}

ServerIndex FreeGpus::find_server(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? kNoServer : found->second;
}

uint64_t FreeGpus::memory_most() const { return memory_.empty() ? 0 : memory_.rbegin()->first; }

uint64_t FreeGpus::memory_least() const { return memory_.empty() ? 0 : memory_.begin()->first; }

void FreeGpus::set_free(ServerIndex server, uint32_t count) {
  const uint64_t bit = uint64_t{1} << (server % 64);
  Bucket& from = buckets_[servers_[server].free];
  --from.count;
  from.words[server / 64] &= ~bit;
  free_ += int64_t(count) - servers_[server].free;
  servers_[server].free = count;
  ++buckets_[count].count;
  buckets_[count].words[server / 64] |= bit;
}

// Adds it, as it is, to all sums, or takes it out of them.
void FreeGpus::count(GpuIndex gpu, int32_t sign) {
  const GpuView& view = gpus_[gpu];
  Server& server = servers_[server_of_[gpu]];
  if (view.online) server.online += uint32_t(sign);
  if (!usable(gpu)) return;
  server.usable += uint32_t(sign);
  usable_ += sign;
  uint32_t& alike = memory_[view.memory_bytes];
  alike += uint32_t(sign);
  if (alike == 0) memory_.erase(view.memory_bytes);
  if (takers_[gpu] == 0) set_free(server_of_[gpu], server.free + uint32_t(sign));
}

void FreeGpus::set(GpuIndex gpu, const GpuView& view) {
  count(gpu, -1);
  gpus_[gpu] = view;
  count(gpu, 1);
}

void FreeGpus::take(GpuIndex gpu) {
  if (takers_[gpu]++ == 0 && usable(gpu)) set_free(server_of_[gpu], servers_[server_of_[gpu]].free - 1);
}

void FreeGpus::give(GpuIndex gpu) {
  if (--takers_[gpu] == 0 && usable(gpu)) set_free(server_of_[gpu], servers_[server_of_[gpu]].free + 1);
}

GpuIndex FreeGpus::first_free(ServerIndex server) const {
  GpuIndex gpu = servers_[server].first;
  while (!is_free(gpu)) ++gpu;
  return gpu;
}

ServerIndex FreeGpus::tightest(uint32_t wanted) const {
  const auto lowest = [](const Bucket& bucket) {
    for (size_t i = 0;; ++i) {
      if (bucket.words[i] != 0) return ServerIndex(i * 64 + size_t(std::countr_zero(bucket.words[i])));
    }
  };
  for (size_t n = std::max<size_t>(wanted, 1); n < buckets_.size(); ++n) {
    if (buckets_[n].count != 0) return lowest(buckets_[n]);
  }
  for (size_t n = std::min<size_t>(wanted, buckets_.size()); n-- > 1;) {
    if (buckets_[n].count != 0) return lowest(buckets_[n]);
  }
  return kNoServer;
}

}  // namespace tide::sched
