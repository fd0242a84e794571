#pragma once

// A rail is a network device of each side, between which bytes can go. Which there are, and what of them is measured on
// a path: each alone, then all together, because only that shows whether a rail adds anything.

#include <string>
#include <vector>

#include "tools/rdma_bench/path.h"

namespace tide::fabric {

// Names as PathKind::family has them: interfaces for "tcp" ("eth0"), ports for "rdma" ("mlx5_0:1").
struct Rail {
  std::string here, there;
};

// What --device asks for: "HERE", or "HERE=THERE" where the two share no network by which they are matched.
struct RailWish {
  std::string here, there;

  static Outcome parse(const std::string& text, std::vector<RailWish>* wishes);
};

// One way over a path: with no rails, the devices by which the two sides reach each other.
struct Line {
  const PathKind* kind;
  std::vector<Rail> rails;
  bool beside = false;  // not asked for: only bandwidth is measured, for the sum

  std::string name() const;  // "tcp", "tcp@eth0", "tcp@eth0+eth1"
  std::vector<std::string> devices_here() const;
  std::vector<std::string> devices_there() const;
};

const PathKind* kind_of_line(const std::string& name);
std::string first_device_of_line(const std::string& name);  // "": it names none

// Those of the family, each device at most once, in the order in which this machine has them.
std::vector<Rail> rails_between(const std::string& family, const Machine& here, const Machine& there);
std::string devices_of(const Machine& machine);  // for people: "RDMA rxe0:1, rxe1:1; interfaces lo, eth0"
// That this machine has what --device names.
Outcome check_wishes(const std::vector<RailWish>& wishes, const Machine& here);
// *lines: none where no wish is about this kind of path.
Outcome lines_of(const PathKind& kind, const std::vector<RailWish>& wishes, const Machine& here, const Machine& there,
                 std::vector<Line>* lines);

}  // namespace tide::fabric
