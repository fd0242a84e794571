#pragma once

// A simulated disk under SQLite (a VFS): what was written and not yet flushed is lost, whole or torn, when the power
// goes; it can be full; and the power can go at any write or flush.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/simulation/world.h"

namespace tide::simulation {

class SimDisk {
 public:
  // SQLite's default from now on, until it falls.
  explicit SimDisk(World& world);
  ~SimDisk();
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  // The power goes at the n-th write or flush from now; `crashed` is called then, and nothing reaches the disk any
  // more.
  void crash_at(uint64_t writes, std::function<void()> crashed);
  // The process is dead: nothing reaches the disk.
  void freeze() { frozen_ = true; }
  // Another process begins. With `power_lost`, of what was not flushed only some is there.
  void thaw(bool power_lost);
  void fill(uint64_t until) { full_until_ = until; }

  struct File {
    std::vector<std::byte> seen;     // by who reads now
    std::vector<std::byte> durable;  // after the power was gone
    struct Write {
      uint64_t at = 0;
      std::vector<std::byte> bytes;
      uint64_t truncate_to = ~uint64_t{0};  // instead
    };
    std::vector<Write> unflushed;  // in their order
  };
  std::shared_ptr<File> find(const std::string& path) const;
  std::shared_ptr<File> create(const std::string& path);
  void remove(const std::string& path) { files_.erase(path); }
  // Whether a write or flush gets there.
  bool reaches();
  bool frozen() const { return frozen_; }
  bool is_full() const { return world_.now() < full_until_; }
  World& world() { return world_; }

 private:
  void lose_power(File& file);

  World& world_;
  Chance chance_;
  std::map<std::string, std::shared_ptr<File>> files_;
  bool frozen_ = false;
  uint64_t writes_left_ = 0;  // 0: no crash is due
  std::function<void()> crashed_;
  uint64_t full_until_ = 0;
};

}  // namespace tide::simulation
