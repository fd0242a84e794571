#include "tools/tide/protection.h"

#include "base/clock.h"
#include "base/log.h"
#include "tools/tide/options.h"

namespace tide::cli {
namespace {

uint64_t age_s(control::ProtectionInfo::Reader info) {
  const uint64_t now = wall_seconds(), made = info.getMadeMs() / 1000;
  return now > made ? now - made : 0;
}

std::string why_none(control::ProtectionInfo::Reader info) {
  return info.getProblem().size() != 0 ? info.getProblem().cStr() : "the first one is being made";
}

}  // namespace

std::string protection_text(control::ProtectionInfo::Reader info, uint64_t protect_ms) {
  if (info.getMadeMs() == 0) return "no checkpoint: " + why_none(info);
  std::string text = format("checkpoint %lu s old on %s%s", (unsigned long)age_s(info), info.getGuard().cStr(),
                            info.getSameServer() ? " (the server of the GPU: it does not outlive that)" : "");
  const auto last = info.getLast();
  if (last.getSessions() != 0) {
    text += format(
        ", paused %.1f ms (%.2f %% of the time; come to rest %.1f, sent %.1f), %s, %s of it in the pause, "
        "%u rounds in %.0f ms, %.0f ms of processor",
        last.getPauseMs(), 100.0 * last.getPauseMs() / double(protect_ms), last.getDrainMs(), last.getCopyMs(),
        size_text(last.getBytes()).c_str(), size_text(last.getPauseBytes()).c_str(), last.getRounds(),
        last.getTotalMs(), last.getCpuMs());
  }
  if (info.getRecoveries() != 0) text += format("; went on from one %u times", info.getRecoveries());
  if (info.getProblem().size() != 0) text += std::string("; none newer: ") + info.getProblem().cStr();
  return text;
}

void add_protection(Json& json, control::ProtectionInfo::Reader info) {
  json.key("protection").object().add("guard", std::string(info.getGuard().cStr()));
  json.add("same_server", info.getSameServer()).add("made_ms", info.getMadeMs());
  json.add("problem", std::string(info.getProblem().cStr())).add("refused", info.getRefused());
  json.add("recoveries", info.getRecoveries());
  const auto last = info.getLast();
  if (last.getSessions() != 0) {
    json.key("last").object().add("bytes", last.getBytes()).add("pause_bytes", last.getPauseBytes());
    json.add("pause_ms", last.getPauseMs()).add("drain_ms", last.getDrainMs()).add("copy_ms", last.getCopyMs());
    json.add("total_ms", last.getTotalMs()).add("cpu_ms", last.getCpuMs()).add("rounds", last.getRounds());
    json.add("sessions", last.getSessions()).end();
  }
  json.end();
}

std::string unprotected_text(control::JobInfo::Reader job) {
  std::string text;
  for (const auto vgpu : job.getVgpus()) {
    if (job.getSpec().getProtectMs() == 0 || vgpu.getProtection().getMadeMs() != 0) continue;
    text += format("%svirtual GPU %u has no checkpoint: ", text.empty() ? "" : "; ", vgpu.getVgpu());
    text += why_none(vgpu.getProtection());
  }
  return text;
}

}  // namespace tide::cli
