#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tide {
namespace {

constexpr const char* kNames[] = {"debug", "info", "warning", "error", "off"};
std::atomic<const char*> process_name{"tidepool"};
std::atomic<int> default_level{int(LogLevel::kWarning)};

int level_from_environment() {
  const char* text = getenv("TIDE_LOG");
  for (int i = 0; text != nullptr && i < 5; ++i) {
    if (strcmp(text, kNames[i]) == 0) return i;
  }
  return -1;
}

int least_level() {
  static const int chosen = level_from_environment();
  return chosen >= 0 ? chosen : default_level.load(std::memory_order_relaxed);
}

std::atomic<LogReader> log_reader{nullptr};
std::atomic<int> usual_descriptor{STDERR_FILENO};

int log_fd() {
  static const int file = [] {
    const char* path = getenv("TIDE_LOG_FILE");
    return path == nullptr ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }();
  return file >= 0 ? file : usual_descriptor.load(std::memory_order_relaxed);
}

}  // namespace

void set_log_name(const char* name) { process_name.store(name); }
void set_log_descriptor(int descriptor) { usual_descriptor.store(descriptor); }
int log_descriptor() { return log_fd(); }
void set_default_log_level(LogLevel level) { default_level.store(int(level)); }
bool log_enabled(LogLevel level) { return int(level) >= least_level(); }

void set_log_reader(LogReader reader) { log_reader.store(reader); }

void log(LogLevel level, const char* format, ...) {
  const LogReader reader = level >= LogLevel::kWarning ? log_reader.load(std::memory_order_acquire) : nullptr;
  if (!log_enabled(level) && reader == nullptr) return;
  char line[2048];
  int n = snprintf(line, sizeof line, "%s: %s: ", process_name.load(), kNames[int(level)]);
  const int head = n;
  va_list args;
  va_start(args, format);
  const int more = vsnprintf(line + n, sizeof line - size_t(n) - 1, format, args);
  va_end(args);
  n += more < 0 ? 0 : more;
  if (n > int(sizeof line) - 2) n = int(sizeof line) - 2;
  line[n] = '\0';
  if (reader != nullptr) reader(level, line + head);
  if (!log_enabled(level)) return;
  line[n++] = '\n';
  // One write, so that lines of several processes do not mix.
  [[maybe_unused]] const ssize_t written = write(log_fd(), line, size_t(n));
}

std::string format(const char* format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  const int n = vsnprintf(nullptr, 0, format, args);
  va_end(args);
  std::string text(size_t(n < 0 ? 0 : n), '\0');
  vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

}  // namespace tide
