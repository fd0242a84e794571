#pragma once

// One line a message on standard error: "tidepool: warning: ...". TIDE_LOG=debug|info|warning|error|off chooses the
// least level that is printed (default warning in the client library, info in daemons). TIDE_LOG_FILE redirects.

#include <string>

namespace tide {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

void set_log_name(const char* name);         // "tide-agent"; default "tidepool"
void set_default_log_level(LogLevel level);  // used where TIDE_LOG is not set
// Where lines go unless TIDE_LOG_FILE says otherwise; standard error before the first call.
void set_log_descriptor(int descriptor);
int log_descriptor();
// Who else gets every warning and error, printed or not, without its newline; null: nobody. Called in the thread that
// logs.
using LogReader = void (*)(LogLevel level, const char* text);
void set_log_reader(LogReader reader);
bool log_enabled(LogLevel level);
// printf-style; the newline is added. Safe in any thread; never throws. Not for hot paths.
void log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));
std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace tide
