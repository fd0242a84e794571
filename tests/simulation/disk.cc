#include "tests/simulation/disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>

namespace tide::simulation {
namespace {

constexpr uint64_t kSector = 512;

// SQLite makes room for it and gives plain memory.
struct OpenFile {
  sqlite3_file base;
  SimDisk* disk;
  std::shared_ptr<SimDisk::File>* file;
};

OpenFile& open_file(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file); }
SimDisk& disk_of(sqlite3_vfs* vfs) { return *static_cast<SimDisk*>(vfs->pAppData); }

int close_file(sqlite3_file* file) {
  delete open_file(file).file;
  return SQLITE_OK;
}

int read_file(sqlite3_file* file, void* into, int amount, sqlite3_int64 offset) {
  const auto& seen = (*open_file(file).file)->seen;
  const uint64_t at = uint64_t(offset), wanted = uint64_t(amount);
  const uint64_t there = at >= seen.size() ? 0 : std::min(wanted, seen.size() - at);
  if (there != 0) memcpy(into, seen.data() + at, there);
  memset(static_cast<char*>(into) + there, 0, wanted - there);
  return there == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

int write_file(sqlite3_file* handle, const void* from, int amount, sqlite3_int64 offset) {
  SimDisk& disk = *open_file(handle).disk;
  SimDisk::File& file = **open_file(handle).file;
  const bool frozen = disk.frozen(), reaches = disk.reaches();
  if (frozen) return SQLITE_IOERR_WRITE;
  const uint64_t at = uint64_t(offset), n = uint64_t(amount);
  if (reaches && disk.is_full() && at + n > file.seen.size()) return SQLITE_FULL;
  if (file.seen.size() < at + n) file.seen.resize(at + n);
  const auto* bytes = static_cast<const std::byte*>(from);
  std::copy(bytes, bytes + n, file.seen.begin() + ptrdiff_t(at));
  file.unflushed.push_back({.at = at, .bytes = {bytes, bytes + n}});
  return reaches ? SQLITE_OK : SQLITE_IOERR_WRITE;  // the one during which the power went may be torn
}

int truncate_file(sqlite3_file* handle, sqlite3_int64 size) {
  SimDisk& disk = *open_file(handle).disk;
  SimDisk::File& file = **open_file(handle).file;
  if (!disk.reaches()) return SQLITE_IOERR_TRUNCATE;
  file.seen.resize(uint64_t(size));
  file.unflushed.push_back({.bytes = {}, .truncate_to = uint64_t(size)});
  return SQLITE_OK;
}

int sync_file(sqlite3_file* handle, int) {
  SimDisk::File& file = **open_file(handle).file;
  if (!open_file(handle).disk->reaches()) return SQLITE_IOERR_FSYNC;
  file.durable = file.seen;
  file.unflushed.clear();
  return SQLITE_OK;
}

int file_size(sqlite3_file* handle, sqlite3_int64* size) {
  *size = sqlite3_int64((*open_file(handle).file)->seen.size());
  return SQLITE_OK;
}

int lock_file(sqlite3_file*, int) { return SQLITE_OK; }
int is_reserved(sqlite3_file*, int* reserved) {
  *reserved = 0;
  return SQLITE_OK;
}
int file_control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return int(kSector); }
// As SQLite takes of Linux: a write that is torn does not harm its neighbours.
int characteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

const sqlite3_io_methods kMethods = {
    .iVersion = 1,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock_file,
    .xUnlock = lock_file,
    .xCheckReservedLock = is_reserved,
    .xFileControl = file_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = nullptr,
    .xShmLock = nullptr,
    .xShmBarrier = nullptr,
    .xShmUnmap = nullptr,
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

int open_path(sqlite3_vfs* vfs, const char* path, sqlite3_file* handle, int flags, int* given) {
  OpenFile& file = open_file(handle);
  file.base.pMethods = nullptr;
  SimDisk& disk = disk_of(vfs);
  const std::string name = path == nullptr ? "temporary" : path;
  auto found = disk.find(name);
  if (found == nullptr && (flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
  if (disk.frozen()) return SQLITE_CANTOPEN;
  if (found == nullptr) found = disk.create(name);
  file.base.pMethods = &kMethods;
  file.disk = &disk;
  file.file = new std::shared_ptr<SimDisk::File>(std::move(found));
  if (given != nullptr) *given = flags;
  return SQLITE_OK;
}

int delete_path(sqlite3_vfs* vfs, const char* path, int) {
  if (!disk_of(vfs).reaches()) return SQLITE_IOERR_DELETE;
  disk_of(vfs).remove(path);
  return SQLITE_OK;
}

int access_path(sqlite3_vfs* vfs, const char* path, int, int* result) {
  *result = disk_of(vfs).find(path) != nullptr ? 1 : 0;
  return SQLITE_OK;
}

int full_path(sqlite3_vfs*, const char* path, int bytes, char* out) {
  snprintf(out, size_t(bytes), "%s", path);
  return SQLITE_OK;
}

int randomness(sqlite3_vfs* vfs, int bytes, char* out) {
  for (int i = 0; i < bytes; ++i) out[i] = char(disk_of(vfs).world().secret());
  return bytes;
}

int sleep_for(sqlite3_vfs*, int us) { return us; }

int current_time(sqlite3_vfs* vfs, double* days) {
  *days = 2460000.0 + double(disk_of(vfs).world().now()) / 86'400e9;
  return SQLITE_OK;
}

int last_error(sqlite3_vfs*, int, char*) { return 0; }

sqlite3_vfs make_vfs(SimDisk* disk) {
  sqlite3_vfs vfs = {};
  vfs.iVersion = 1;
  vfs.szOsFile = sizeof(OpenFile);
  vfs.mxPathname = 512;
  vfs.zName = "simulated";
  vfs.pAppData = disk;
  vfs.xOpen = open_path;
  vfs.xDelete = delete_path;
  vfs.xAccess = access_path;
  vfs.xFullPathname = full_path;
  vfs.xRandomness = randomness;
  vfs.xSleep = sleep_for;
  vfs.xCurrentTime = current_time;
  vfs.xGetLastError = last_error;
  return vfs;
}

sqlite3_vfs registered;

}  // namespace

SimDisk::SimDisk(World& world) : world_(world), chance_(world.fork()) {
  sqlite3_initialize();
  registered = make_vfs(this);
  sqlite3_vfs_register(&registered, 1);
  sqlite3_randomness(0, nullptr);  // it draws anew from this disk's
}

SimDisk::~SimDisk() { sqlite3_vfs_unregister(&registered); }

std::shared_ptr<SimDisk::File> SimDisk::find(const std::string& path) const {
  const auto found = files_.find(path);
  return found == files_.end() ? nullptr : found->second;
}

std::shared_ptr<SimDisk::File> SimDisk::create(const std::string& path) {
  return files_[path] = std::make_shared<File>();
}

void SimDisk::crash_at(uint64_t writes, std::function<void()> crashed) {
  writes_left_ = writes;
  crashed_ = std::move(crashed);
}

bool SimDisk::reaches() {
  if (frozen_) return false;
  if (writes_left_ == 0 || --writes_left_ != 0) return true;
  frozen_ = true;
  world_.note("power gone at a write");
  // The write under way may be torn: thaw() keeps some of what is not flushed.
  if (crashed_) crashed_();
  return false;
}

// Any of the writes since the last flush may be there, in sectors.
void SimDisk::lose_power(File& file) {
  for (const File::Write& write : file.unflushed) {
    if (chance_.one_in(2)) continue;
    if (write.truncate_to != ~uint64_t{0}) {
      file.durable.resize(write.truncate_to);
      continue;
    }
    const uint64_t end = write.at + write.bytes.size();
    for (uint64_t at = write.at; at < end;) {
      const uint64_t next = std::min(end, (at / kSector + 1) * kSector);
      if (!chance_.one_in(4)) {
        if (file.durable.size() < next) file.durable.resize(next);
        std::copy_n(write.bytes.begin() + ptrdiff_t(at - write.at), next - at, file.durable.begin() + ptrdiff_t(at));
      }
      at = next;
    }
  }
  file.unflushed.clear();
  file.seen = file.durable;
}

void SimDisk::thaw(bool power_lost) {
  frozen_ = false;
  writes_left_ = 0;
  if (!power_lost) return;
  for (auto& [path, file] : files_) lose_power(*file);
}

}  // namespace tide::simulation
