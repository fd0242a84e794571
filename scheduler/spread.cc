#include "scheduler/spread.h"

#include <algorithm>
#include <numeric>

#include "scheduler/rank.h"

namespace tide::sched {
namespace {

constexpr size_t kNotMine = SIZE_MAX;

size_t position(const GpuSet& set, GpuIndex gpu) {
  const auto found = std::lower_bound(set.begin(), set.end(), gpu);
  return found != set.end() && *found == gpu ? size_t(found - set.begin()) : kNotMine;
}

// vGPUs of the job on each of `set` now. `at`: where each vGPU is in it, or kNotMine.
std::vector<uint32_t> counts_of(const FreeGpus& gpus, const JobView& job, const GpuSet& set,
                                std::vector<size_t>* at = nullptr) {
  std::vector<uint32_t> counts(set.size());
  if (at != nullptr) at->assign(job.vgpus, kNotMine);
  for (size_t v = 0; v < job.places.size(); ++v) {
    const GpuIndex gpu = job.places[v].on_gpu() ? gpus.find(job.places[v]) : kNoGpu;
    const size_t where = gpu == kNoGpu ? kNotMine : position(set, gpu);
    if (where != kNotMine) ++counts[where];
    if (at != nullptr && v < at->size()) (*at)[v] = where;
  }
  return counts;
}

// All free GPUs.
class AnyFree {
 public:
  explicit AnyFree(FreeGpus& gpus) : gpus_(gpus) {}
  ~AnyFree() {
    for (const GpuIndex gpu : taken_) gpus_.give(gpu);
  }
  uint32_t on(ServerIndex server) const { return gpus_.free_on(server); }
  ServerIndex tightest(uint32_t wanted) const { return gpus_.tightest(wanted); }
  GpuIndex take(ServerIndex server) {
    taken_.push_back(gpus_.first_free(server));
    gpus_.take(taken_.back());
    return taken_.back();
  }

 private:
  FreeGpus& gpus_;
  GpuSet taken_;
};

// Some of them. Requires: sorted.
class SomeFree {
 public:
  SomeFree(const FreeGpus& gpus, const GpuSet& some) {
    for (auto gpu = some.rbegin(); gpu != some.rend(); ++gpu) servers_[gpus.server_of(*gpu)].push_back(*gpu);
  }
  uint32_t on(ServerIndex server) const {
    const auto found = servers_.find(server);
    return found == servers_.end() ? 0 : uint32_t(found->second.size());
  }
  ServerIndex tightest(uint32_t wanted) const {
    ServerIndex best = kNoServer;
    size_t room = 0;
    for (const auto& [server, gpus] : servers_) {
      const bool all = gpus.size() >= wanted;
      const bool better = all == (room >= wanted) ? (all ? gpus.size() < room : gpus.size() > room) : all;
      if (!better) continue;
      best = server;
      room = gpus.size();
    }
    return best;
  }
  GpuIndex take(ServerIndex server) {
    GpuSet& gpus = servers_.at(server);
    const GpuIndex gpu = gpus.back();
    gpus.pop_back();
    return gpu;
  }

