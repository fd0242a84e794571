#pragma once

// How jobs and moves look, for people and as JSON.

#include <string>

#include "scheduler/control.capnp.h"
#include "tools/tide/json.h"

namespace tide::cli {

const char* state_name(control::JobState state);
// One object; without `end()`, so that more can follow.
void begin_job(Json& json, control::JobInfo::Reader job);
// What it says of taking turns, as a member of the present object.
void add_turn(Json& json, control::TurnInfo::Reader turn);
// "node0/1", "node0/parked".
std::string place_text(const std::string& server, uint32_t gpu);
// "virtual GPUs 0,1 on node0": those that are parked; empty: none.
std::string kept_text(control::JobInfo::Reader job);

// How many GPUs somebody has asked for: "4", "0.5".
std::string gpus_text(control::JobSpec::Reader spec);
// Thousandths of the GPU that nobody holds.
uint32_t part_left(control::PoolGpu::Reader gpu);
// Who holds it: "3", or of several "3 (0.5), 4 (0.25)".
std::string jobs_text(control::PoolGpu::Reader gpu);
struct Kept {  // bytes of parked virtual GPUs on their servers
  uint64_t in_memory = 0, on_disk = 0;
  uint64_t apart = 0;  // both, if equal chunks were not kept once
};
Kept kept_of(capnp::List<control::VgpuStats>::Reader vgpus);
// "12 MiB in memory, 4 MiB on disk", and what equal chunks would have added.
std::string kept_size_text(const Kept& kept);
// Members of the present object; and "12.4 MiB in 3 rounds, ..." as below.
Json& add_move(Json& json, control::MoveReport::Reader report);
std::string move_text(control::MoveReport::Reader report);
// "job 3: 4 -> 1 GPU, 3 vGPUs moved, 12.4 MiB in 3 rounds, 2.0 MiB of it in pauses, longest pause 35 ms (drain 1, copy
// 8, restore 20)", or the JSON of it.
void show_move(const std::string& job, uint32_t before, uint32_t after, control::MoveReport::Reader report, bool json);

}  // namespace tide::cli
