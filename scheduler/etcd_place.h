#pragma once

// Which etcd a pool's schedulers share, as pool.toml names it.

#include <string>
#include <vector>

#include "base/outcome.h"

namespace tide::sched {

struct EtcdPlace {
  std::vector<std::string> members;  // "ADDRESS:PORT"
  std::string root = "/tide/";       // what all keys begin with
  bool operator==(const EtcdPlace&) const = default;
};
// As it is written in pool.toml; "sqlite" where there are no members.
std::string to_text(const EtcdPlace& place);
// "etcd://ADDRESS:PORT,ADDRESS:PORT,...[/NAME]"; with a name all keys begin with "/NAME/".
Outcome parse_etcd(const std::string& text, EtcdPlace* place);

}  // namespace tide::sched