 private:
  std::map<ServerIndex, GpuSet> servers_;  // the last of each is taken first
};

// Servers that the job is on, or where its vGPUs are parked.
std::vector<ServerIndex> servers_of(const FreeGpus& gpus, const JobView& job, const GpuSet& mine) {
  std::vector<ServerIndex> servers;
  for (const GpuIndex gpu : mine) {
    if (servers.empty() || servers.back() != gpus.server_of(gpu)) servers.push_back(gpus.server_of(gpu));
  }
  for (const GpuId& place : job.places) {
    const ServerIndex server = place.parked() ? gpus.find_server(place.server) : kNoServer;
    if (server != kNoServer && std::find(servers.begin(), servers.end(), server) == servers.end())
      servers.push_back(server);
  }
  return servers;
}

// One that the job is on, else the tightest that has all, else the largest; among equals the first.
template <typename Offer>
ServerIndex next_server(const std::vector<ServerIndex>& on, const Offer& offer, uint32_t missing) {
  ServerIndex best = kNoServer;
  for (const ServerIndex server : on) {
    const uint32_t room = offer.on(server);
    if (room == 0) continue;
    const uint32_t most = best == kNoServer ? 0 : offer.on(best);
    const bool all = room >= missing;
    const bool better = all != (most >= missing) ? all
                        : room != most           ? (all ? room < most : room > most)
                                                 : server < best;
    if (best == kNoServer || better) best = server;
  }
  return best != kNoServer ? best : offer.tightest(missing);
}

template <typename Offer>
bool add_from(const FreeGpus& gpus, const JobView& job, uint32_t count, Offer&& offer, GpuSet* mine) {
  GpuSet more = *mine;
  std::vector<ServerIndex> on = servers_of(gpus, job, *mine);
  while (more.size() < count) {
    const ServerIndex server = next_server(on, offer, count - uint32_t(more.size()));
    if (server == kNoServer) return false;
    const GpuIndex gpu = offer.take(server);
    more.insert(std::lower_bound(more.begin(), more.end(), gpu), gpu);
    if (std::find(on.begin(), on.end(), server) == on.end()) on.push_back(server);
  }
  if (!holds_all(gpus, job, more)) return false;
  *mine = std::move(more);
  return true;
}

// Those that it may get, by group; one where it requires none.
std::map<std::string, GpuSet> candidates_of(const FreeGpus& gpus, const JobView& job, const GpuSet& also) {
  std::map<std::string, GpuSet> groups;
  for (ServerIndex server = 0; server < gpus.servers(); ++server) {
    if (job.failed_on.count(gpus.name_of(server)) != 0) continue;
    for (GpuIndex gpu = gpus.first(server); gpu < gpus.end(server); ++gpu) {
      if (!gpus.is_free(gpu) && position(also, gpu) == kNotMine) continue;
      if (capacity(job, gpus.view(gpu)) > 0) groups[group_of(job, gpus.view(gpu))].push_back(gpu);
    }
  }
  return groups;
}

// Where all of its GPUs are to be: where it is, else the group that has enough with the least left over.
const GpuSet* choose_group(const FreeGpus& gpus, const JobView& job, uint32_t count, const GpuSet& mine,
                           const std::map<std::string, GpuSet>& groups) {
  if (job.require.together == Together::kPreferred || !mine.empty()) {
    const auto found = groups.find(mine.empty() ? "" : group_of(job, gpus.view(mine.front())));
    return found == groups.end() ? nullptr : &found->second;
  }
  const GpuSet* best = nullptr;
  for (const auto& [group, some] : groups) {
    const bool better = best == nullptr || some.size() < best->size();
    if (some.size() >= count && better && holds_all(gpus, job, some)) best = &some;
  }
  return best;
}

bool add_some(const FreeGpus& gpus, const JobView& job, uint32_t count, const std::map<std::string, GpuSet>& groups,
              GpuSet* mine) {
  const GpuSet* some = mine->size() < count ? choose_group(gpus, job, count, *mine, groups) : nullptr;
  return add_from(gpus, job, count, SomeFree(gpus, some == nullptr ? GpuSet() : *some), mine);
}

bool add_where_it_may(const FreeGpus& gpus, const JobView& job, uint32_t least, uint32_t count, GpuSet* mine) {
  const auto groups = candidates_of(gpus, job, {});
  if (add_some(gpus, job, count, groups, mine)) return true;
  for (uint32_t fewer = count;
       (job.require.any() || job.barred != nullptr) && fewer-- > std::max<size_t>(least, mine->size());) {
    if (may_have(job, fewer) && add_some(gpus, job, fewer, groups, mine)) return true;
  }
  if (job.require.together == Together::kPreferred || mine->empty()) return false;
  // Where it is there is no more: all of it somewhere else.
  const auto others = candidates_of(gpus, job, *mine);
  for (uint32_t fewer = count; fewer >= std::max(least, 1u); --fewer) {
    GpuSet none;
    if (!may_have(job, fewer) || !add_some(gpus, job, fewer, others, &none)) continue;
    *mine = std::move(none);
    return true;
  }
  return false;
}

// How many vGPUs each of `mine` gets: level by level, those first that have more of them now.
std::vector<uint32_t> even(const JobView& job, const std::vector<uint32_t>& room, const std::vector<uint32_t>& now) {
  std::vector<size_t> order(room.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return now[a] > now[b]; });
  std::vector<uint32_t> wanted(room.size());
  for (uint32_t left = job.vgpus; left > 0;) {
    for (const size_t i : order) {
      if (left == 0) break;
      if (wanted[i] >= room[i]) continue;
      ++wanted[i];
      --left;
    }
  }
  return wanted;
}

}  // namespace

std::string to_text(const GpuId& id) {
  if (id.none()) return "-";
  return id.server + "/" + (id.parked() ? "parked" : std::to_string(id.index));
}

