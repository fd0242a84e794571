#include "scheduler/pool_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"

namespace tide::sched {
namespace {

Outcome cannot_write(const std::string& path) {
  return Outcome::fail("cannot write " + path + ": " + strerror(errno) + "; nothing has changed");
}

// In one piece or not at all, with these permissions.
Outcome write_whole(const std::string& path, const std::string& text, mode_t mode) {
  const std::string part = path + ".part";
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return cannot_write(part);
  bool good = fchmod(fd, mode) == 0;
  for (size_t at = 0; good && at < text.size();) {
    const ssize_t n = write(fd, text.data() + at, text.size() - at);
    good = n > 0;
    at += good ? size_t(n) : 0;
  }
  good = good && fsync(fd) == 0;
  good = close(fd) == 0 && good;
  if (good && rename(part.c_str(), path.c_str()) == 0) return {};
  const Outcome failed = cannot_write(path);
  unlink(part.c_str());
  return failed;
}

Outcome sync_directory_of(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool good = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  return good ? Outcome() : Outcome::fail("cannot write " + directory + ": " + strerror(errno));
}

}  // namespace

std::vector<ConfigError> open_pool_file(const std::string& path, PoolFile* file) {
  PoolFile read;
  std::vector<ConfigError> errors = read_config_text(path, &read.text);
  if (errors.empty()) errors = parse_config(read.text, path, &read.config);
  if (!errors.empty()) return errors;
  char* const full = realpath(path.c_str(), nullptr);
  read.path = full != nullptr ? full : path;
  free(full);
  *file = std::move(read);
  return {};
}

Outcome replace_pool_file(const PoolFile& file, const std::string& text) {
  if (file.path.empty())
    return Outcome::fail(
        "this scheduler was started without a pool.toml, so it has no place for another; start it with --config FILE");
  std::string there;
  // Where it is gone, what counted until now is what is kept.
  const bool readable = read_config_text(file.path, &there).empty();
  const std::string& before = readable && there != text ? there : file.text;
  struct stat info = {};
  const mode_t mode = stat(file.path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0600;
  if (before != text) {
    const Outcome kept = write_whole(file.path + ".before", before, mode);
    if (!kept.ok()) return kept;
  }
  if (readable && there == text) return {};
  const Outcome written = write_whole(file.path, text, mode);
  if (!written.ok()) return written;
  const Outcome synced =
      sync_directory_of(file.path);  // it is there either way; a power cut might bring the old one back
  if (!synced.ok()) log(LogLevel::kWarning, "%s", synced.message().c_str());
  return {};
}

}  // namespace tide::sched
