#include "scheduler/policy.h"

#include <algorithm>

#include "base/log.h"
#include "scheduler/actions/actions.h"
#include "scheduler/expect.h"
#include "scheduler/models.h"
#include "scheduler/reservations.h"
#include "scheduler/room.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

bool drains(const FreeGpus& gpus, ServerIndex server) {
  for (GpuIndex gpu = gpus.first(server); gpu < gpus.end(server); ++gpu) {
    if (gpus.view(gpu).draining) return true;
  }
  return false;
}

// At its own server the vGPU's memory need not cross the network. A server that does not answer now may do so again;
// one that is being drained keeps only what no other one can.
GpuId parking_place(const FreeGpus& gpus, const JobView& job, const GpuId& from) {
  if (from.parked() || from.none()) return from;
  const bool refused = job.refused_by.count(from.server) != 0;
  const ServerIndex own = gpus.find_server(from.server);
  if (!refused && (own == kNoServer || !drains(gpus, own))) return {from.server, kParked};
  if (job.refused_by.size() < kParkTriesMax) {
    for (ServerIndex server = 0; server < gpus.servers(); ++server) {
      const bool open = server != own && gpus.answers(server) && !drains(gpus, server);
      if (open && job.refused_by.count(gpus.name_of(server)) == 0) return {gpus.name_of(server), kParked};
    }
  }
  return refused ? from : GpuId{from.server, kParked};
}

std::string waits_because(const Tentative& plan, const Share& share, int64_t left) {
  const int64_t total = plan.total();
  if (total == 0) return "the pool has no GPU online; `tide gpus` shows its servers";
  if (share.job->is_partial()) {
    return format("needs %s of a GPU; none that is shared has so much left, and %ld of %ld can be free while the jobs ",
                  part_text(share.job->part).c_str(), long(std::max<int64_t>(left, 0)), long(total)) +
           "before it keep their minimum";
  }
  const std::string need = format("needs %u GPU%s", share.is.least, share.is.least == 1 ? "" : "s");
  if (int64_t(share.is.least) > total) return need + format(", %ld online", long(total));
  return need + format("; %ld of %ld can be free while the jobs before it keep their minimum",
                       long(std::max<int64_t>(left, 0)), long(total));
}

std::string no_set_because(const JobView& job) {
  if (!job.failed_on.empty()) return "resuming it failed on the server that has room; it is tried there again soon";
  return "no set of free GPUs has memory for its virtual GPUs; ask for less with --gpu-memory";
}

// Why it does not pass the one for which the pool drains.
std::string why_not_passing(const Tentative& plan, const Share& share) {
  if (plan.blocked_until_ms == 0) return "; when that can start is not known";
  const uint64_t now_ms = plan.now_ms(), at_ms = plan.blocked_until_ms;
  const std::string when = at_ms > now_ms ? "in " + about_text(at_ms - now_ms) : "as soon as others end";
  const std::string then = "; that is expected to start " + when + ", and ";
  const uint64_t ends_ms = end_if_started(*share.job, now_ms);
  if (ends_ms == 0) return then + "how long this one will run is not known (--estimate)";
  if (ends_ms <= at_ms) return then + "there is no room for this one before";
  return then + "this one would not be over in time: it is expected to run " + about_text(ends_ms - now_ms);
}

std::string waits_behind(const Tentative& plan, const Share& share, Slot slot) {
  const JobView& job = *plan.share(slot).job;
  if (job.due_gpus != 0) return "waits behind job " + job.id + ", to which a deadline was promised";
  const std::string behind = "waits its turn behind job " + job.id + ", which has waited longest";
  return plan.turns() || plan.blocked_by != slot ? behind : behind + why_not_passing(plan, share);
}

// What was left when it was looked at.
int64_t left_for(const Tentative& plan, const Share& share) {
  const auto& started = plan.started;
  const auto after = std::lower_bound(started.begin(), started.end(), std::pair(plan.order_of(share), INT64_MIN));
  return after == started.begin() ? plan.left_first : std::prev(after)->second;
}

