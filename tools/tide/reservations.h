#pragma once

// How reservations look: for people and as JSON.

#include "scheduler/control.capnp.h"
#include "tools/tide/json.h"

namespace tide::cli {

using Reservations = capnp::List<control::ReservationInfo>::Reader;

// The member `reservations` of the present object: a list.
void add_reservations(Json& json, Reservations reservations);
// A table; nothing where there are none.
void print_reservations(Reservations reservations);

}  // namespace tide::cli
