#pragma once

// The client's line to the scheduler's door: who we are, which vGPUs we have, where one of them lives now.

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/outcome.h"
#include "interpose/door_answers.h"

namespace tide {

// What TIDE_DOOR, TIDE_JOB and TIDE_TOKEN say. TIDE_DOOR: "ADDRESS:PORT" (of several schedulers: with commas
// between), or the path of a unix socket. TIDE_TOKEN: 64 hexadecimal digits.
struct JobIdentity {
  std::string door;
  char job[kIdBytes] = {};
  uint8_t token[kTokenBytes] = {};
};
// Fails with the next step when this process is not part of a job, or the variables are malformed.
Outcome job_from_environment(JobIdentity* identity);

// Threads: any, after say_hello().
class Pool {
 public:
  Outcome say_hello(const JobIdentity& identity, std::vector<VgpuPlace>* places, bool* refused = nullptr);
  // Where the vGPU lives now. *refused: the scheduler has answered, and knows of no such job or vGPU any more.
  struct Place {
    uint64_t epoch = 0;
    std::string endpoint;
    bool coming = false;  // it is lost there, and will be elsewhere
  };
  Outcome where(uint32_t vgpu, Place* place, bool* refused = nullptr);
  Outcome measure(PoolUsage* usage);
  // How long the scheduler may take for an answer.
  void set_patience(uint32_t ms) { patience_ms_ = ms; }
  const JobIdentity& identity() const { return identity_; }
  // In a forked child: closes the descriptor and nothing else.
  void abandon();

 private:
  Outcome dial(const std::string& door);
  // Says hello at one door; `*elsewhere`: another one may answer; `*refused`: this one has.
  Outcome greet(const std::string& door, std::vector<VgpuPlace>* places, bool* elsewhere, bool* refused);
  // Asks once; false where the line is broken (and closed then).
  bool ask_usage(Outcome* outcome, PoolUsage* usage);

  JobIdentity identity_;
  uint32_t patience_ms_ = 10'000;
  std::mutex mu_;
  size_t door_ = 0;  // of those in identity_: the one that answered last
  int socket_ = -1;
};

}  // namespace tide
