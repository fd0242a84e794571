#include "server/verdict.h"

#include <cstring>

namespace tide {
namespace {

constexpr uint32_t kLastWordsMs = 100;

struct Verdict {
  uint32_t ok = 0;
  char message[500] = {};
};

std::string text_of(Verdict& verdict) {
  verdict.message[sizeof(verdict.message) - 1] = '\0';
  return std::string("the destination says: ") + verdict.message;
}

}  // namespace

Outcome send_verdict(ByteStream& stream, const Outcome& outcome) {
  Verdict verdict;
  verdict.ok = outcome.ok() ? 1 : 0;
  const std::string text = outcome.message().substr(0, sizeof(verdict.message) - 1);
  memcpy(verdict.message, text.data(), text.size());
  // No flush: the source reads it, and then may not look at the stream for a while.
  return stream.send(&verdict, sizeof(verdict));
}

Outcome await_verdict(ByteStream& stream, uint32_t timeout_ms) {
  Verdict verdict;
  if (Outcome outcome = stream.receive(&verdict, sizeof(verdict), timeout_ms); !outcome.ok()) return outcome;
  return verdict.ok != 0 ? Outcome() : Outcome::fail(text_of(verdict));
}

std::string last_words(ByteStream& stream) {
  Verdict verdict;
  // What it has said before it gave up comes first.
  do {
    if (!stream.receive(&verdict, sizeof(verdict), kLastWordsMs).ok()) return {};
  } while (verdict.ok != 0);
  return text_of(verdict);
}

}  // namespace tide
