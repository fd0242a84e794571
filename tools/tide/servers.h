#pragma once

// How servers, and what is left on those that are being drained, look: for people and as JSON.

#include <string>

#include "scheduler/control.capnp.h"
#include "tools/tide/json.h"

namespace tide::cli {

// "job 3, virtual GPUs 0,1", "checkpoint of job 3, virtual GPU 0"
std::string left_name(control::Left::Reader left);
// The same with what it does: "job 3, virtual GPU 0: leaves"
std::string left_text(control::Left::Reader left);
// An object.
void add_server(Json& json, control::ServerState::Reader server);
// "being drained: gpu1 (2 jobs left), gpu2 (empty)"; empty: none is.
std::string drains_text(capnp::List<control::ServerState>::Reader servers);
// "gpu1: rack=a, zone=b; switch s1"; empty: nothing is said of it.
std::string labels_text(control::ServerState::Reader server);

}  // namespace tide::cli
