#include "scheduler/policy.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/log.h"
#include "scheduler/room.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

// A job while shares are worked out. Jobs that touch an absent server are frozen: nothing about them changes until the
// server is back or given up.
struct Share {
  const JobView* job = nullptr;
  std::set<GpuId> held;  // healthy GPUs that it has now
  bool frozen = false;
  bool away = false;  // frozen, and a server that keeps it does not answer
  bool admitted = false;
  bool out = false;  // of this search: no set of free GPUs will do
  uint32_t least = 1;
  uint32_t most = 1;
  uint32_t count = 0;  // physical GPUs that it shall have
  std::string reason;
};

struct Round {
  const State* state = nullptr;
  std::map<GpuId, const GpuView*> gpus;  // all that are known
  std::vector<Share> shares;
  int64_t total = 0;         // GPUs that may be given away or kept
  uint64_t memory_most = 0;  // of one of them
};

bool usable(const GpuView& gpu) { return gpu.online && gpu.healthy; }

bool answers(const State& state, const std::string& server) {
  return std::any_of(state.gpus.begin(), state.gpus.end(),
                     [&](const GpuView& gpu) { return gpu.id.server == server && gpu.online; });
}

bool drains(const State& state, const std::string& server) {
  return std::any_of(state.gpus.begin(), state.gpus.end(),
                     [&](const GpuView& gpu) { return gpu.id.server == server && gpu.draining; });
}

// At its own server the vGPU's memory need not cross the network. A server that does not answer now may do so again;
// one that is being drained keeps only what no other one can.
GpuId parking_place(const State& state, const JobView& job, const GpuId& from) {
  if (from.parked() || from.none()) return from;
  const bool refused = job.refused_by.count(from.server) != 0;
  if (!refused && !drains(state, from.server)) return {from.server, kParked};
  if (job.refused_by.size() < kParkTriesMax) {
    for (const GpuView& gpu : state.gpus) {
      const bool open = gpu.online && !gpu.draining && gpu.id.server != from.server;
      if (open && job.refused_by.count(gpu.id.server) == 0) return {gpu.id.server, kParked};
    }
  }
  return refused ? from : GpuId{from.server, kParked};
}

void hold(const Round& round, const GpuId& place, Share* share) {
  if (place.none()) return;
  if (place.parked()) {
    share->away |= !answers(*round.state, place.server);
    share->frozen |= share->away;
    return;
  }
  const auto found = round.gpus.find(place);
  if (found == round.gpus.end() || !found->second->online) share->frozen = true;
  const bool stays = found != round.gpus.end() && usable(*found->second) && may_use(*share->job, *found->second);
  if (stays) share->held.insert(place);
}

Share share_of(const Round& round, const JobView& job) {
  Share share;
  share.job = &job;
  share.admitted = job.running;
  for (const GpuId& place : job.places) hold(round, place, &share);
  for (const GpuId& place : job.keeps) hold(round, place, &share);
  share.frozen |= job.suspended;
  share.least = std::min(std::max(job.min_gpus, gpus_for_memory(*round.state, job)), job.vgpus);
  share.most = std::max(share.least, job.want());
  if (share.frozen) share.least = share.most = uint32_t(share.held.size());
  return share;
}

Round begin(const State& state) {
  Round round;
  round.state = &state;
  for (const GpuView& gpu : state.gpus) {
    round.gpus[gpu.id] = &gpu;
    if (!usable(gpu)) continue;
    ++round.total;
    round.memory_most = std::max(round.memory_most, gpu.memory_bytes);
  }
  for (const JobView& job : state.jobs) round.shares.push_back(share_of(round, job));
  return round;
}

