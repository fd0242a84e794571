#pragma once

// What each queue had in the past: GPU-seconds, of which half are forgotten in each half-life. Plain data and
// arithmetic; whoever knows the time says how much has gone by.

#include <cstdint>
#include <map>
#include <string>

namespace tide::sched {

inline constexpr uint64_t kHalfLifeMs = 24ull * 3600 * 1000;  // where pool.toml says nothing

// GPU-seconds by the name of a leaf.
using Usage = std::map<std::string, double>;

// `after_ms` have gone by, in which each queue had so many thousandths of GPUs. What is less than a GPU-second is
// forgotten where nothing is had.
void account(Usage* usage, const std::map<std::string, int64_t>& allocated, double after_ms, uint64_t half_life_ms);

// The part of a pool of so many thousandths that it was: 0 to 1. 1 for who has had all of it for many half-lives.
double part_of_past(double gpu_seconds, int64_t pool, uint64_t half_life_ms);

}  // namespace tide::sched
