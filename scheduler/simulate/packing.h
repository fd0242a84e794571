#pragma once

// How full a cluster gets when jobs that ask for parts of GPUs, or for several, and for CPU and memory beside them,
// arrive one after the other and never leave: the experiment of FGD (ATC '23) on Alibaba's OpenB cluster. It has
// policies that place a job on one node, as clusters without remote GPUs must.

#include <cstdint>
#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::simulate {

inline constexpr int32_t kWholeGpu_milli = 1000;

struct Node {
  std::string model;
  int64_t cpu_milli = 0, memory_mib = 0;
  std::vector<int32_t> gpus_milli;  // free
};

struct Pod {
  int64_t cpu_milli = 0, memory_mib = 0;
  int32_t gpus = 0, gpu_milli = 0;  // of each of its GPUs
  std::string models;               // "V100M16|V100M32"; empty: any
  uint32_t kind = 0;                // the same for pods that ask for the same CPU and GPUs
  int64_t milli() const { return int64_t(gpus) * gpu_milli; }
};

enum class Packing : uint8_t {
  kRandom,   // any node that fits, any GPU there
  kBestFit,  // where the least CPU and GPU are left
  kFgd,      // where the fewest GPUs become useless for the jobs that are usual (fragmentation gradient descent)
  // GPUs of any server, CPU and memory of a machine without GPUs:
  kPooled,  // in parts, too, best fit
  kTide,    // whole ones only, as this pool gives them
  kMoves,   // in parts, and running jobs move to make room (repack.h)
  kTurns,   // in turns on whole GPUs, of which a job may have one on one GPU and the next on another (McNaughton)
};
struct PackingName {
  const char* name;
  Packing packing;
};
inline constexpr PackingName kPackings[] = {{"random", Packing::kRandom}, {"best-fit", Packing::kBestFit},
                                            {"fgd", Packing::kFgd},       {"pooled", Packing::kPooled},
                                            {"tide", Packing::kTide},     {"moves", Packing::kMoves},
                                            {"turns", Packing::kTurns}};

// CSVs: node, cpu_milli, memory_mib, gpus, gpu_model; and of pods cpu_milli, memory_mib, gpus_requested,
// gpu_fraction_total, gpu_spec. Fail with file and line.
Outcome read_nodes(const std::string& path, std::vector<Node>* nodes);
Outcome read_pods(const std::string& path, std::vector<Pod>* pods);

struct PackingOptions {
  Packing packing = Packing::kRandom;
  double arrivals = 1.3;  // GPUs that are asked for in all / GPUs: pods are drawn again until it is so
  uint64_t seed = 1;
};

struct PackingResult {
  double allocated = 0;      // part of all GPUs that jobs asked for and have, when as much as there is was asked for
  double leased = 0;         // part that they hold: more where a part of a GPU takes a whole one
  double fragmented = 0;     // part of all GPUs that is free then, and useless for the usual jobs
  double moves_per_job = 0;  // of those that were placed; kTurns: in each round of turns
  double bound = 1;          // what no packing of parts could better (packing_bound_milli())
};
// Requires: nodes with GPUs, pods that ask for some.
PackingResult pack(const std::vector<Node>& nodes, const std::vector<Pod>& pods, const PackingOptions& options);

}  // namespace tide::simulate
