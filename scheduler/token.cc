#include "scheduler/token.h"

#include <string.h>
#include <sys/random.h>

#include <cerrno>

#include "base/limits.h"

namespace tide::sched {

Outcome new_token(std::string* token) {
  std::string bytes(kTokenBytes, '\0');
  if (getrandom(bytes.data(), bytes.size(), 0) != ssize_t(bytes.size())) {
    return Outcome::fail(std::string("the kernel gave no random bytes: ") + strerror(errno));
  }
  *token = std::move(bytes);
  return {};
}

bool same_token(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

}  // namespace tide::sched