std::string waits_in_queue(const Tentative& plan, const Share& share) {
  const int32_t leaf = plan.leaf_of(*share.job);
  int32_t by = leaf;
  if (headroom(plan.queues(), plan.queue_shares, leaf, &by) < need_of(share))
    return "queue " + plan.queues().queues[size_t(by)].name + " has all that it may have";
  const bool behind = plan.blocked_by != kNoSlot && plan.share(plan.blocked_by).job != share.job;
  const bool has_room = int64_t(share.is.least) <= plan.left_last;
  if (behind && has_room) return waits_behind(plan, share, plan.blocked_by);
  return waits_because(plan, share, plan.left_last);
}

void put_out(Tentative& plan, Slot slot, Why why, Slot behind) {
  Share& share = plan.share(slot);
  Standing is = share.is;
  is.out = true;
  plan.stand(slot, is);
  share.why = why;
  share.behind = behind;
  plan.make_sore(slot);
}

// Who waits, and has waited less long than the one whose turn is next, waits on.
void put_behind(Tentative& plan, Slot next) {
  const uint64_t ticket = plan.share(next).job->turn.ticket;
  for (Slot slot = 0; slot < plan.shares().size(); ++slot) {
    const Share& share = plan.share(slot);
    if (!share.known || share.job->running || share.job->suspended || share.is.out) continue;
    if (share.job->turn.ticket > ticket) put_out(plan, slot, Why::kBehind, next);
  }
}

// False: `failed` cannot be placed.
bool try_plan(Tentative& plan, Slot* failed) {
  const int64_t reserved = start_jobs(plan);
  move_instead_of_shrinking(plan, reserved);
  share_out(plan, reserved);
  return choose(plan, failed);
}

}  // namespace

bool yields(const Share& share) { return share.is.admitted && !share.is.frozen && !share.job->yields_to.empty(); }

namespace {

bool somebody_leaves(const Tentative& plan) {
  return std::any_of(plan.shares().begin(), plan.shares().end(), [](const Share& share) {
    return share.known && share.is.admitted && (share.job->suspended || yields(share));
  });
}

bool could_lie_there(const Tentative& plan, const JobView& job, const JobView& other) {
  for (GpuIndex gpu = 0; gpu < plan.gpus().size(); ++gpu) {
    const GpuView& view = plan.gpus().view(gpu);
    if (capacity(job, view) > 0 && capacity(other, view) > 0) return true;
  }
  return false;
}

// What is free will not do for who is due, but what others leave will: nobody begins on that before.
void put_others_behind(Tentative& plan, Slot due) {
  for (Slot slot = 0; slot < plan.shares().size(); ++slot) {
    const Share& share = plan.share(slot);
    if (!share.known || share.job->running || share.job->suspended || share.is.out || share.job->due_gpus != 0)
      continue;
    if (could_lie_there(plan, *plan.share(due).job, *share.job)) put_out(plan, slot, Why::kBehind, due);
  }
}

}  // namespace

bool make_plan(Tentative& plan) {
  plan.begin();
  bool alone = false;
  // Each failure takes one job out of the search, so this ends.
  for (size_t tries = 0; tries <= plan.shares().size() + 1; ++tries) {
    const size_t before = plan.checkpoint();
    Slot failed = kNoSlot;
    if (try_plan(plan, &failed)) {
      consolidate(plan, before, [&](Tentative& again) { return try_plan(again, &failed); });
      reclaim(plan);
      end_overruns(plan);
      return true;
    }
    plan.rollback(before);
    const JobView& job = *plan.share(failed).job;
    if (job.running) {
      plan.freeze(failed);
    } else if (job.id == plan.next_turn() && !alone) {
      alone = true;  // before it gets nothing at all, those behind it do
      put_behind(plan, failed);
    } else {
      put_out(plan, failed, Why::kNoSet, kNoSlot);
      if (job.due_gpus != 0 && somebody_leaves(plan)) put_others_behind(plan, failed);
    }
  }
  return false;
}

