#include "server/image_store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/descriptors.h"
#include "base/log.h"

namespace tide {
namespace fs = std::filesystem;

ImageStore::ImageStore(std::string directory, uint64_t bytes_most)
    : directory_(std::move(directory)), bytes_most_(bytes_most) {
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
    log(LogLevel::kWarning, "images are not kept: cannot make %s: %s", directory_.c_str(), strerror(errno));
    bytes_most_ = 0;
  }
}

ImageStore ImageStore::from_environment() {
  const char* directory = getenv("TIDE_IMAGE_DIR");
  const char* bytes = getenv("TIDE_IMAGE_BYTES");
  if (directory == nullptr || bytes == nullptr) return {};
  return {directory, strtoull(bytes, nullptr, 10)};
}

void ImageStore::keep(const std::vector<std::byte>& image, uint64_t bytes) const {
  if (!keeps(bytes)) return;
  const std::string name = path(sha256({image.data(), bytes}));
  struct stat there = {};
  if (stat(name.c_str(), &there) == 0 && uint64_t(there.st_size) == bytes) return;
  make_room(bytes);
  // Whole, or not at all, whoever else does the same and whenever this process ends.
  std::string draft = directory_ + "/new-XXXXXX";
  const int fd = mkostemp(draft.data(), O_CLOEXEC);
  if (fd < 0) return log(LogLevel::kDebug, "an image is not kept: %s: %s", draft.c_str(), strerror(errno));
  Outcome kept = write_all(fd, image.data(), bytes);
  close(fd);
  if (kept.ok() && rename(draft.c_str(), name.c_str()) != 0) kept = Outcome::fail(strerror(errno));
  if (kept.ok()) return;
  log(LogLevel::kDebug, "an image is not kept: %s", kept.message().c_str());
  unlink(draft.c_str());
}

bool ImageStore::find(const Sha256& name, uint64_t bytes, uint64_t padding, std::vector<std::byte>* image) const {
  if (bytes_most_ == 0) return false;
  const int fd = open(path(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  struct stat status = {};
  // Of another length: it is the asker who may be wrong.
  const bool sized = fstat(fd, &status) == 0 && uint64_t(status.st_size) == bytes;
  bool found = sized;
  if (found) {
    image->assign(bytes + padding, std::byte{0});
    found = read_all(fd, image->data(), bytes).ok() && sha256({image->data(), bytes}) == name;
    futimens(fd, nullptr);  // it is in use
  }
  close(fd);
  if (sized && !found) unlink(path(name).c_str());
  return found;
}

// Other workers may do the same at the same moment: then more goes than must.
void ImageStore::make_room(uint64_t bytes) const {
  struct Kept {
    fs::path path;
    uint64_t bytes;
    fs::file_time_type used;
  };
  std::vector<Kept> all;
  uint64_t total = bytes;
  std::error_code error;
  for (auto it = fs::directory_iterator(directory_, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    std::error_code gone;
    const uint64_t size = it->file_size(gone);
    const auto used = it->last_write_time(gone);
    if (gone) continue;
    all.push_back({it->path(), size, used});
    total += size;
  }
  std::sort(all.begin(), all.end(), [](const Kept& a, const Kept& b) { return a.used < b.used; });
  for (size_t i = 0; i < all.size() && total > bytes_most_; ++i) {
    if (fs::remove(all[i].path, error)) total -= all[i].bytes;
  }
}

}  // namespace tide
