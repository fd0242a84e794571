#include "tools/tide/reservations.h"

#include <stdio.h>

#include <string>

#include "base/log.h"
#include "scheduler/reservations.h"

namespace tide::cli {
namespace {

using Texts = capnp::List<capnp::Text>::Reader;

const char* stage_of(control::ReservationInfo::Reader info) {
  return info.getOver() ? "over" : info.getBegun() ? "now" : "coming";
}

std::string joined(Texts texts) {
  std::string all;
  for (const auto text : texts) all += (all.empty() ? "" : ", ") + std::string(text);
  return all;
}

void add_texts(Json& json, const char* key, Texts texts) {
  json.key(key).list();
  for (const auto text : texts) json.text(std::string(text));
  json.end();
}

// For whom, on which, and what is lent.
std::string note_of(control::ReservationInfo::Reader info) {
  std::string note;
  const auto add = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
  if (info.getGpuModel().size() != 0) add("model " + std::string(info.getGpuModel()));
  if (info.getLabels().size() != 0) add("label " + joined(info.getLabels()));
  if (info.getUsers().size() != 0) add("user " + joined(info.getUsers()));
  if (info.getQueues().size() != 0) add("queue " + joined(info.getQueues()));
  if (info.getExclusive()) add("exclusive");
  if (info.getWaitingJobs() != 0) add(format("%u of its jobs wait", info.getWaitingJobs()));
  if (!info.getOver() && info.getThere() < info.getGpus())
    add(format("the pool has only %u such GPUs now", info.getThere()));
  return note;
}

}  // namespace

void add_reservations(Json& json, Reservations reservations) {
  json.key("reservations").list();
  for (const auto info : reservations) {
    json.object()
        .add("name", std::string(info.getName()))
        .add("gpus", info.getGpus())
        .add("gpu_model", std::string(info.getGpuModel()));
    add_texts(json, "labels", info.getLabels());
    json.add("from_ms", info.getFromMs()).add("until_ms", info.getUntilMs()).add("stage", std::string(stage_of(info)));
    add_texts(json, "users", info.getUsers());
    add_texts(json, "queues", info.getQueues());
    json.add("exclusive", info.getExclusive())
        .add("kept", info.getKept())
        .add("used", info.getUsed())
        .add("there", info.getThere())
        .add("running_jobs", info.getRunningJobs())
        .add("waiting_jobs", info.getWaitingJobs())
        .end();
  }
  json.end();
}

void print_reservations(Reservations reservations) {
  if (reservations.size() == 0) return;
  printf("\n%-20s %-7s %6s %6s %6s  %-23s  %-23s  %s\n", "RESERVATION", "STAGE", "GPUS", "KEPT", "USED", "FROM",
         "UNTIL", "FOR");
  for (const auto info : reservations) {
    printf("%-20s %-7s %6u %6u %6u  %-23s  %-23s  %s\n", info.getName().cStr(), stage_of(info), info.getGpus(),
           info.getKept(), info.getUsed(), sched::time_text(info.getFromMs()).c_str(),
           sched::time_text(info.getUntilMs()).c_str(), note_of(info).c_str());
  }
}

}  // namespace tide::cli
