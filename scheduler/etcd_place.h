#pragma once

// Which etcd a pool's schedulers share, as pool.toml names it.

#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::sched {

struct EtcdPlace {
  std::vector<std::string> members;  // "ADDRESS:PORT"
  std::string root = "/tide/";       // what all keys begin with
};
// "etcd://ADDRESS:PORT,ADDRESS:PORT,...[/NAME]"; with a name all keys begin with "/NAME/".
Outcome parse_etcd(const std::string& text, EtcdPlace* place);

}  // namespace tide::sched