uint32_t capacity(const JobView& job, const GpuView& gpu) {
  if (!may_use(job, gpu)) return 0;
  if (job.memory_bytes == 0) return job.vgpus;
  if (gpu.memory_bytes < job.memory_bytes) return 0;
  if (!job.memory_given) return job.vgpus;
  return uint32_t(std::min<uint64_t>(gpu.memory_bytes / job.memory_bytes, job.vgpus));
}

bool holds_all(const FreeGpus& gpus, const JobView& job, const GpuSet& set) {
  uint64_t room = 0;
  for (const GpuIndex gpu : set) room += capacity(job, gpus.view(gpu));
  return room >= job.vgpus;
}

uint32_t gpus_for_memory(const std::vector<GpuView>& gpus, const JobView& job) {
  std::map<std::string, std::vector<uint32_t>> groups;
  for (const GpuView& gpu : gpus) groups[group_of(job, gpu)].push_back(capacity(job, gpu));
  size_t fewest = gpus.size() + 1;
  for (auto& [group, rooms] : groups) {
    std::sort(rooms.rbegin(), rooms.rend());
    uint64_t sum = 0;
    for (size_t i = 0; i < rooms.size() && sum < job.vgpus; ++i) {
      sum += rooms[i];
      if (sum >= job.vgpus) fewest = std::min(fewest, i + 1);
    }
  }
  return uint32_t(fewest);
}

GpuSet keep_gpus(const FreeGpus& gpus, const JobView& job, const GpuSet& held, uint32_t count) {
  GpuSet kept = held;
  if (kept.size() <= count) return kept;
  std::vector<uint32_t> counts = counts_of(gpus, job, held);
  std::map<ServerIndex, uint32_t> servers;
  for (const GpuIndex gpu : kept) ++servers[gpus.server_of(gpu)];
  while (kept.size() > count) {
    size_t worst = 0;
    const auto key = [&](size_t i) { return std::pair(counts[i], servers.at(gpus.server_of(kept[i]))); };
    for (size_t i = 1; i < kept.size(); ++i) {
      if (key(i) <= key(worst)) worst = i;  // among equals the last
    }
    --servers.at(gpus.server_of(kept[worst]));
    kept.erase(kept.begin() + long(worst));
    counts.erase(counts.begin() + long(worst));
  }
  return kept;
}

bool add_gpus(FreeGpus& gpus, const JobView& job, uint32_t least, uint32_t count, GpuSet* mine) {
  if (mine->size() >= count) return holds_all(gpus, job, *mine);
  const bool picky = job.picky() || job.memory_bytes > gpus.memory_least();
  return picky ? add_where_it_may(gpus, job, least, count, mine) : add_from(gpus, job, count, AnyFree(gpus), mine);
}

bool spread(const FreeGpus& gpus, const JobView& job, const GpuSet& mine, std::vector<GpuId>* places) {
  std::vector<uint32_t> room;
  for (const GpuIndex gpu : mine) room.push_back(capacity(job, gpus.view(gpu)));
  if (std::accumulate(room.begin(), room.end(), uint64_t{0}) < job.vgpus) return false;
  std::vector<size_t> at;
  const std::vector<uint32_t> now = counts_of(gpus, job, mine, &at);
  const bool all_inside = job.places.size() == job.vgpus && std::count(at.begin(), at.end(), kNotMine) == 0;
  if (job.pinned && all_inside && std::count(now.begin(), now.end(), 0) == 0) {
    *places = job.places;
    return true;
  }
  std::vector<uint32_t> wanted = even(job, room, now), got(mine.size());
  for (size_t& where : at) {
    if (where == kNotMine || wanted[where] == 0) {
      where = kNotMine;
      continue;
    }
    --wanted[where];
    ++got[where];
  }
  for (uint32_t v = 0; v < job.vgpus; ++v) {
    if (at[v] != kNotMine) continue;
    // The emptiest first, so that neighbours lie on different GPUs; of these, one of the server where it is parked.
    const bool parked = v < job.places.size() && job.places[v].parked();
    const ServerIndex near = parked ? gpus.find_server(job.places[v].server) : kNoServer;
    const auto key = [&](size_t i) { return std::pair(got[i], gpus.server_of(mine[i]) == near ? 0 : 1); };
    for (size_t i = 0; i < mine.size(); ++i) {
      if (wanted[i] > 0 && (at[v] == kNotMine || key(i) < key(at[v]))) at[v] = i;
    }
    --wanted[at[v]];
    ++got[at[v]];
  }
  places->resize(job.vgpus);
  for (uint32_t v = 0; v < job.vgpus; ++v) (*places)[v] = gpus.view(mine[at[v]]).id;
  return true;
}

}  // namespace tide::sched
