// Between the wire's structs and ours; everything that comes in is checked here.

#include <algorithm>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/shares.h"
#include "scheduler/pool_promises.h"
#include "scheduler/pool_service.h"
#include "scheduler/rank.h"
#include "scheduler/room.h"
#include "scheduler/turns.h"
#include "transport/layout.h"

namespace tide::sched {
namespace {

bool plain_name(const std::string& name, size_t bytes_max) {
  if (name.empty() || name.size() >= bytes_max) return false;
  for (const char c : name) {
    if (!isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') return false;
  }
  return true;
}

// Words with spaces between.
bool plain_model(const std::string& text) {
  if (text.size() > kIdBytes || !isalnum(static_cast<unsigned char>(text.front()))) return false;
  for (const char c : text) {
    if (!isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.' && c != ' ') return false;
  }
  return true;
}

constexpr uint32_t kLabelsMax = 64;
constexpr int32_t kPriorityMost = 1000;
constexpr uint64_t kProtectMsLeast = 200;
constexpr uint64_t kIdleMsMax = 366ull * 24 * 3600 * 1000;

std::string clipped(capnp::Text::Reader text) { return std::string(text.cStr()).substr(0, kTextBytesMax); }

void fill_protection(control::ProtectionInfo::Builder info, const Vgpu& vgpu) {
  const Protection& from = vgpu.protection;
  info.setGuard(from.guard.server);
  info.setSameServer(!from.guard.server.empty() && from.guard.server == vgpu.at.server);
  info.setMadeMs(from.guard.made_ms);
  info.setProblem(from.problem);
  info.setRefused(from.refused);
  info.setRecoveries(from.recoveries_all);
  auto last = info.initLast();
  last.setBytes(from.last.bytes);
  last.setPauseBytes(from.last.pause_bytes);
  last.setPauseMs(from.last.pause_ms);
  last.setDrainMs(from.last.drain_ms);
  last.setCopyMs(from.last.copy_ms);
  last.setTotalMs(from.last.total_ms);
  last.setCpuMs(from.last.cpu_ms);
  last.setRounds(from.last.rounds);
  last.setSessions(from.last.sessions);
}

uint64_t until_ms(uint64_t end_ns) {
  const uint64_t now = now_ns();
  return end_ns > now ? (end_ns - now) / 1'000'000 : 0;
}

// "about 12 s"; what is less than a second away comes now.
std::string about(uint64_t end_ns) {
  const uint64_t s = (until_ms(end_ns) + 500) / 1000;
  return s == 0 ? "which comes now" : format("about %lu s", (unsigned long)s);
}

// Where somebody waits for the end of its turn, or switching has failed before.
std::string turn_of(const Job& job) {
  const Turn& turn = job.turn;
  const uint32_t strain = job.record.turn.strain;
  if (strain >= kStrainMax && turn.length_ms == kEndless) {
    return "keeps its GPUs until it ends: taking turns failed or was not worth it too often";
  }
  if (turn.next.empty()) return "";
  const uint64_t s = (until_ms(turn.ends_ns) + 500) / 1000;
  std::string text =
      format("has its turn for about %lu s more, then it is the turn of job ", (unsigned long)s) + turn.next;
  if (strain != 0)
    text += format("; its turns are %u times as long, because switching failed or was not worth it", 1u << strain);
  return text;
}

std::string reason_of(const Job& job) {
  if (job.ended()) return job.record.reason;
  if (!job.problem.empty()) return job.problem;
  if (job.being_suspended() && job.record.turn.yielding)
    return (job.taken.empty() ? "its turn is over" : job.taken) + ": it is being suspended";
  if (job.being_suspended()) return "is being suspended";
  if (job.record.idled) return "gave its GPUs back, because it did nothing; its next call brings it back";
  if (job.started && job.admitted()) {
    const bool parked = std::any_of(job.vgpus.begin(), job.vgpus.end(), [](const Vgpu& v) { return v.at.parked(); });
    return parked ? "is being resumed" : turn_of(job);
  }
  if (job.turn.comes_ns != 0 && !job.admitted()) return "waits for its turn, " + about(job.turn.comes_ns);
  if (job.started && !job.record.suspended) return "waits to run again: " + job.record.reason;
  if (job.admitted()) return "starts: its virtual GPUs are being placed";
  return job.record.reason.empty() ? "waits to be looked at" : job.record.reason;
}

// What the job requires of its GPUs.
Outcome read_requirements(control::JobSpec::Reader spec, Requirements* require) {
  require->model = clipped(spec.getGpuModel());
  if (!require->model.empty() && !plain_model(require->model))
    return Outcome::fail("--gpu-model is words of a GPU's name, like H200, of letters, digits, '-', '_' and '.'");
  if (spec.getLabels().size() > kLabelsMax)
    return Outcome::fail(format("a job requires at most %u labels", kLabelsMax));
  for (const auto label : spec.getLabels()) {
    const std::string text = clipped(label);
    if (!is_label(text)) return Outcome::fail("'" + text + "' is no label; it is KEY=VALUE, like rack=a");
    require->labels.insert(text);
  }
  if (uint16_t(spec.getTogether()) > uint16_t(control::Together::SWITCH))
    return Outcome::fail("--together is server or switch");
  require->together = Together(spec.getTogether());
  return {};
}

// Who comes first, and what may be done to it for others' sake.
Outcome read_rules(control::JobSpec::Reader spec, JobRecord* record) {
  record->priority = spec.getPriority();
  record->min_runtime_ms = std::min(spec.getMinRuntimeMs(), kIdleMsMax);
  record->powers_of_two = spec.getPowersOfTwo();
  if (record->priority < -kPriorityMost || record->priority > kPriorityMost)
    return Outcome::fail(
        format("--priority is between %d and %d, not %d", -kPriorityMost, kPriorityMost, record->priority));
  if (uint16_t(spec.getJobClass()) > uint16_t(control::JobClass::AS_QUEUE_SAYS))
    return Outcome::fail("--class is batch, interactive or inference");
  record->job_class =
      spec.getJobClass() == control::JobClass::AS_QUEUE_SAYS ? JobClass::kBatch : JobClass(spec.getJobClass());
  if (!record->powers_of_two) return {};
  if (record->part < kWholeGpu) return Outcome::fail("--powers-of-two is for whole GPUs");
  const JobView like{.id = {}, .vgpus = record->gpus, .places = {}, .powers_of_two = true};
  if (record->min_given && !may_have(like, record->min_gpus)) {
    return Outcome::fail(format("with --powers-of-two a job has %s GPUs; --min %u is none of that",
                                counts_text(like).c_str(), record->min_gpus));
  }
  return {};
}

void fill_rules(control::JobSpec::Builder spec, const JobRecord& record) {
  spec.setPriority(record.priority);
  spec.setJobClass(control::JobClass(record.job_class));
  spec.setMinRuntimeMs(record.min_runtime_ms);
  spec.setPowersOfTwo(record.powers_of_two);
}

}  // namespace

control::JobState state_of(const Job& job) {
  if (job.ended()) return control::JobState::ENDED;
  if (!job.started) return control::JobState::QUEUED;
  const bool restored = std::any_of(job.vgpus.begin(), job.vgpus.end(), [](const Vgpu& v) { return v.at.none(); });
  return job.physical_gpus() == 0 && !restored ? control::JobState::SUSPENDED : control::JobState::RUNNING;
}

Outcome read_spec(control::JobSpec::Reader spec, JobRecord* record) {
  record->gpus = spec.getGpus();
  record->min_gpus = spec.getMinGpus();
  record->min_given = spec.getMinGiven();
  record->part = spec.getPart() == 0 ? kWholeGpu : spec.getPart();
  record->weight = spec.getWeight();
  record->memory_given = spec.getMemoryBytes();
  record->queue = clipped(spec.getQueue());
  record->name = clipped(spec.getName());
  record->user = clipped(spec.getUser());
  record->command = clipped(spec.getCommand());
  record->pid = spec.getPid();
  record->idle_ms = spec.getIdleMs() == UINT64_MAX ? 0 : std::min(spec.getIdleMs(), kIdleMsMax);
  record->turn.excluded = spec.getNoTurns();
  record->protect_ms = std::min(spec.getProtectMs(), kIdleMsMax);
  if (record->protect_ms != 0 && record->protect_ms < kProtectMsLeast) {
    return Outcome::fail(format("--protect is at least %lu ms", (unsigned long)kProtectMsLeast));
  }
  if (record->gpus < 1 || record->gpus > kVgpusMax) {
    return Outcome::fail(format("a job has 1 to %u GPUs, not %u", kVgpusMax, record->gpus));
  }
  if (record->min_gpus < 1 || record->min_gpus > record->gpus) {
    return Outcome::fail(
        format("--min must be between 1 and the job's %u GPUs, not %u", record->gpus, record->min_gpus));
  }
  if (record->part < kPartLeast || record->part > kWholeGpu) {
    return Outcome::fail(
        format("a part of a GPU is %s to 1, not %s", part_text(kPartLeast).c_str(), part_text(record->part).c_str()));
  }
  if (record->part < kWholeGpu && (record->gpus != 1 || record->min_given)) {
    return Outcome::fail("a job with a part of a GPU has one virtual GPU, and no --min");
  }
  record->reservation = clipped(spec.getReservation());
  if (record->weight > kWeightMost || (record->weight != 0 && record->part == kWholeGpu)) {
    return Outcome::fail(format("--weight is 1 to %u, of a job with a part of a GPU (-g 0.5)", kWeightMost));
  }
  if (const Outcome read = read_requirements(spec, &record->require); !read.ok()) return read;
  if (const Outcome read = read_rules(spec, record); !read.ok()) return read;
  if (const Outcome read = read_promise(spec, wall_seconds() * 1000, record); !read.ok()) return read;
  if (!record->name.empty() && (!plain_name(record->name, kIdBytes) || parse_number(record->name) != 0)) {
    return Outcome::fail("a job's name has letters, digits, '-', '_' and '.', at most 63, and is not a number");
  }
  return {};
}

Outcome read_server(control::ServerInfo::Reader info, Server* server) {
  server->name = info.getName().cStr();
  server->endpoint = info.getEndpoint().cStr();
  server->version = clipped(info.getVersion());
  if (!plain_name(server->name, kIdBytes)) {
    return Outcome::fail("a server's name has letters, digits, '-', '_' and '.', at most 63");
  }
  if (server->endpoint.empty() || server->endpoint.size() >= kEndpointBytes) {
    return Outcome::fail("the server's endpoint is empty or too long");
  }
  if (info.getGpus().size() > kServerGpusMax) {
    return Outcome::fail(format("a server has at most %u GPUs", kServerGpusMax));
  }
  std::set<uint32_t> seen;
  for (const auto gpu : info.getGpus()) {
    const auto device = gpu.getDeviceInfo();
    if (!seen.insert(gpu.getIndex()).second) return Outcome::fail("two GPUs of the server have the same index");
    if (device.size() > kDeviceInfoBytesMax) return Outcome::fail("a GPU's description is too long");
    server->gpus.push_back({.index = gpu.getIndex(),
                            .name = clipped(gpu.getName()),
                            .uuid = clipped(gpu.getUuid()),
                            .device_info = std::string(reinterpret_cast<const char*>(device.begin()), device.size()),
                            .memory_bytes = gpu.getMemoryBytes(),
                            .healthy = gpu.getHealthy(),
                            .software = gpu.getSoftware(),
                            .compute = gpu.getCompute(),
                            .traits = nullptr});
  }
  return {};
}

void fill_expected(control::ExpectedInfo::Builder info, const Job& job) {
  const Expected is = expected_now(job);
  info.setBy(is.word == Word::kGiven     ? control::ExpectedBy::USER
             : is.word == Word::kLearned ? control::ExpectedBy::LEARNED
                                         : control::ExpectedBy::NOBODY);
  info.setText(to_text(is));
  if (is.word != Word::kNone) info.setLeftMs(is.left_ms);
  if (is.word == Word::kLearned) info.setJobs(is.basis.jobs);
  info.setEndsMs(job.admitted() ? job.expected.ends_ms : 0);
  info.setPasses(job.admitted() ? job.expected.passes : "");
}

void fill_job_info(control::JobInfo::Builder info, const Job& job) {
  const JobRecord& record = job.record;
  info.setId(record.id());
  auto spec = info.initSpec();
  spec.setGpus(record.gpus);
  spec.setMinGpus(view_of(job).min_gpus);
  spec.setMinGiven(record.min_given);
  spec.setQueue(record.queue);
  spec.setName(record.name);
  spec.setMemoryBytes(record.memory_given);
  spec.setUser(record.user);
  spec.setCommand(record.command);
  spec.setPid(record.pid);
  spec.setIdleMs(record.idle_ms);
  spec.setNoTurns(record.turn.excluded);
  spec.setProtectMs(record.protect_ms);
  spec.setPart(record.part == kWholeGpu ? 0 : record.part);
  spec.setWeight(record.weight);
  spec.setGpuModel(record.require.model);
  fill_texts(spec.initLabels(uint32_t(record.require.labels.size())), record.require.labels);
  spec.setTogether(control::Together(record.require.together));
  fill_rules(spec, record);
  info.setUsefulMs(record.useful_ms);
  spec.setReservation(record.reservation);
  spec.setEstimateMs(record.estimate_ms);
  spec.setDeadlineMs(record.deadline_ms);
  fill_promise(info.initPromise(), job);
  info.setState(state_of(job));
  info.setReason(reason_of(job));
  info.setSubmittedMs(record.submitted_ms);
  info.setStartedMs(record.started_ms);
  info.setEndedMs(record.ended_ms);
  info.setPhysicalGpus(job.ended() ? 0 : job.physical_gpus());
  info.setExitStatus(record.exit_status);
  info.setTarget(record.target);
  info.setMoves(record.moves);
  info.setSuspended(record.suspended);
  info.setIdled(record.idled);
  info.setMemoryBytes(record.memory_bytes);
  if (job.ended()) return;
  fill_turn(info.initTurn(), job);
  fill_expected(info.initExpected(), job);
  auto vgpus = info.initVgpus(uint32_t(job.vgpus.size()));
  for (uint32_t v = 0; v < vgpus.size(); ++v) {
    vgpus[v].setVgpu(v);
    vgpus[v].setServer(job.vgpus[v].at.server);
    vgpus[v].setGpu(job.vgpus[v].at.index);
    vgpus[v].setEpoch(job.vgpus[v].epoch);
    if (record.protect_ms != 0) fill_protection(vgpus[v].initProtection(), job.vgpus[v]);
    vgpus[v].setMoving(job.vgpus[v].doing == Doing::kMoving);
    if (job.vgpus[v].last_move.vgpus != 0) fill_report(vgpus[v].initLastMove(), job.vgpus[v].last_move);
  }
}

// Nothing of it is said where jobs take no turns.
void fill_turn(control::TurnInfo::Builder info, const Job& job) {
  const Turn& turn = job.turn;
  if (turn.length_ms == 0) return;
  const TurnRecord& record = job.record.turn;
  info.setTaken(!record.excluded);
  info.setLengthMs(turn.length_ms);
  info.setNext(turn.next);
  info.setEndsMs(turn.next.empty() ? 0 : until_ms(turn.ends_ns));
  info.setWaits(turn.comes_ns != 0 && !job.admitted());
  info.setComesMs(turn.comes_ns != 0 ? until_ms(turn.comes_ns) : 0);
  info.setSwitchMs(record.suspend_ms + record.resume_ms);
  info.setDoubled(record.strain);
}

void fill_queue_info(control::QueueInfo::Builder info, const QueueState& queue) {
  info.setName(queue.queue.name);
  info.setParent(queue.parent);
  info.setLeaf(queue.queue.leaf());
  info.setInFile(queue.in_file);
  info.setQuota(uint64_t(queue.queue.quota));
  info.setLimit(queue.queue.limit == kNoLimit ? UINT64_MAX : uint64_t(queue.queue.limit));
  info.setOverQuotaWeight(queue.queue.weight);
  info.setPriority(queue.queue.priority);
  info.setPreemptible(queue.queue.preemptible);
  info.setFairShare(uint64_t(queue.share.fair));
  info.setAllocated(uint64_t(queue.share.allocated));
  info.setDemand(uint64_t(queue.share.demand));
  info.setRunningJobs(queue.running);
  info.setWaitingJobs(queue.waiting);
  info.setWaitingGpus(uint64_t(queue.waiting_for));
  info.setUsedGpuS(queue.used_gpu_s);
  info.setUsedPart(queue.share.used);
  auto models = info.initModels(uint32_t(queue.models.size()));
  for (uint32_t i = 0; i < models.size(); ++i) {
    const ModelState& from = queue.models[i];
    models[i].setModel(from.is.model);
    models[i].setQuota(from.is.quota);
    models[i].setLimit(from.is.limit.value_or(UINT32_MAX));
    models[i].setHeld(uint32_t(from.held));
    models[i].setThere(uint32_t(from.there));
  }
}

void fill_report(control::MoveReport::Builder report, const MoveTotals& totals) {
  report.setBytes(totals.bytes);
  report.setPauseMs(totals.pause_ms);
  report.setRounds(totals.rounds);
  report.setVgpus(totals.vgpus);
  report.setTotalMs(totals.total_ms);
  report.setPauseBytes(totals.pause_bytes);
  report.setDrainMs(totals.drain_ms);
  report.setCopyMs(totals.copy_ms);
  report.setRestoreMs(totals.restore_ms);
}

}  // namespace tide::sched
