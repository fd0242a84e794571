#pragma once

// The file of a trace: made by who starts the job, read in pieces by who shows it.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/outcome.h"

namespace tide::trace {

// Makes `path` a trace without frames; what was there must be empty, or a trace of a job that has ended. *absolute:
// where it is. Until the calling process has ended, and those that it forks and that do not exec, nobody else can make
// it anew.
Outcome begin_file(const std::string& path, std::string* absolute);

class FileReader {
 public:
  FileReader() = default;
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  Outcome open(const std::string& path);
  uint64_t size() const { return size_; }  // when it was opened
  // From `at` on, where something was written: at once past the holes of a file.
  uint64_t next_data(uint64_t at) const;
  // False: not all of it is there.
  bool read(uint64_t at, void* to, size_t bytes) const;
  // The same without a copy, as long as nothing else is viewed; null. Requires: bytes <= kViewMax.
  static constexpr size_t kViewMax = 2u << 20;
  const char* view(uint64_t at, size_t bytes);

 private:
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string window_;
  uint64_t window_at_ = 0;
};

}  // namespace tide::trace
