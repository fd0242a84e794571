#pragma once

// When a job is told that the network to its GPUs is what it waits for.

#include <string>
#include <vector>

#include "scheduler/control.capnp.h"

namespace tide::cli {

// Of some virtual GPUs' links the one that costs most: "the link to far is slow: round trip 214 ms, 0.9 Mb/s; 9.1 s of
// the last 10.0 s were spent waiting for it". Empty where the job does not wait for a slow one.
//
// Slow is what no network of one building is: a round trip of 5 ms or more, or less than 1 Gb/s while bytes waited. It
// is worth a word where at least a quarter of the time went into waiting for it.
std::string slow_link(const std::vector<control::VgpuStats::Reader>& vgpus, const std::vector<std::string>& servers);
// What to do about it.
std::string slow_link_remedy();

}  // namespace tide::cli