// The GPUs that serve jobs with a part of one, with what is left of them. `kept`: by share, where each stays.
std::vector<Room> rooms_of(const Round& round, std::vector<std::set<GpuId>>* kept) {
  std::vector<Room> rooms;
  for (size_t i = 0; i < round.shares.size(); ++i) {
    const Share& share = round.shares[i];
    if (!share.job->is_partial() || !share.admitted) continue;
    for (const GpuId& id : share.held) {
      auto room = std::find_if(rooms.begin(), rooms.end(), [&](const Room& r) { return r.gpu == id; });
      const bool fresh = room == rooms.end();
      if (!fresh && !share.frozen && !room->fits(share.job->portion())) continue;  // it must go elsewhere
      if (fresh) room = rooms.insert(room, Room(id, round.gpus.at(id)->memory_bytes));
      room->take(share.job->portion());
      (*kept)[i].insert(id);
    }
  }
  return rooms;
}

// The room that is left with the least; null: none has so much. In one of no GPU yet anybody may be.
Room* best_room(const Round& round, const JobView& job, std::vector<Room>* rooms) {
  const std::string near = !job.places.empty() && job.places[0].parked() ? job.places[0].server : "";
  const auto key = [&](const Room& room) {
    return std::tuple(room.part_left, room.gpu.server != near, room.memory_left, room.gpu);
  };
  Room* best = nullptr;
  for (Room& room : *rooms) {
    if (!room.fits(job.portion()) || job.failed_on.count(room.gpu.server) != 0) continue;
    if (!room.gpu.none() && !may_use(job, *round.gpus.at(room.gpu))) continue;
    if (best == nullptr || key(room) < key(*best)) best = &room;
  }
  return best;
}

// False: one more GPU is needed for it, and `rooms` has what is left of that.
bool take_room(const Round& round, const JobView& job, std::vector<Room>* rooms) {
  Room* room = best_room(round, job, rooms);
  const bool found = room != nullptr;
  if (!found) room = &rooms->emplace_back(GpuId(), round.memory_most);
  room->take(job.portion());
  return found;
}

std::string waits_because(const Round& round, const Share& share, int64_t left) {
  if (round.total == 0) return "the pool has no GPU online; `tide gpus` shows its servers";
  if (share.job->is_partial()) {
    return format("needs %s of a GPU; none that is shared has so much left, and %ld of %ld can be free while the jobs ",
                  part_text(share.job->part).c_str(), long(std::max<int64_t>(left, 0)), long(round.total)) +
           "before it keep their minimum";
  }
  const std::string need = format("needs %u GPU%s", share.least, share.least == 1 ? "" : "s");
  if (int64_t(share.least) > round.total) return need + format(", %ld online", long(round.total));
  return need + format("; %ld of %ld can be free while the jobs before it keep their minimum",
                       long(std::max<int64_t>(left, 0)), long(round.total));
}

// GPUs that it may get at all: those of servers on which resuming it has not just failed.
int64_t open_to(const Round& round, const JobView& job) {
  if (job.failed_on.empty()) return round.total;
  return std::count_if(round.state->gpus.begin(), round.state->gpus.end(),
                       [&](const GpuView& gpu) { return usable(gpu) && job.failed_on.count(gpu.id.server) == 0; });
}

std::string no_set_because(const JobView& job) {
  if (!job.failed_on.empty()) return "resuming it failed on the server that has room; it is tried there again soon";
  return "no set of free GPUs has memory for its virtual GPUs; ask for less with --gpu-memory";
}

// In the order in which they may start: of submission; where jobs take turns, who has waited longest first.
std::vector<Share*> in_order(Round& round) {
  std::vector<Share*> shares;
  for (Share& share : round.shares) shares.push_back(&share);
  if (!round.state->turns) return shares;
  std::stable_sort(shares.begin(), shares.end(),
                   [](const Share* a, const Share* b) { return a->job->turn.ticket < b->job->turn.ticket; });
  return shares;
}

// Whether it waits for the job whose turn is next, or for the one for which the pool drains. Where jobs take turns only
// those that never ran wait for the latter: the end of others' turns does not help it.
bool is_behind(const Round& round, const Share& share, const std::string& blocked_by) {
  if (blocked_by.empty()) return false;
  const auto& places = share.job->places;
  const bool ran = std::any_of(places.begin(), places.end(), [](const GpuId& place) { return !place.none(); });
  return !round.state->turns || blocked_by == round.state->next_turn || !ran;
}

