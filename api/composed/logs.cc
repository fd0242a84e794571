// The driver's log of what went wrong: what the library also writes to standard error, from warnings on, in a buffer
// that programs read (cuLogsDump*) and at once to whoever wants it (callbacks).

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "api/composed/composed.h"
#include "base/log.h"

struct CUlogsCallbackEntry_st {  // opaque in cuda.h
  CUlogsCallback function;
  void* data;
};

namespace {

constexpr size_t kBytesMax = 25600;  // as cuda.h says
constexpr const char* kDropped = "[older messages were dropped]\n";

struct Logs {
  std::mutex mutex;
  std::deque<std::string> lines;  // each with its newline
  size_t bytes = 0;
  CUlogIterator first = 0;  // number of lines.front()
  std::map<CUlogsCallbackHandle, CUlogsCallbackEntry_st> callbacks;

  CUlogIterator end() const { return first + static_cast<CUlogIterator>(lines.size()); }
};
Logs& logs() {
  static auto* all = new Logs;  // outlives calls from atexit
  return *all;
}

std::string stamped(tide::LogLevel level, const char* text) {
  const time_t now = time(nullptr);
  tm broken;
  localtime_r(&now, &broken);
  char head[64];
  snprintf(head, sizeof head, "[%02d:%02d:%02d][%d:%d][%c] ", broken.tm_hour, broken.tm_min, broken.tm_sec,
           static_cast<int>(getpid()), static_cast<int>(gettid()), level == tide::LogLevel::kError ? 'E' : 'W');
  return std::string(head) + text + "\n";
}

void take(tide::LogLevel level, const char* text) {
  std::string line = stamped(level, text);
  std::vector<CUlogsCallbackEntry_st> callbacks;
  {
    const std::lock_guard lock(logs().mutex);
    for (const auto& [handle, entry] : logs().callbacks) callbacks.push_back(entry);
    logs().bytes += line.size();
    logs().lines.push_back(line);
    while (logs().bytes > kBytesMax && logs().lines.size() > 1) {
      logs().bytes -= logs().lines.front().size();
      logs().lines.pop_front();
      ++logs().first;
    }
  }
  // Without the lock: a callback may read the logs.
  const CUlogLevel kind = level == tide::LogLevel::kError ? CU_LOG_LEVEL_ERROR : CU_LOG_LEVEL_WARNING;
  for (const CUlogsCallbackEntry_st& entry : callbacks) entry.function(entry.data, kind, line.data(), line.size());
}

// All from `iterator` on in at most `most` bytes; where that is too little, the latest, and that others are missing.
// False: not even one message fits.
bool dump(CUlogIterator* iterator, size_t most, std::string* text) {
  const std::lock_guard lock(logs().mutex);
  const Logs& all = logs();
  CUlogIterator from = iterator == nullptr || *iterator > all.end() ? 0 : *iterator;
  bool dropped = from < all.first;
  if (dropped) from = all.first;
  size_t bytes = 0;
  for (CUlogIterator i = from; i < all.end(); ++i) bytes += all.lines[i - all.first].size();
  while (from < all.end() && bytes + (dropped ? strlen(kDropped) : 0) > most) {
    bytes -= all.lines[from++ - all.first].size();
    dropped = true;
  }
  const bool none_fits = from == all.end() && dropped;
  if (none_fits) return false;
  if (dropped) *text = kDropped;
  for (CUlogIterator i = from; i < all.end(); ++i) *text += all.lines[i - all.first];
  if (iterator != nullptr) *iterator = all.end();
  return true;
}

bool append(const char* path, const std::string& text) {
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0) return false;
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t written = write(file, text.data() + at, text.size() - at);
    if (written <= 0) break;
    at += static_cast<size_t>(written);
  }
  return close(file) == 0 && at == text.size();
}

}  // namespace

void tide::composed::keep_logs() { tide::set_log_reader(take); }

void tide::composed::renew_logs() { new (&logs().mutex) std::mutex; }

#pragma GCC visibility push(default)
extern "C" {

CUresult cuLogsRegisterCallback(CUlogsCallback function, void* data, CUlogsCallbackHandle* handle) {
  static uintptr_t last = 0;  // guarded by the mutex
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(logs().mutex);
  const auto made = reinterpret_cast<CUlogsCallbackHandle>(++last);
  logs().callbacks[made] = {function, data};
  if (handle != nullptr) *handle = made;
  return CUDA_SUCCESS;
}

CUresult cuLogsUnregisterCallback(CUlogsCallbackHandle handle) {
  const std::lock_guard lock(logs().mutex);
  return logs().callbacks.erase(handle) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLogsCurrent(CUlogIterator* iterator, unsigned int flags) {
  if (iterator == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(logs().mutex);
  *iterator = logs().end();
  return CUDA_SUCCESS;
}

CUresult cuLogsDumpToFile(CUlogIterator* iterator, const char* path, unsigned int flags) {
  if (path == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  CUlogIterator next = iterator == nullptr ? 0 : *iterator;
  std::string text;
  dump(&next, SIZE_MAX, &text);
  if (!append(path, text)) return CUDA_ERROR_INVALID_VALUE;
  if (iterator != nullptr) *iterator = next;
  return CUDA_SUCCESS;
}

CUresult cuLogsDumpToMemory(CUlogIterator* iterator, char* buffer, size_t* bytes, unsigned int flags) {
  if (buffer == nullptr || bytes == nullptr || *bytes == 0 || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  std::string text;
  const bool fits = dump(iterator, *bytes - 1, &text);
  memcpy(buffer, text.c_str(), text.size() + 1);
  *bytes = text.size();
  return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // extern "C"
#pragma GCC visibility pop
