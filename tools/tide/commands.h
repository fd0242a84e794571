#pragma once

// The subcommands of `tide`: each takes the words after its name and answers with the exit status.

#include <string>
#include <vector>

namespace tide::cli {

using Words = std::vector<std::string>;

int up(const Words& words);
int down(const Words& words);
int run(const Words& words);
int env(const Words& words);
int status(const Words& words);
int jobs(const Words& words);
int gpus(const Words& words);
int queues(const Words& words);
int job(const Words& words);
int why(const Words& words);
int report(const Words& words);
int top(const Words& words);
int resize(const Words& words);
int migrate(const Words& words);
int suspend(const Words& words);
int resume(const Words& words);
int drain(const Words& words);
int undrain(const Words& words);
int kill_job(const Words& words);
int config_import(const Words& words);
int config(const Words& words);
int doctor(const Words& words);
int simulate(const Words& words);
int replay_snapshot(const Words& words);  // `tide simulate --snapshot`
int snapshot(const Words& words);
int trace_command(const Words& words);
int version(const Words& words);

}  // namespace tide::cli
