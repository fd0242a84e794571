#include "scheduler/pool_reservations.h"

#include <algorithm>
#include <map>

#include "base/log.h"
#include "scheduler/pool_service.h"
#include "scheduler/reservations.h"
#include "scheduler/spread.h"

namespace tide::sched {
namespace {

using Texts = std::vector<std::string>;

std::string joined(const Texts& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ", ") + text;
  return all;
}

// The queue itself, or one above it.
bool is_in(const QueueTree& tree, const std::string& queue, const Texts& names) {
  for (int32_t at = tree.find(queue); at != kNoQueue; at = tree.queues[size_t(at)].parent) {
    if (std::find(names.begin(), names.end(), tree.queues[size_t(at)].name) != names.end()) return true;
  }
  return false;
}

bool may_use(const ReservationConfig& reservation, const QueueTree& tree, const JobRecord& job) {
  if (reservation.users.empty() && reservation.queues.empty()) return true;
  const Texts& users = reservation.users;
  return std::find(users.begin(), users.end(), job.user) != users.end() || is_in(tree, job.queue, reservation.queues);
}

std::string who_may(const ReservationConfig& reservation) {
  std::string text;
  if (!reservation.users.empty()) text = "user " + joined(reservation.users);
  if (!reservation.queues.empty())
    text += (text.empty() ? "" : ", and ") + ("jobs in queue " + joined(reservation.queues));
  return text;
}

// GPUs that the job could have at once, as far as they have to lie together.
uint32_t most_together(const State& state, const JobView& job) {
  std::map<std::string, uint32_t> groups;
  uint32_t most = 0;
  for (const GpuView& gpu : state.gpus) {
    if (sched::may_use(job, gpu)) most = std::max(most, ++groups[group_of(job, gpu)]);
  }
  return most;
}

// Why it can never run on these GPUs; empty: it can.
std::string why_too_large(const State& state, const Reservation& is, JobView job, bool min_given) {
  const std::string has = "reservation '" + is.name + format("' has %u GPU%s", is.gpus, is.gpus == 1 ? "" : "s");
  if (!min_given && job.vgpus > is.gpus) {
    return has + format("; -g %u asks for more. Use -g %u, or --min %u to let %u virtual GPUs share them", job.vgpus,
                        is.gpus, is.gpus, job.vgpus);
  }
  if (min_given && job.min_gpus > is.gpus)
    return has + format("; --min %u asks for more. Use --min %u or less", job.min_gpus, is.gpus);
  State own = state;
  std::erase_if(own.gpus, [&](const GpuView& gpu) { return !is_for(is, gpu); });
  const bool any =
      std::any_of(own.gpus.begin(), own.gpus.end(), [&](const GpuView& gpu) { return sched::may_use(job, gpu); });
  if (!own.gpus.empty() && !any)
    return "no GPU that reservation '" + is.name + "' may have (" + to_text(is.require) +
           ") is what the job requires (" + to_text(job.require) + ")";
  if (const uint32_t most = most_together(own, job), least = min_given ? job.min_gpus : job.vgpus; least > most && any)
    return has + format("; of those that it may have, %u lie together as the job requires (%s), and it needs %u", most,
                        to_text(job.require).c_str(), least);
  if (!own.gpus.empty() && gpus_for_memory(own, job) > is.gpus)
    return has + format("; %u virtual GPUs with that --gpu-memory need more. Ask for less memory", job.vgpus);
  return "";
}

}  // namespace

Outcome may_use_reservation(const Ledger& ledger, const State& state, const JobView& view, const JobRecord& job,
                            uint64_t now_ms) {
  if (job.reservation.empty()) return {};
  const auto found = std::find_if(ledger.reservations.begin(), ledger.reservations.end(),
                                  [&](const ReservationConfig& each) { return each.is.name == job.reservation; });
  if (found == ledger.reservations.end()) {
    Texts names;
    for (const ReservationConfig& each : ledger.reservations) names.push_back(each.is.name);
    return Outcome::fail("there is no reservation '" + job.reservation.substr(0, 80) + "'; " +
                         (names.empty() ? "the pool has none" : "there are " + joined(names)));
  }
  if (found->is.over(now_ms)) {
    return Outcome::fail("reservation '" + job.reservation + "' is over since " + time_text(found->is.until_ms) +
                         "; leave --reservation out");
  }
  if (!may_use(*found, ledger.queues.tree, job)) {
    return Outcome::fail("reservation '" + job.reservation + "' is for " + who_may(*found) + "; this job is of user " +
                         job.user + ", in queue " + job.queue);
  }
  const std::string impossible = why_too_large(state, found->is, view, job.min_given);
  return impossible.empty() ? Outcome() : Outcome::fail(impossible);
}

kj::Promise<void> PoolService::reservations(ReservationsContext context) {
  const State state = core_.reconciler.look();
  const std::vector<ReservationState> states = states_of(state);
  auto list = context.getResults().initReservations(uint32_t(states.size()));
  const auto fill = [](auto out, const auto& texts) {
    uint32_t i = 0;
    for (const std::string& text : texts) out.set(i++, text);
  };
  for (uint32_t i = 0; i < list.size(); ++i) {
    const ReservationConfig& config = core_.ledger.reservations[i];
    auto out = list[i];
    out.setName(config.is.name);
    out.setGpus(config.is.gpus);
    out.setGpuModel(config.is.require.model);
    fill(out.initLabels(uint32_t(config.is.require.labels.size())), config.is.require.labels);
    out.setFromMs(config.is.from_ms);
    out.setUntilMs(config.is.until_ms);
    fill(out.initUsers(uint32_t(config.users.size())), config.users);
    fill(out.initQueues(uint32_t(config.queues.size())), config.queues);
    out.setExclusive(config.is.exclusive);
    out.setBegun(config.is.begun(state.now_ms));
    out.setOver(config.is.over(state.now_ms));
    out.setKept(uint32_t(states[i].kept));
    out.setUsed(uint32_t(states[i].used));
    out.setThere(uint32_t(states[i].there));
    out.setRunningJobs(states[i].running);
    out.setWaitingJobs(states[i].waiting);
  }
  return kj::READY_NOW;
}

}  // namespace tide::sched
