#pragma once

// What `tide job` and `tide why` say of checkpoints.

#include <string>

#include "scheduler/control.capnp.h"
#include "tools/tide/json.h"

namespace tide::cli {

// Of one virtual GPU: where its last checkpoint is, how old, and what it cost; or why there is none.
std::string protection_text(control::ProtectionInfo::Reader info, uint64_t protect_ms);
void add_protection(Json& json, control::ProtectionInfo::Reader info);
// Of a protected job: which of its virtual GPUs have no checkpoint, and why; empty: all have one.
std::string unprotected_text(control::JobInfo::Reader job);

}  // namespace tide::cli
