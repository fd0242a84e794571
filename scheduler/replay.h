#pragma once

// A recorded decision, worked out again by the present policy, also with something otherwise. Pure.

#include <string>
#include <vector>

#include "scheduler/snapshot.h"

namespace tide::sched {

// What a round has decided beside what was: who runs, ends to run, or is somewhere else afterwards. `answer` may leave
// out jobs about which nothing changes. Not in it: why somebody goes on waiting.
std::vector<Decided> changes_of(const State& state, const Assignment& answer);

// One job, as it was decided and as it is decided now.
struct Replayed {
  Decided then;
  Decision now;
  bool recorded = false;  // there is a word about it in the record; else nothing changed for it
  bool same = true;       // a reason counts where one was recorded
};
// In the order of the state's jobs. Requires: `now` has all of them.
std::vector<Replayed> replay(const Snapshot& snapshot, const Assignment& now);

// "gpus=+4", "drain=SERVER", "queue.NAME.quota=8", ..., several of them with '&' between: changes the state, or says
// why not. Where GPUs are taken away, free ones go first, from the back.
Outcome apply_what_if(const std::string& text, State* state);
extern const char* const kWhatIfHelp;

}  // namespace tide::sched
