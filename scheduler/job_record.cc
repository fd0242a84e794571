#include "scheduler/job_record.h"

#include <capnp/message.h>
#include <capnp/serialize-packed.h>
#include <kj/io.h>

#include <cmath>

#include "scheduler/record.capnp.h"

namespace tide::sched {
namespace {

constexpr uint32_t kVgpusRead = 4096;  // more are damage

std::string text_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }
std::string text_of(capnp::Data::Reader data) { return {reinterpret_cast<const char*>(data.begin()), data.size()}; }
capnp::Data::Reader data_of(const std::string& bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}

void write(const GpuId& place, record::Place::Builder out) {
  out.setServer(place.server);
  out.setGpu(place.index);
}
GpuId read(record::Place::Reader in) { return {text_of(in.getServer()), in.getGpu()}; }

void write(const VgpuRecord& vgpu, record::Vgpu::Builder out) {
  write(vgpu.at, out.initAt());
  if (!vgpu.home.none()) write(vgpu.home, out.initHome());
  out.setEpoch(vgpu.epoch);
  out.setDeviceInfo(data_of(vgpu.device_info));
  if (vgpu.guard.server.empty() && vgpu.guard.epoch == 0) return;
  auto guard = out.initGuard();
  guard.setServer(vgpu.guard.server);
  guard.setEpoch(vgpu.guard.epoch);
  guard.setMadeMs(vgpu.guard.made_ms);
  guard.setToken(data_of(vgpu.guard.token));
}

VgpuRecord read(record::Vgpu::Reader in) {
  const auto guard = in.getGuard();
  return {.at = read(in.getAt()),
          .home = read(in.getHome()),
          .epoch = in.getEpoch(),
          .device_info = text_of(in.getDeviceInfo()),
          .guard = {text_of(guard.getServer()), guard.getEpoch(), guard.getMadeMs(), text_of(guard.getToken())}};
}

void write(const TurnRecord& turn, record::Turn::Builder out) {
  out.setExcluded(turn.excluded);
  out.setYielding(turn.yielding);
  out.setTicket(turn.ticket);
  out.setBeganMs(turn.began_ms);
  out.setSuspendMs(turn.suspend_ms);
  out.setResumeMs(turn.resume_ms);
  out.setStrain(turn.strain);
}

TurnRecord read(record::Turn::Reader in) {
  return {.excluded = in.getExcluded(),
          .yielding = in.getYielding(),
          .ticket = in.getTicket(),
          .began_ms = in.getBeganMs(),
          .suspend_ms = in.getSuspendMs(),
          .resume_ms = in.getResumeMs(),
          .strain = in.getStrain()};
}

void write(const AccountRecord& account, record::Account::Builder out) {
  out.setWallMs(account.wall_ms);
  out.setBoot(account.boot);
  out.setClockNs(account.clock_ns);
  auto used = out.initUsed(uint32_t(account.used.size()));
  for (uint32_t v = 0; v < used.size(); ++v) {
    used[v].setEpoch(account.used[v].epoch);
    used[v].setUsedMs(account.used[v].used_ms);
  }
}

AccountRecord read(record::Account::Reader in) {
  AccountRecord account{.wall_ms = in.getWallMs(), .boot = in.getBoot(), .clock_ns = in.getClockNs(), .used = {}};
  for (const auto each : in.getUsed()) account.used.push_back({.epoch = each.getEpoch(), .used_ms = each.getUsedMs()});
  return account;
}

void write(const JobRecord& job, record::Job::Builder out) {
  out.setNumber(job.number);
  out.setToken(data_of(job.token));
  out.setGpus(job.gpus);
  out.setMinGpus(job.min_gpus);
  out.setMinGiven(job.min_given);
  out.setPart(job.part);
  out.setMemoryGiven(job.memory_given);
  out.setMemoryBytes(job.memory_bytes);
  out.setQueue(job.queue);
  out.setName(job.name);
  out.setUser(job.user);
  out.setCommand(job.command);
  out.setPid(job.pid);
  out.setTarget(job.target);
  out.setPinned(job.pinned);
  out.setSuspended(job.suspended);
  out.setIdled(job.idled);
  out.setIdleMs(job.idle_ms);
  out.setProtectMs(job.protect_ms);
  out.setHeld(job.held);
  out.setPhase(uint8_t(job.phase));
  out.setReason(job.reason);
  out.setSubmittedMs(job.submitted_ms);
  out.setStartedMs(job.started_ms);
  out.setEndedMs(job.ended_ms);
  out.setExitStatus(job.exit_status);
  out.setMoves(job.moves);
  out.setRequire(to_text(job.require));
  out.setPriority(job.priority);
  out.setJobClass(uint8_t(job.job_class));
  out.setMinRuntimeMs(job.min_runtime_ms);
  out.setPowersOfTwo(job.powers_of_two);
  out.setEstimateMs(job.estimate_ms);
  out.setDeadlineMs(job.deadline_ms);
  out.setReservation(job.reservation);
  out.setWeight(job.weight);
  out.setUsefulMs(job.useful_ms);
  auto disturbed = out.initDisturbedMs(uint32_t(job.disturbed_ms.size()));
  for (uint32_t i = 0; i < disturbed.size(); ++i) disturbed.set(i, job.disturbed_ms[i]);
  write(job.turn, out.initTurn());
  if (job.account.boot != 0) write(job.account, out.initAccount());
  auto vgpus = out.initVgpus(uint32_t(job.vgpus.size()));
  for (uint32_t v = 0; v < vgpus.size(); ++v) write(job.vgpus[v], vgpus[v]);
}

JobRecord read(record::Job::Reader in) {
  JobRecord job;
  job.number = in.getNumber();
  job.token = text_of(in.getToken());
  job.gpus = in.getGpus();
  job.min_gpus = in.getMinGpus();
  job.min_given = in.getMinGiven();
  job.part = in.getPart();
  job.memory_given = in.getMemoryGiven();
  job.memory_bytes = in.getMemoryBytes();
  job.queue = text_of(in.getQueue());
  job.name = text_of(in.getName());
  job.user = text_of(in.getUser());
  job.command = text_of(in.getCommand());
  job.pid = in.getPid();
  job.target = in.getTarget();
  job.pinned = in.getPinned();
  job.suspended = in.getSuspended();
  job.idled = in.getIdled();
  job.idle_ms = in.getIdleMs();
  job.protect_ms = in.getProtectMs();
  job.held = in.getHeld();
  job.phase = Phase(in.getPhase());
  job.reason = text_of(in.getReason());
  job.submitted_ms = in.getSubmittedMs();
  job.started_ms = in.getStartedMs();
  job.ended_ms = in.getEndedMs();
  job.exit_status = in.getExitStatus();
  job.moves = in.getMoves();
  (void)parse_requirements(text_of(in.getRequire()), &job.require);  // else it requires nothing
  job.priority = in.getPriority();
  job.job_class = JobClass(in.getJobClass());
  job.min_runtime_ms = in.getMinRuntimeMs();
  job.powers_of_two = in.getPowersOfTwo();
  job.estimate_ms = in.getEstimateMs();
  job.deadline_ms = in.getDeadlineMs();
  job.reservation = text_of(in.getReservation());
  job.weight = in.getWeight();
  job.useful_ms = in.getUsefulMs();
  for (const uint64_t ms : in.getDisturbedMs()) job.disturbed_ms.push_back(ms);
  job.turn = read(in.getTurn());
  job.account = read(in.getAccount());
  for (const auto vgpu : in.getVgpus()) job.vgpus.push_back(read(vgpu));
  return job;
}

std::string packed(capnp::MallocMessageBuilder& message) {
  kj::VectorOutputStream out;
  capnp::writePackedMessage(out, message);
  const auto bytes = out.getArray();
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

}  // namespace

std::string to_bytes(const JobRecord& job) {
  capnp::MallocMessageBuilder message;
  write(job, message.initRoot<record::Job>());
  return packed(message);
}

Outcome from_bytes(const std::string& bytes, JobRecord* job) {
  const bool thrown = kj::runCatchingExceptions([&] {
                        kj::ArrayInputStream in(data_of(bytes));
                        capnp::PackedMessageReader message(in);
                        const auto root = message.getRoot<record::Job>();
                        KJ_REQUIRE(root.getVgpus().size() <= kVgpusRead && root.getPhase() <= uint8_t(Phase::kEnded));
                        KJ_REQUIRE(root.getJobClass() <= uint8_t(JobClass::kInference));
                        *job = read(root);
                      }) != nullptr;
  return thrown ? Outcome::fail("these bytes are no record of a job") : Outcome();
}

std::string usage_bytes(const Usage& usage, uint64_t at_ms) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<record::Usage>();
  root.setAtMs(at_ms);
  auto queues = root.initQueues(uint32_t(usage.size()));
  uint32_t at = 0;
  for (const auto& [name, gpu_seconds] : usage) {
    auto queue = queues[at++];
    queue.setName(name);
    queue.setGpuSeconds(gpu_seconds);
  }
  return packed(message);
}

Outcome read_usage(const std::string& bytes, Usage* usage, uint64_t* at_ms) {
  const bool thrown = kj::runCatchingExceptions([&] {
                        kj::ArrayInputStream in(data_of(bytes));
                        capnp::PackedMessageReader message(in);
                        const auto root = message.getRoot<record::Usage>();
                        Usage read;
                        for (const auto queue : root.getQueues()) {
                          KJ_REQUIRE(std::isfinite(queue.getGpuSeconds()) && queue.getGpuSeconds() >= 0);
                          read[queue.getName().cStr()] = queue.getGpuSeconds();
                        }
                        *usage = std::move(read);
                        *at_ms = root.getAtMs();
                      }) != nullptr;
  return thrown ? Outcome::fail("these bytes do not say what queues had") : Outcome();
}

}  // namespace tide::sched