// Everybody's minimum first: who has started keeps it, who waits gets it in order.
int64_t admit(Round& round) {
  std::vector<std::set<GpuId>> kept(round.shares.size());
  std::vector<Room> rooms = rooms_of(round, &kept);
  int64_t left = round.total - int64_t(rooms.size());
  for (size_t i = 0; i < round.shares.size(); ++i) {
    const Share& share = round.shares[i];
    if (!share.admitted) continue;
    if (!share.job->is_partial()) left -= share.least;
    const bool homeless = share.job->is_partial() && !share.frozen && kept[i].empty();
    if (homeless && !take_room(round, *share.job, &rooms)) --left;
  }
  std::string blocked_by;
  for (Share* each : in_order(round)) {
    Share& share = *each;
    if (share.admitted || !share.reason.empty()) continue;
    if (share.job->suspended) {
      share.reason = "kept without a GPU until `tide resume " + share.job->id + "`";
    } else if (share.away) {
      share.reason = "waits for the server that keeps it, which does not answer";
    } else if (!share.job->failed_on.empty() && int64_t(share.least) > open_to(round, *share.job)) {
      share.reason = no_set_because(*share.job);
    } else if (is_behind(round, share, blocked_by)) {
      share.reason = "waits its turn behind job " + blocked_by + ", which has waited longest";
    } else if (share.job->is_partial() && best_room(round, *share.job, &rooms) != nullptr) {
      share.admitted = take_room(round, *share.job, &rooms);
    } else if (int64_t(share.least) <= left) {
      share.admitted = true;
      left -= share.least;
      if (share.job->is_partial()) take_room(round, *share.job, &rooms);
    } else {
      share.reason = waits_because(round, share, left);
      const bool drains = share.job->skipped >= kSkipsMax && int64_t(share.least) <= round.total;
      if (drains || share.job->id == round.state->next_turn) blocked_by = share.job->id;
    }
  }
  return left;
}

void share_out(Round& round, int64_t left) {
  for (Share& share : round.shares) share.count = share.admitted ? share.least : 0;
  while (left > 0) {
    Share* smallest = nullptr;
    for (Share& share : round.shares) {
      if (!share.admitted || share.count >= share.most) continue;
      if (smallest == nullptr || share.count < smallest->count) smallest = &share;
    }
    if (smallest == nullptr) return;
    ++smallest->count;
    --left;
  }
}

// Of submission; where jobs take turns, those who run and then those who begin, as they were admitted.
std::vector<size_t> order_of_placing(const Round& round) {
  std::vector<size_t> order(round.shares.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (!round.state->turns) return order;
  const auto ticket = [&](size_t i) { return round.shares[i].job->running ? 0 : round.shares[i].job->turn.ticket; };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ticket(a) < ticket(b); });
  return order;
}

// The same for one with a part of a GPU that has none yet.
bool add_part(const Round& round, const JobView& job, std::vector<Room>* rooms, std::set<GpuId>& mine,
              std::set<GpuId>& free) {
  Room* room = best_room(round, job, rooms);
  if (room == nullptr && !add_gpus(*round.state, job, 1, mine, free)) return false;
  if (room == nullptr) room = &rooms->emplace_back(*mine.begin(), round.gpus.at(*mine.begin())->memory_bytes);
  room->take(job.portion());
  mine.insert(room->gpu);
  return true;
}

