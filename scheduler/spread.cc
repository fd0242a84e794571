#include "scheduler/spread.h"

#include <algorithm>

namespace tide::sched {
namespace {

const GpuView* find(const State& state, const GpuId& id) {
  for (const GpuView& gpu : state.gpus) {
    if (gpu.id == id) return &gpu;
  }
  return nullptr;
}

std::map<GpuId, uint32_t> counts_of(const JobView& job) {
  std::map<GpuId, uint32_t> counts;
  for (const GpuId& place : job.places) {
    if (!place.none()) ++counts[place];
  }
  return counts;
}

std::map<std::string, uint32_t> by_server(const std::set<GpuId>& gpus) {
  std::map<std::string, uint32_t> counts;
  for (const GpuId& id : gpus) ++counts[id.server];
  return counts;
}

// Those of its GPUs, and those where its vGPUs are parked.
std::map<std::string, uint32_t> servers_of(const JobView& job, const std::set<GpuId>& mine) {
  std::map<std::string, uint32_t> counts = by_server(mine);
  for (const GpuId& place : job.places) {
    if (place.parked()) ++counts[place.server];
  }
  return counts;
}

bool holds_all(const State& state, const JobView& job, const std::set<GpuId>& gpus) {
  uint64_t room = 0;
  for (const GpuId& id : gpus) {
    const GpuView* gpu = find(state, id);
    room += gpu == nullptr ? 0 : capacity(job, *gpu);
  }
  return room >= job.vgpus;
}

// Those that it may get. A group: only of that.
std::vector<GpuId> candidates_of(const State& state, const JobView& job, const std::string& group,
                                 const std::set<GpuId>& free) {
  std::vector<GpuId> candidates;
  for (const GpuId& id : free) {
    const GpuView& gpu = *find(state, id);
    const bool fits = capacity(job, gpu) > 0 && job.failed_on.count(id.server) == 0;
    if (fits && group_of(job, gpu) == group) candidates.push_back(id);
  }
  return candidates;
}

// Where all of its GPUs are to be: where it is, else the group that has enough with the least left over; empty where it
// requires none.
std::string choose_group(const State& state, const JobView& job, uint32_t count, const std::set<GpuId>& mine,
                         const std::set<GpuId>& free) {
  if (job.require.together == Together::kPreferred) return "";
  if (!mine.empty()) return group_of(job, *find(state, *mine.begin()));
  std::map<std::string, std::set<GpuId>> groups;
  for (const GpuId& id : free) {
    const GpuView& gpu = *find(state, id);
    if (capacity(job, gpu) > 0 && job.failed_on.count(id.server) == 0) groups[group_of(job, gpu)].insert(id);
  }
  std::string best = "none";
  size_t least = SIZE_MAX;
  for (const auto& [group, gpus] : groups) {
    if (gpus.size() < count || gpus.size() >= least || !holds_all(state, job, gpus)) continue;
    best = group;
    least = gpus.size();
  }
  return best;
}

// The server of the next GPU to take: one that the job is on (`have`), else the tightest that has all, else the
// largest.
std::string next_server(const std::map<std::string, uint32_t>& have, const std::vector<GpuId>& candidates,
                        uint32_t missing) {
  const auto offer = by_server({candidates.begin(), candidates.end()});
  const auto better = [&](const std::string& a, const std::string& b) {
    const bool on_a = have.count(a) > 0, on_b = have.count(b) > 0;
    if (on_a != on_b) return on_a;
    const uint32_t room_a = offer.at(a), room_b = offer.at(b);
    const bool all_a = room_a >= missing, all_b = room_b >= missing;
    if (all_a != all_b) return all_a;
    if (room_a != room_b) return all_a ? room_a < room_b : room_a > room_b;
    return a < b;
  };
  std::string best = offer.begin()->first;
  for (const auto& [server, room] : offer) {
    if (better(server, best)) best = server;
  }
  return best;
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

uint32_t gpus_for_memory(const State& state, const JobView& job) {
  std::map<std::string, std::vector<uint32_t>> groups;
  for (const GpuView& gpu : state.gpus) groups[group_of(job, gpu)].push_back(capacity(job, gpu));
  size_t fewest = state.gpus.size() + 1;
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

std::set<GpuId> keep_gpus(const JobView& job, const std::set<GpuId>& held, uint32_t count) {
  const auto counts = counts_of(job);
  std::set<GpuId> kept = held;
  while (kept.size() > count) {
    const auto servers = by_server(kept);
    const GpuId* worst = nullptr;
    for (const GpuId& id : kept) {
      if (worst == nullptr) {
        worst = &id;
        continue;
      }
      const auto key = [&](const GpuId& g) { return std::pair(counts.at(g), servers.at(g.server)); };
      if (key(id) <= key(*worst)) worst = &id;  // among equals the last
    }
    kept.erase(GpuId(*worst));
  }
  return kept;
}

bool add_gpus(const State& state, const JobView& job, uint32_t count, std::set<GpuId>& mine, std::set<GpuId>& free) {
  const std::string group = mine.size() < count ? choose_group(state, job, count, mine, free) : "";
  while (mine.size() < count) {
    const std::vector<GpuId> candidates = candidates_of(state, job, group, free);
    if (candidates.empty()) return false;
    const std::string server = next_server(servers_of(job, mine), candidates, count - uint32_t(mine.size()));
    const auto first =
        std::find_if(candidates.begin(), candidates.end(), [&](const GpuId& g) { return g.server == server; });
    free.erase(*first);
    mine.insert(*first);
  }
  return holds_all(state, job, mine);
}

bool add_gpus_down_to(const State& state, const JobView& job, uint32_t least, uint32_t count, std::set<GpuId>& mine,
                      std::set<GpuId>& free) {
  const std::set<GpuId> mine_before = mine, free_before = free;
  if (add_gpus(state, job, count, mine, free)) return true;
  for (uint32_t fewer = count; job.require.any() && fewer-- > std::max<size_t>(least, mine_before.size());) {
    mine = mine_before;
    free = free_before;
    if (add_gpus(state, job, fewer, mine, free)) return true;
  }
  if (job.require.together == Together::kPreferred || mine_before.empty()) return false;
  // Where it is there is no more: all of it somewhere else.
  for (uint32_t fewer = count; fewer >= std::max(least, 1u); --fewer) {
    mine.clear();
    free = free_before;
    free.insert(mine_before.begin(), mine_before.end());
    if (add_gpus(state, job, fewer, mine, free)) return true;
  }
  return false;
}

bool spread(const State& state, const JobView& job, const std::set<GpuId>& mine, std::vector<GpuId>* places) {
  if (!holds_all(state, job, mine)) return false;
  const auto counts = counts_of(job);
  const auto now = [&](const GpuId& id) { return counts.count(id) ? counts.at(id) : 0; };
  const bool all_inside =
      std::all_of(job.places.begin(), job.places.end(), [&](const GpuId& p) { return mine.count(p) > 0; });
  if (job.pinned && all_inside && job.places.size() == job.vgpus && counts.size() == mine.size()) {
    *places = job.places;
    return true;
  }
  std::map<GpuId, uint32_t> wanted;
  for (uint32_t v = 0; v < job.vgpus; ++v) {
    const GpuId* best = nullptr;
    for (const GpuId& id : mine) {
      if (wanted[id] >= capacity(job, *find(state, id))) continue;
      const auto key = [&](const GpuId& g) { return std::pair(int64_t(wanted[g]), -int64_t(now(g))); };
      if (best == nullptr || key(id) < key(*best)) best = &id;
    }
    ++wanted[*best];
  }
  std::vector<GpuId> answer(job.vgpus);
  for (uint32_t v = 0; v < job.vgpus && v < job.places.size(); ++v) {
    const auto room = wanted.find(job.places[v]);
    if (room == wanted.end() || room->second == 0) continue;
    answer[v] = job.places[v];
    --room->second;
  }
  std::map<GpuId, uint32_t> got;
  for (const GpuId& place : answer) {
    if (!place.none()) ++got[place];
  }
  for (uint32_t v = 0; v < job.vgpus; ++v) {
    if (!answer[v].none()) continue;
    // The emptiest first, so that neighbours lie on different GPUs; of these, one of the server where it is parked.
    const std::string near = v < job.places.size() && job.places[v].parked() ? job.places[v].server : "";
    const auto key = [&](const GpuId& g) { return std::pair(got[g], g.server == near ? 0 : 1); };
    const GpuId* best = nullptr;
    for (const auto& [gpu, room] : wanted) {
      if (room > 0 && (best == nullptr || key(gpu) < key(*best))) best = &gpu;
    }
    answer[v] = *best;
    --wanted[answer[v]];
    ++got[answer[v]];
  }
  *places = std::move(answer);
  return true;
}

}  // namespace tide::sched
