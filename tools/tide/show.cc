#include "tools/tide/show.h"

#include <stdio.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "scheduler/room.h"
#include "tools/tide/deadline.h"
#include "tools/tide/options.h"

namespace tide::cli {

const char* state_name(control::JobState state) {
  switch (state) {
    case control::JobState::QUEUED:
      return "queued";
    case control::JobState::RUNNING:
      return "running";
    case control::JobState::ENDED:
      return "ended";
    case control::JobState::SUSPENDED:
      return "suspended";
  }
  return "unknown";
}

void add_turn(Json& json, control::TurnInfo::Reader turn) {
  const bool ends = turn.getTaken() && turn.getLengthMs() != sched::kEndless;
  json.key("turn").object().add("taken", turn.getTaken()).add("ends", ends);
  json.add("length_ms", ends ? turn.getLengthMs() : uint64_t(0)).add("next", std::string(turn.getNext()));
  json.add("ends_ms", turn.getEndsMs()).add("waits", turn.getWaits()).add("comes_ms", turn.getComesMs());
  json.add("switch_ms", turn.getSwitchMs()).add("doubled", turn.getDoubled()).end();
}

void begin_job(Json& json, control::JobInfo::Reader job) {
  const auto spec = job.getSpec();
  json.object().add("id", std::string(job.getId())).add("name", std::string(spec.getName()));
  json.add("queue", std::string(spec.getQueue()));
  json.add("reservation", std::string(spec.getReservation()));
  json.add("state", std::string(state_name(job.getState()))).add("reason", std::string(job.getReason()));
  json.add("part", spec.getPart() == 0 ? 1.0 : spec.getPart() / 1000.0);
  json.add("weight", std::max(1u, spec.getWeight()));
  json.add("gpus", spec.getGpus()).add("min_gpus", spec.getMinGpus()).add("physical_gpus", job.getPhysicalGpus());
  json.add("target", job.getTarget() == 0 ? spec.getGpus() : job.getTarget());
  json.add("memory_bytes", job.getMemoryBytes()).add("moves", job.getMoves());
  json.add("user", std::string(spec.getUser()))
      .add("command", std::string(spec.getCommand()))
      .add("pid", spec.getPid());
  json.add("submitted_ms", job.getSubmittedMs())
      .add("started_ms", job.getStartedMs())
      .add("ended_ms", job.getEndedMs());
  json.add("exit_status", job.getExitStatus()).add("suspended", job.getSuspended());
  const auto job_class = std::min(spec.getJobClass(), control::JobClass::INFERENCE);
  json.add("priority", spec.getPriority()).add("class", std::string(sched::to_text(sched::JobClass(job_class))));
  json.add("min_runtime_ms", spec.getMinRuntimeMs()).add("powers_of_two", spec.getPowersOfTwo());
  json.add("idle_ms", spec.getIdleMs()).add("useful_ms", job.getUsefulMs());
  json.add("disturbed", job.getDisturbed()).add("spared", std::string(job.getSpared()));
  add_promise(json, job);
  add_turn(json, job.getTurn());
}

std::string place_text(const std::string& server, uint32_t gpu) {
  if (server.empty()) return "-";
  return server + "/" + (gpu == control::PARKED ? "parked" : std::to_string(gpu));
}

std::string gpus_text(control::JobSpec::Reader spec) {
  return spec.getPart() != 0 ? sched::part_text(spec.getPart()) : std::to_string(spec.getGpus());
}

uint32_t part_left(control::PoolGpu::Reader gpu) {
  if (gpu.getJob().size() == 0) return sched::kWholeGpu;
  uint32_t taken = 0;
  for (const auto share : gpu.getShares()) taken += share.getPart();
  const bool whole = gpu.getShares().size() == 0;  // a scheduler that knows no parts
  return whole || taken >= sched::kWholeGpu ? 0 : sched::kWholeGpu - taken;
}

std::string jobs_text(control::PoolGpu::Reader gpu) {
  std::string text;
  for (const auto share : gpu.getShares()) {
    text += (text.empty() ? "" : ", ") + std::string(share.getJob());
    if (share.getPart() < sched::kWholeGpu) text += " (" + sched::part_text(share.getPart()) + ")";
  }
  return text.empty() ? std::string(gpu.getJob()) : text;
}

std::string kept_text(control::JobInfo::Reader job) {
  std::map<std::string, std::string> vgpus;  // by server
  for (const auto vgpu : job.getVgpus()) {
    if (vgpu.getGpu() != control::PARKED) continue;
    std::string& list = vgpus[vgpu.getServer()];
    list += (list.empty() ? "" : ",") + std::to_string(vgpu.getVgpu());
  }
  std::string text;
  for (const auto& [server, list] : vgpus) {
    const bool one = list.find(',') == std::string::npos;
    text += (text.empty() ? "" : "; ") + format("virtual GPU%s %s on %s", one ? "" : "s", list.c_str(), server.c_str());
  }
  return text;
}

Kept kept_of(capnp::List<control::VgpuStats>::Reader vgpus) {
  Kept kept;
  for (const auto stats : vgpus) {
    kept.in_memory += stats.getKeptInMemory();
    kept.on_disk += stats.getKeptOnDisk();
    kept.apart += stats.getKeptApart();
  }
  return kept;
}

std::string kept_size_text(const Kept& kept) {
  const std::string text = size_text(kept.in_memory) + " in memory, " + size_text(kept.on_disk) + " on disk";
  if (kept.apart <= kept.in_memory + kept.on_disk) return text;
  return text + " (" + size_text(kept.apart) + " if equal chunks were not kept once)";
}

Json& add_move(Json& json, control::MoveReport::Reader report) {
  json.add("bytes", report.getBytes()).add("pause_ms", report.getPauseMs()).add("rounds", report.getRounds());
  json.add("pause_bytes", report.getPauseBytes()).add("drain_ms", report.getDrainMs());
  return json.add("copy_ms", report.getCopyMs()).add("restore_ms", report.getRestoreMs());
}

std::string move_text(control::MoveReport::Reader report) {
  return format("%s in %u round%s, %s of it in pauses, longest pause %.0f ms (drain %.0f, copy %.0f, restore %.0f)",
                size_text(report.getBytes()).c_str(), report.getRounds(), report.getRounds() == 1 ? "" : "s",
                size_text(report.getPauseBytes()).c_str(), report.getPauseMs(), report.getDrainMs(), report.getCopyMs(),
                report.getRestoreMs());
}

void show_move(const std::string& job, uint32_t before, uint32_t after, control::MoveReport::Reader report, bool json) {
  if (json) {
    Json out;
    out.object().add("job", job).add("gpus_before", before).add("gpus_after", after);
    add_move(out, report).add("vgpus", report.getVgpus()).add("total_ms", report.getTotalMs()).end().print();
    return;
  }
  if (report.getVgpus() == 0) {
    printf("job %s: %u -> %u GPU%s, nothing to move\n", job.c_str(), before, after, after == 1 ? "" : "s");
    return;
  }
  printf("job %s: %u -> %u GPU%s, %u vGPU%s moved, %s\n", job.c_str(), before, after, after == 1 ? "" : "s",
         report.getVgpus(), report.getVgpus() == 1 ? "" : "s", move_text(report).c_str());
}

}  // namespace tide::cli