// Each job's GPUs: those it has, less the ones that cost the fewest moves, plus free ones near them. False when a job
// cannot be placed so (its memory does not fit on what is free): `failed` says which.
bool choose(const Round& round, Assignment& answer, size_t* failed) {
  std::vector<std::set<GpuId>> kept(round.shares.size());
  std::set<GpuId> free;
  for (const GpuView& gpu : round.state->gpus) {
    if (usable(gpu)) free.insert(gpu.id);
  }
  std::vector<Room> rooms = rooms_of(round, &kept);
  for (size_t i = 0; i < round.shares.size(); ++i) {
    const Share& share = round.shares[i];
    if (!share.job->is_partial()) {
      kept[i] = share.frozen ? share.held : keep_gpus(*share.job, share.held, share.count);
    }
    for (const GpuId& id : kept[i]) free.erase(id);
  }
  for (const size_t i : order_of_placing(round)) {
    const Share& share = round.shares[i];
    Decision& decision = answer[share.job->id];
    decision = Decision{.running = share.admitted, .reason = share.reason, .places = share.job->places};
    for (GpuId& place : decision.places) {
      if (share.job->suspended) place = parking_place(*round.state, *share.job, place);
    }
    if (!share.admitted || share.frozen) continue;
    *failed = i;
    const bool homeless = share.job->is_partial() && kept[i].empty();
    if (homeless && !add_part(round, *share.job, &rooms, kept[i], free)) return false;
    if (!add_gpus_down_to(*round.state, *share.job, share.least, share.count, kept[i], free)) return false;
    if (!spread(*round.state, *share.job, kept[i], &decision.places)) return false;
  }
  return true;
}

// Who waits, and has waited less long than the one whose turn is next, waits on.
void put_behind(Round& round, const Share& next) {
  for (Share& each : round.shares) {
    if (each.job->running || each.job->suspended || each.out || each.job->turn.ticket <= next.job->turn.ticket)
      continue;
    each.out = true;
    each.reason = "waits its turn behind job " + next.job->id + ", which has waited longest";
  }
}

}  // namespace

Assignment assign(const State& state) {
  Round round = begin(state);
  bool alone = false;
  // Each failure takes one job out of the search, so this ends.
  for (size_t tries = 0; tries <= state.jobs.size() + 1; ++tries) {
    share_out(round, admit(round));
    Assignment answer;
    size_t failed = 0;
    if (choose(round, answer, &failed)) return answer;
    Share& share = round.shares[failed];
    if (share.job->running) {
      share.frozen = true;
      share.least = share.most = uint32_t(share.held.size());
    } else if (share.job->id == state.next_turn && !alone) {
      alone = true;  // before it gets nothing at all, those behind it do
      put_behind(round, share);
    } else {
      share.out = true;
      share.reason = no_set_because(*share.job);
    }
    for (Share& each : round.shares) {
      each.admitted = each.job->running;
      if (!each.out) each.reason.clear();
    }
  }
  Assignment unchanged;
  for (const JobView& job : state.jobs) {
    unchanged[job.id] = {.running = job.running, .reason = "waits for GPUs with enough memory", .places = job.places};
    for (GpuId& place : unchanged[job.id].places) {
      if (job.suspended) place = parking_place(state, job, place);
    }
  }
  return unchanged;
}

std::string why_impossible(const State& state, const JobView& job, bool min_given) {
  const size_t total = state.gpus.size();
  const char* plural = total == 1 ? "" : "s";
  if (total == 0) return "the pool has no GPUs; `tide gpus` shows its servers, `tide doctor` what is wrong";
  if (min_given && job.min_gpus > total) {
    return format("the pool has %zu GPU%s; --min %u asks for more. Use --min %zu or less", total, plural, job.min_gpus,
                  total);
  }
  if (!min_given && job.vgpus > total) {
    return format(
        "the pool has %zu GPU%s; -g %u asks for more. Use -g %zu, or --min %zu to let %u virtual GPUs share them",
        total, plural, job.vgpus, total, total, job.vgpus);
  }
  const uint32_t memory_needs = gpus_for_memory(state, job);
  if (memory_needs > total) {
    return format("%u virtual GPUs with that --gpu-memory do not fit into the pool's %zu GPU%s. Ask for less memory",
                  job.vgpus, total, plural);
  }
  return "";
}

}  // namespace tide::sched
