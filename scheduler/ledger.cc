#include "scheduler/ledger.h"

#include <algorithm>
#include <charconv>

namespace tide::sched {
namespace {

// Where the policy takes it to be. What was parked, and is not to be any more, counts as where it came from.
GpuId place_of(const Job& job, const Vgpu& vgpu) {
  const bool on_its_way = vgpu.doing == Doing::kPlacing || vgpu.doing == Doing::kMoving;
  const GpuId& now = on_its_way ? vgpu.to : vgpu.at;
  if (!job.record.suspended && now.parked() && !vgpu.home.none()) return vgpu.home;
  return on_its_way || vgpu.wish.none() || vgpu.at.none() ? now : vgpu.wish;
}

}  // namespace

bool Job::holds_gpus() const {
  for (const Vgpu& vgpu : vgpus) {
    if (!vgpu.at.none() || !vgpu.to.none()) return true;
  }
  return false;
}

uint32_t Job::physical_gpus() const {
  if (vgpus.size() == 1) return vgpus[0].at.on_gpu() ? 1 : 0;
  std::set<GpuId> gpus;
  for (const Vgpu& vgpu : vgpus) {
    if (vgpu.at.on_gpu()) gpus.insert(vgpu.at);
  }
  return uint32_t(gpus.size());
}

bool Job::is_parked() const {
  return std::all_of(vgpus.begin(), vgpus.end(), [](const Vgpu& v) { return v.at.parked(); });
}

bool Job::is_quiet() const {
  return std::all_of(vgpus.begin(), vgpus.end(), [](const Vgpu& v) { return v.doing == Doing::kNothing; });
}

Disturbed Job::disturbed(const DisturbanceRules& rules) const {
  return {.min_runtime_ms = rules.min_runtime(record.min_runtime_ms, record.queue),
          .useful_ms = record.useful_ms - std::min(record.useful_ms, useful.began_ms),
          .when = &record.disturbed_ms};
}

JobView view_of(const Job& job) {
  JobView view{.id = job.record.id(),
               .vgpus = job.record.gpus,
               .min_gpus = job.record.min_gpus,
               .part = job.record.part,
               .target = job.record.target,
               .memory_bytes = job.record.memory_bytes,
               .memory_given = job.record.memory_given != 0,
               .running = job.admitted(),
               .suspended = job.record.suspended,
               .pinned = job.record.pinned,
               .places = {},
               .failed_on = {},
               .keeps = {},
               .refused_by = job.refused_by,
               .require = job.record.require};
  view.priority = job.record.priority;
  view.job_class = job.record.job_class;
  view.powers_of_two = job.record.powers_of_two;
  // Inference keeps what it wants, unless its user says with how little it can do.
  if (view.job_class == JobClass::kInference && !job.record.min_given) view.min_gpus = view.want();
  const TurnRecord& turn = job.record.turn;
  view.switch_ms = turn.suspend_ms != 0 && turn.resume_ms != 0 ? turn.suspend_ms + turn.resume_ms : 0;
  view.bytes = job.turn.bytes;
  view.useful_ms = job.record.useful_ms;
  view.estimate_ms = job.record.estimate_ms;
  view.moves_for = job.moves_for;
  view.deadline_ms = job.record.deadline_ms;
  view.reservation = job.record.reservation;
  const Expectation& expected = job.expected;
  if (expected.is.word != Word::kNone) view.left_ms = expected.is.left_ms;
  if (view.running) {
    view.ends_ms = expected.ends_ms;
    view.passes = expected.passes;
    view.overrun = expected.overrun;
  }
  view.place = expected.place;
  for (const auto& [server, until_ns] : job.failed_on) view.failed_on.insert(server);
  for (const Vgpu& vgpu : job.vgpus) {
    view.places.push_back(place_of(job, vgpu));
    if (job.being_suspended() && !vgpu.home.none()) view.keeps.insert(vgpu.home);
    if (vgpu.at.on_gpu()) view.failed_moves = std::max(view.failed_moves, vgpu.failures);
  }
  return view;
}

Expected expected_now(const Job& job) {
  Expected is = job.expected.is;
  const uint64_t since_ms = job.record.useful_ms - std::min(job.record.useful_ms, job.expected.ran_ms);
  is.left_ms -= std::min(since_ms, is.left_ms - 1);
  return is;
}

void Ledger::describe(Server* server) const {
  const auto found = traits.find(server->name);
  const ServerTraits from = found == traits.end() ? ServerTraits() : found->second;
  for (Gpu& gpu : server->gpus) {
    gpu.traits = std::make_shared<const GpuTraits>(
        GpuTraits{.model = gpu.name, .network_switch = from.network_switch, .labels = from.labels});
  }
}

std::vector<GpuView> Ledger::gpus_of(const Server& server) const {
  std::vector<GpuView> gpus;
  const bool draining = is_draining(server.name);
  for (const Gpu& gpu : server.gpus) {
    gpus.push_back({.id = {server.name, gpu.index},
                    .memory_bytes = gpu.memory_bytes,
                    .online = server.online,
                    .healthy = gpu.healthy && !draining,
                    .draining = gpu.healthy && draining,
                    .traits = gpu.traits});
  }
  return gpus;
}

State Ledger::pool() const {
  State state;
  state.consolidate = consolidate;
  for (const ReservationConfig& reservation : reservations) state.reservations.push_back(reservation.is);
  for (const auto& [name, server] : servers) {
    for (GpuView& gpu : gpus_of(server)) state.gpus.push_back(std::move(gpu));
  }
  return state;
}

State Ledger::snapshot() const {
  State state = pool();
  for (const auto& [number, job] : jobs) {
    if (!job.ended()) state.jobs.push_back(view_of(job));
  }
  if (!queues.written) return state;
  std::vector<std::string> names;
  for (const auto& [number, job] : jobs) {
    if (!job.ended()) names.push_back(job.record.queue);
  }
  put_into_queues(queues, names, &state);
  return state;
}

void Ledger::add_present(const Job& job, uint64_t now_ns, std::vector<Present>* present) {
  const bool holds = job.suspending == Suspending::kWaiting || job.suspending == Suspending::kHolding;
  const bool waits = holds && !job.ended() && now_ns != UINT64_MAX;
  for (uint32_t v = 0; v < job.vgpus.size(); ++v) {
    const Vgpu& vgpu = job.vgpus[v];
    present->push_back({.job = job.record.id(),
                        .vgpu = v,
                        .at = vgpu.at,
                        .to = vgpu.to,
                        .doing = vgpu.doing,
                        .portion = job.record.portion(),
                        .leaving = job.ended(),
                        .held_back = waits || vgpu.retry_ns > now_ns});
  }
}

uint64_t parse_number(const std::string& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : 0;
}

Job* Ledger::by_id(const std::string& id) {
  const uint64_t number = parse_number(id);
  Job* const job = jobs.quietly(number);
  if (job != nullptr) jobs.mark(number);
  return job;
}

Job* Ledger::find(const std::string& id_or_name) {
  if (Job* job = by_id(id_or_name)) return job;
  if (id_or_name.empty()) return nullptr;
  for (auto it = jobs.read().rbegin(); it != jobs.read().rend(); ++it) {
    if (!it->second.ended() && it->second.record.name == id_or_name) return by_id(it->second.record.id());
  }
  return nullptr;
}

const Server* Ledger::server(const std::string& name) const {
  const auto found = servers.find(name);
  return found == servers.end() ? nullptr : &found->second;
}

const Gpu* Ledger::gpu(const GpuId& id) const {
  const auto found = servers.find(id.server);
  if (found == servers.end()) return nullptr;
  for (const Gpu& gpu : found->second.gpus) {
    if (gpu.index == id.index) return &gpu;
  }
  return nullptr;
}

std::map<std::string, Portion> Ledger::holders(const GpuId& id) const {
  std::map<std::string, Portion> portions;
  for (const auto& [number, job] : jobs) {
    for (const Vgpu& vgpu : job.vgpus) {
      const bool there = vgpu.at == id || vgpu.to == id || vgpu.home == id || vgpu.wish == id;
      if (there) portions[job.record.id()] = job.record.portion();
    }
  }
  return portions;
}

void to_record(Job* job) {
  job->record.vgpus.resize(job->vgpus.size());
  for (size_t v = 0; v < job->vgpus.size(); ++v) {
    const Vgpu& vgpu = job->vgpus[v];
    job->record.vgpus[v] = {.at = vgpu.at,
                            .home = vgpu.home,
                            .epoch = vgpu.last_epoch,
                            .device_info = vgpu.device_info,
                            .guard = vgpu.protection.guard};
  }
}

Job from_record(const JobRecord& record) {
  Job job;
  job.record = record;
  job.started = record.started_ms != 0;
  job.vgpus.resize(record.gpus);
  for (size_t v = 0; v < job.vgpus.size() && v < record.vgpus.size(); ++v) {
    const VgpuRecord& from = record.vgpus[v];
    job.vgpus[v] = {.at = from.at,
                    .to = {},
                    .wish = {},
                    .home = from.home,
                    .epoch = from.epoch,
                    .last_epoch = from.epoch,
                    .device_info = from.device_info,
                    .last_move = {},
                    .protection = {.guard = from.guard}};
  }
  return job;
}

}  // namespace tide::sched
