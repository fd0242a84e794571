#pragma once

// How long a step of a training job takes on so many GPUs of so many nodes, as it was measured: a CSV with the columns
// application, table (`placement`: GPUs node by node; `scalability`: only how many), placement, num_nodes,
// num_replicas, local_bsz, step_time_s, sync_time_s.

#include <map>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::simulate {

// GPUs of a job node by node: {4, 2}.
using Placement = std::vector<uint32_t>;

class StepTimes {
 public:
  // Fails with file and line.
  Outcome read(const std::string& path);

  bool knows(const std::string& application) const { return applications_.count(application) != 0; }
  // Whether just this placement was measured, not only its counts of nodes and GPUs.
  bool measured(const std::string& application, const Placement& placement) const;
  // Of one step with `batch` samples in all, on all GPUs together; a GPU that cannot hold its part does several in
  // turn. Requires: the application is known.
  double step_s(const std::string& application, const Placement& placement, uint32_t batch) const;

 private:
  struct Times {
    double step_s = 0, sync_s = 0;
  };
  using Curve = std::map<double, std::vector<Times>>;  // by samples on a GPU
  struct Application {
    std::map<std::string, Curve> placed;
    std::map<std::pair<uint32_t, uint32_t>, Curve> counted;  // by nodes and GPUs
    double local_max = 0;                                    // samples that a GPU can hold
  };

  static Times mean(const std::vector<Times>& times);
  static Times at(const Curve& curve, double local);
  static Times near(const Application& application, const Placement& placement, double local);
  Outcome row(const std::vector<std::string>& fields);

  std::map<std::string, Application> applications_;
};

}  // namespace tide::simulate
