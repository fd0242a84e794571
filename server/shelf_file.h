#pragma once

// The file in which is kept what finds no room in memory (server/shelf.h). It has no name, and ends with the last
// process that has it.

#include <cstddef>
#include <cstdint>
#include <string>

namespace tide {

// A new one, for reading and writing, close-on-exec; the directory is made when missing. -1: errno says why.
int open_shelf_file(const std::string& directory);
// All of it, or false with errno. Any thread.
bool write_at(int fd, const std::byte* data, uint64_t bytes, uint64_t at);
bool read_at(int fd, std::byte* data, uint64_t bytes, uint64_t at);
// What so many bytes take of the disk: they begin at a block, so that their place can be given back.
uint64_t on_disk_bytes(uint64_t bytes);

// Who else writes there, the agent first, shall go on. One thread.
class DiskLook {
 public:
  // Whether a twentieth of it stays free; looked at now and then.
  bool leaves_room(int fd, uint64_t bytes);

 private:
  static constexpr uint64_t kEveryBytes = uint64_t{32} << 20;
  uint64_t unlooked_ = kEveryBytes;  // bytes since the last look
  bool room_ = false;
};

}  // namespace tide
