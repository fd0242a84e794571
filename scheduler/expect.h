#pragma once

// What a job is expected to need yet, by its user's word or by what was learned from those that ended (estimates.h), as
// the policy is told of it (JobView). Pure, without a clock.

#include <cstdint>
#include <string>

#include "scheduler/estimates.h"
#include "scheduler/order.h"
#include "scheduler/state.h"

namespace tide::sched {

// By whose word.
enum class Word : uint8_t { kNone, kGiven, kLearned };

struct Expected {
  Word word = Word::kNone;      // kNone: what is expected is a guess, which is good for an order and for nothing else
  uint64_t left_ms = 1;         // that it will run yet on all its GPUs
  Estimates::Basis basis = {};  // of kLearned, and of kNone
};

// `given_ms`: its user's estimate, which is believed until it is over; 0: none. `ran_ms`: useful time that it has run,
// on the way in `step`.
Expected expected_of(const Estimates& estimates, const Estimates::Kind& kind, uint64_t given_ms, uint64_t ran_ms);

// Of a job that was submitted then and has this many virtual GPUs (or a part of one): JobView::place.
int64_t place_of(const OrderRules& rules, uint64_t submitted_ms, uint64_t left_ms, double gpus);

// When it is over if it gets its minimum of GPUs now; 0: nothing is known.
uint64_t end_if_started(const JobView& job, uint64_t now_ms);
// It has got GPUs by that decision: what its view says from then on.
void note_start(const Decision& decision, uint64_t now_ms, JobView* job);

std::string about_text(uint64_t ms);  // "about 12 min"
// "about 12 min more, learned from 14 jobs of its user in its queue with as many GPUs"
std::string to_text(const Expected& expected);

}  // namespace tide::sched