Decision decision_of(const Tentative& plan, Slot slot) {
  const Share& share = plan.share(slot);
  const JobView& job = *share.job;
  Decision decision{.running = share.is.admitted, .reason = "", .places = {}};
  if (share.taken_for != kNoSlot || yields(share)) {
    decision.running = false;
    decision.places = job.places;
    return decision;
  }
  if (share.is.admitted && !share.is.frozen) {
    decision.places = share.places;
    if (share.is.moved_for != kNoSlot && share.places != job.places)
      decision.moved_for = plan.share(share.is.moved_for).job->id;
    if (share.is.passes != kNoSlot && !job.running) decision.passes = plan.share(share.is.passes).job->id;
    return decision;
  }
  decision.places = job.places;
  for (GpuId& place : decision.places) {
    if (job.suspended) place = parking_place(plan.gpus(), job, place);
  }
  return decision;
}

std::string reason_of(const Tentative& plan, Slot slot) {
  const Share& share = plan.share(slot);
  const JobView& job = *share.job;
  if (share.taken_for != kNoSlot) {
    const JobView& other = *plan.share(share.taken_for).job;
    if (job.overrun)
      return "gives its GPUs to job " + other.id + ", which it passed, since it was expected to be over by now";
    const bool same = plan.leaf_of(job) == plan.leaf_of(other);
    return "gives its GPUs to job " + other.id +
           (same ? ", which has a higher priority" : ", whose queue is owed them");
  }
  if (yields(share)) return "gives its GPUs to job " + job.yields_to + ", to which a deadline was promised";
  if (share.is.admitted) return "";
  if (!job.kept_out_for.empty() && !job.suspended)
    return "waits until job " + job.kept_out_for +
           " ends, to which its GPUs are promised: nothing could be taken from it again";
  if (share.is.out) return share.why == Why::kBehind ? waits_behind(plan, share, share.behind) : no_set_because(job);
  if (job.suspended) return "kept without a GPU until `tide resume " + job.id + "`";
  if (share.away) return "waits for the server that keeps it, which does not answer";
  if (plan.looked_at_each) {
    if (share.why == Why::kNoSet) return no_set_because(job);
    if (share.why == Why::kBehind) return waits_behind(plan, share, share.behind);
    return waits_because(plan, share, share.left);
  }
  if (!job.failed_on.empty() && int64_t(share.is.least) > plan.open_to(job)) return no_set_because(job);
  if (plan.has_queues()) return waits_in_queue(plan, share);
  const bool behind = plan.blocked_by != kNoSlot && plan.blocked_by != slot && plan.blocked_from < plan.order_of(share);
  return behind ? waits_behind(plan, share, plan.blocked_by) : waits_because(plan, share, left_for(plan, share));
}

namespace {

Assignment assign_plain(const State& state) {
  Tentative plan(state);
  for (const JobView& job : state.jobs) plan.add(&job, plan.shares().size());
  const bool possible = make_plan(plan);
  Assignment answer;
  for (Slot slot = 0; slot < state.jobs.size(); ++slot) {
    const JobView& job = state.jobs[slot];
    Decision decision = decision_of(plan, slot);
    if (possible) {
      decision.reason = reason_of(plan, slot);
    } else {
      decision.running = job.running;
      decision.reason = "waits for GPUs with enough memory";
      if (!job.suspended) decision.places = job.places;
    }
    answer.emplace_hint(answer.end(), job.id, std::move(decision));
  }
  return answer;
}

// Of one pool, without reservations.
Assignment assign_pool(const State& state) {
  if (!has_models(state.queues)) return assign_plain(state);
  State barred = state;
  const KeptGpus kept = bar_by_model(&barred);
  Assignment answer = assign_plain(barred);
  displace_by_model(barred, kept, &answer);
  for (const JobView& job : state.jobs) {
    if (job.running || job.suspended || answer.at(job.id).running) continue;
    const std::string why = why_barred(state, job);
    if (!why.empty()) answer.at(job.id).reason = why;
  }
  return answer;
}

}  // namespace

Assignment assign(const State& state) {
  if (state.reservations.empty()) return assign_pool(state);
  Division division = divide(state);
  Assignment answer = assign_pool(division.rest);
  displace(state, division, &answer);
  answer.merge(division.waiting);
  for (const Reserved& each : division.reserved) {
    Assignment own = assign_pool(each.pool);
    answer.merge(own);
  }
  return answer;
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
